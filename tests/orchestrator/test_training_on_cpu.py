"""The main job, from the command line: plan, train, publish, skip, resume; on both kinds of store."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from commands import OFFLOAD, offload, run
from leak_case import train_project

from gpu_offload.dataset.synthetic import generate
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.backends import standby
from gpu_offload.orchestrator.github.predictions import is_public, publish_picture
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.stores import public_address, store_of
from gpu_offload.orchestrator.report.load import gather
from gpu_offload.orchestrator.report.picture import PNG, read_picture
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.orchestrator.state import state_folder

pytestmark = pytest.mark.training

EPOCHS, LONG = 4, 200
CONFIGURATION = """
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
epochs = 4
image-size = 64
batch = 8
hyperparameters = {plots = false, workers = 0}
speed = {threads = false}
[registry]
floor = 0  # four epochs teach little
"""


BOTH = pytest.mark.parametrize("project", ["folder", "s3"], indirect=True)
"""For what the kind of store could break; the rest is tried on a folder."""


@pytest.fixture
def project(request, tmp_path):
    """Return a project with a small dataset, and a store that is a bucket over HTTP or a folder.

    With a folder it leaves out what such a training compiles at its start and exports at its end.
    """
    generate(tmp_path / "shapes", images=24, size=64)
    text = CONFIGURATION
    if getattr(request, "param", "folder") == "s3":
        text += f'[store]\nurl = "s3://{request.getfixturevalue("bucket")}/project"\n'
    else:
        text = text.replace("threads = false", "threads = false, fused_norm = false")
        text = text.replace("[registry]", "[registry]\nexports = []")
    (tmp_path / "offload.toml").write_text(text)
    return tmp_path


OWN_ON_BOTH = pytest.mark.parametrize("own_project", ["folder", "s3"], indirect=True)


@pytest.fixture
def own_project(request, tmp_path):
    """Return a project whose training needs no torch, only time, and a store as `project` has."""
    train_project(tmp_path, pace=0.3, epochs=EPOCHS)
    url = "file:.offload"
    if getattr(request, "param", "folder") == "s3":
        url = f"s3://{request.getfixturevalue('bucket')}/project"
    configuration = tmp_path / "offload.toml"
    configuration.write_text(re.sub("url = .*", f'url = "{url}"', configuration.read_text()))
    return tmp_path


@pytest.fixture
def long_project(own_project):
    """Return the same with a training of a minute."""
    configuration = own_project / "offload.toml"
    configuration.write_text(configuration.read_text().replace(f"epochs = {EPOCHS}", f"epochs = {LONG}"))
    return own_project


def train(project, *arguments):
    return json.loads(offload(project, "train", "--on", "cpu", "--json", *arguments))


def start_training(project, errors=subprocess.DEVNULL):
    return subprocess.Popen(
        [*OFFLOAD, "train", "--on", "cpu", "--no-calibrate"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        start_new_session=True,
    )


def wait_until_trained(project, epoch, process):
    """Wait until an epoch is complete, so that the next one is under way."""
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up:
        if epoch in trained_epochs(project):
            return
        assert process.poll() is None, "the training ended before the epoch"
        time.sleep(0.02)
    pytest.fail(f"epoch {epoch} was never completed")


def kill(process, project, *, training):
    """SIGKILL the driver, and the training that it started too if asked."""
    if process.poll() is None:
        if training:
            (beat,) = state_folder(project).glob("work/*/heartbeat.json")
            os.kill(json.loads(beat.read_text())["pid"], signal.SIGKILL)
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def trained_epochs(project):
    """Return the epochs that trainings completed on this machine, in order."""
    events = [
        json.loads(line)
        for path in state_folder(project).glob("work/*/progress.jsonl")
        for line in path.read_text().splitlines()
    ]
    return [event["epoch"] for event in events if event["event"] == "epoch"]


@BOTH
def test_it_plans_trains_publishes_skips_and_pulls(project):
    plan = json.loads(offload(project, "plan", "--no-calibrate", "--json"))
    assert plan["decision"]["where"] == "cpu"
    assert plan["already_trained"] is None

    first = train(project)
    assert first["status"] == "trained"
    assert first["training_key"] == plan["training_key"]
    assert first["version"] == plan["training_key"][:16]

    again = train(project)
    assert (again["status"], again["version"], again["sha256"]) == (
        "already_trained",
        first["version"],
        first["sha256"],
    )

    listing = json.loads(offload(project, "models", "--json"))
    assert listing["stable"] == first["version"]
    assert [v["sha256"] for v in listing["versions"]] == [first["sha256"]]

    pulled = json.loads(offload(project, "pull", "app", "--json"))
    assert pulled["sha256"] == first["sha256"]
    assert Path(project, pulled["path"]).stat().st_size > 1_000_000
    assert json.loads(offload(project, "plan", "--no-calibrate", "--json"))["already_trained"]
    assert said_everywhere(project) == {(first["seconds"], first["cost_usd"])}
    look_at_the_picture(project, first["run"], first["version"])


def said_everywhere(project):
    """Return the pairs of time and cost that commands give for the latest run."""
    (status,) = json.loads(offload(project, "status", "--json"))["runs"]
    report = json.loads(offload(project, "report", "--json"))
    shown = json.loads(offload(project, "models", "show", "stable", "--json"))
    return {
        (status["seconds"], status["cost_usd"]),
        (report["seconds"], float(report["cost"]["total_usd"])),
        (shown["seconds"]["actual"], shown["cost_usd"]),
    }


def open_to_everybody(bucket, keys):
    import boto3

    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/{keys}"],
    }
    client = boto3.client("s3")
    client.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    client.close()


def look_at_the_picture(project, run, version):
    """A store that is public shows predictions beside the model; a private folder does not."""
    settings = load_settings(project, environment={})
    store, console = store_of(settings), Console()
    report = gather(store, settings.store, run, pictures=True)
    assert report.picture.startswith(PNG)
    assert publish_picture(settings, store, report, console) is None
    if settings.store_url.startswith("file:"):
        return
    open_to_everybody("offload-test", "project/models/*")
    address = publish_picture(settings, store, report, console)
    assert address is not None
    assert publish_picture(settings, store, report, console) == address
    with urllib.request.urlopen(address) as reply:  # no credentials go with it
        assert (reply.read(), reply.headers["Content-Type"]) == (report.picture, "image/png")
    # A store that has another address for the public is asked, and shown, there.
    base = address.removesuffix(f"/models/{version}/predictions.png")
    elsewhere = settings.model_copy(
        update={"store": settings.store.model_copy(update={"public_url": f"{base}/"})}
    )
    assert public_address(elsewhere, store, "index.json") == f"{base}/index.json"
    closed = settings.model_copy(
        update={"store": settings.store.model_copy(update={"public_url": f"{base}/closed"})}
    )
    assert not is_public(closed, store, version)
    # What a training says of its picture is a claim.
    store.put(run_key(run, "result/predictions.png"), PNG + b"another")
    assert read_picture(store, run, report.result) is None


def test_a_changed_dataset_continues_stable_and_reverting_it_moves_stable_back(own_project):
    settings = ("--set", "training.epochs=1", "--set", "training.init-from=stable")
    first = train(own_project, *settings)
    extra = own_project / "shapes" / "zzz.png"
    image = min((own_project / "shapes").glob("*.png"))
    extra.write_bytes(image.read_bytes() + b"\0")
    label = image.with_suffix(".txt")
    extra.with_suffix(".txt").write_text(label.read_text())
    second = train(own_project, *settings)
    assert second["version"] != first["version"]
    assert _manifest(own_project, second)["init_from"] == first["version"]
    assert train(own_project, *settings)["status"] == "already_trained", "it continued itself"
    extra.unlink()
    extra.with_suffix(".txt").unlink()
    back = train(own_project, *settings)
    assert (back["status"], back["version"], back["stable_moved"]) == (
        "already_trained",
        first["version"],
        True,
    )
    assert json.loads(offload(own_project, "models", "--json"))["stable"] == first["version"]


@OWN_ON_BOTH
@pytest.mark.parametrize("training", [True, False], ids=["everything", "the-driver-alone"])
def test_a_killed_training_is_resumed_and_repeats_at_most_the_epoch_it_was_in(own_project, training):
    """Where the driver alone is killed, its training must not go on by itself either."""
    killed_and_resumed(own_project, training=training)


def test_a_killed_ultralytics_training_is_resumed_too(project):
    killed_and_resumed(project, training=True)


def killed_and_resumed(project, *, training):
    process = start_training(project)
    try:
        wait_until_trained(project, 2, process)
    finally:
        kill(process, project, training=training)
    report = train(project)
    assert report["status"] == "trained"
    progress = _store(project).read(f"runs/{report['run']}/attempts/2/progress.jsonl")[0]
    events = [json.loads(line) for line in progress.splitlines()]
    epochs = [event["epoch"] for event in events if event["event"] == "epoch"]
    assert sorted(set(epochs)) == list(range(1, EPOCHS + 1))
    assert len(epochs) <= EPOCHS + 1, "an epoch that was complete was trained again"
    assert _manifest(project, report)["epochs_completed"] == EPOCHS


def test_a_process_that_was_started_before_the_plan_trains_and_is_ended_where_nothing_is_to_train(
    project, monkeypatch
):
    monkeypatch.setattr(standby, "is_known", lambda: True)
    settings = load_settings(project, overrides=["training.epochs=1"], environment={})

    def trained():
        with standby.standing_by(settings, on="auto", calibrate=None) as started:
            process = started.process
            return process, api.train(settings, standby=started)

    process, report = trained()
    assert (process.returncode, report.status) == (0, "trained")
    beat, _ = _store(project).read(f"runs/{report.run}/attempts/1/heartbeat.json")
    assert json.loads(beat)["pid"] == process.pid
    process, report = trained()
    assert (process.returncode, report.status) == (-signal.SIGKILL, "already_trained")


def test_an_interrupted_training_exits_75_and_carries_on(project):
    """It names the signal that it got, says once what is kept, and `status` knows that nothing trains now."""
    process = start_training(project, subprocess.PIPE)
    try:
        wait_until_trained(project, 1, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 75
    finally:
        kill(process, project, training=True)
    kept = len(trained_epochs(project))
    assert kept < EPOCHS
    assert "SIGTERM" not in said
    assert said.count("stays open") == said.count(f"{kept} of {EPOCHS} epochs are kept") == 1
    (standing,) = json.loads(offload(project, "status", "--json"))["runs"]
    assert (standing["status"], standing["driven"], standing["silent_seconds"]) == ("open", False, None)
    assert "nothing works on it now" in offload(project, "status")
    report = json.loads(offload(project, "report", "--json"))
    assert (report["status"], report["idle"], report["seconds"]) == ("open", True, standing["seconds"])
    work = state_folder(project) / "work"
    (work / "0-1").mkdir()
    _store(project).put("runs/0-1/outcome.json", b'{"status": "failed", "at": 1.0}')
    _, out, err = run(project, "train", "--on", "cpu", "--no-calibrate", "--json")
    report = json.loads(out)
    assert f"{EPOCHS - kept} are left" in err
    assert _manifest(project, report)["epochs_completed"] == EPOCHS
    assert list(work.iterdir()) == [], "the files of runs that are over are removed"
    kept = [info.key for info in _store(project).list(f"runs/{report['run']}/checkpoint/")]
    assert kept == [], "nothing resumes from the checkpoint of a published training"


def test_a_deadline_ends_a_training_while_it_runs_and_a_later_one_carries_on(long_project):
    """It stops within seconds, with its checkpoint, exit code 1 and what to do; nothing complete is trained again."""
    code, _, err = run(long_project, "train", "--on", "cpu", "--set", "limits.deadline=5s")
    assert code == 1
    assert "raise limits.deadline" in err
    first = trained_epochs(long_project)
    assert 1 < len(first) < LONG, "it was stopped while it ran"
    offload(long_project, "train", "--on", "cpu", "--set", "limits.deadline=5s", code=1)
    epochs = trained_epochs(long_project)
    # The files of a run that is over may be gone.
    second = epochs[len(first) :] if epochs[: len(first)] == first else epochs
    assert second, "it carried on"
    assert second[0] >= first[-1], "an epoch that was complete was trained again"


def test_a_background_job_ignores_ctrl_c_and_obeys_a_plain_kill(long_project):
    """Started with SIGINT ignored, as a script's `offload train &` is; SIGTERM still leaves a resumable state."""
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; exec {shlex.join(OFFLOAD)} train --on cpu"],
        cwd=long_project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_trained(long_project, 1, process)
        os.killpg(process.pid, signal.SIGINT)
        epoch = max(trained_epochs(long_project))
        wait_until_trained(long_project, epoch + 2, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75
    finally:
        kill(process, long_project, training=True)


def test_two_drivers_at_once_train_once(own_project):
    """The second one follows the first and does not claim to have trained."""
    others = [
        subprocess.Popen(
            [*OFFLOAD, "train", "--on", "cpu", "--json"],
            cwd=own_project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [p.communicate(timeout=300) for p in others]
    reports = [json.loads(out) for out, _ in told]
    trained, followed = sorted((0, 1), key=lambda i: reports[i]["status"] != "trained")
    assert [reports[i]["status"] for i in (trained, followed)] == ["trained", "already_trained"]
    assert f":{others[trained].pid}:" in reports[followed]["followed"]
    assert f"process {others[trained].pid} on this machine" in told[followed][1], "it says whom it follows"
    assert "epoch " in told[followed][1], "and shows the epochs"
    assert reports[0]["version"] == reports[1]["version"]
    assert reports[0]["run"] == reports[1]["run"]
    assert len(json.loads(offload(own_project, "models", "--json"))["versions"]) == 1


def _store(project):
    return store_of(load_settings(project, environment={}))


def _manifest(project, report):
    return publish.manifest_of(_store(project), report["version"]).model_dump()
