"""The real workflows, run by act: a real git repository calls them, as a user's would, and trains for real.

Ours are two stand-ins for what only GitHub has: the checkout of the action's own repository, and the token endpoint.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from act_case import (
    ACT,
    ARTIFACT,
    ATTEST,
    CHECKOUT,
    CONFIGURATION,
    FAILING,
    LIMIT_S,
    MOVING,
    OURS,
    PACE,
    PIN,
    ROOT,
    Repository,
    TokenEndpoint,
    commit,
    say_what_act_cannot,
)
from clone_case import git
from github_case import TOKEN, GitHub
from leak_case import OWN_TRAINING as HELD_TRAINING
from replay_case import OWN_TRAINING, add_images

from gpu_offload.client.model_client import ModelClient
from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.history import KeptTimings
from gpu_offload.orchestrator.github.workflows import WorkflowProject, write_workflows
from gpu_offload.orchestrator.registry import alias, download

pytestmark = [pytest.mark.workflow, pytest.mark.training]

if ACT is None:
    pytest.skip("act is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def stands(tmp_path_factory):
    """The action's repository as a commit would hold it, and the stand-in for its checkout."""
    folder = tmp_path_factory.mktemp("stands")
    for name in OURS:
        source, target = ROOT / name, folder / "ours" / name
        if source.is_dir():
            shutil.copytree(source, target)  # with compiled modules: every job begins with a fresh checkout
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    (folder / "ours/.gitignore").write_text("__pycache__\n")
    commit(folder / "ours", "as it is")
    (folder / "checkout").mkdir()
    (folder / "checkout/action.yml").write_text(CHECKOUT)
    commit(folder / "checkout", "stand in")
    for name, copy in (
        ("upload", '"$FOLDER" "$ARTIFACTS/$NAME"'),
        ("download", '"$ARTIFACTS"/$PATTERN "$FOLDER"'),
    ):
        (folder / name).mkdir()
        (folder / name / "action.yml").write_text(ARTIFACT.replace("<<copy>>", copy))
        commit(folder / name, "stand in")
    (folder / "attest-build-provenance").mkdir()
    (folder / "attest-build-provenance/action.yml").write_text(ATTEST)
    commit(folder / "attest-build-provenance", "stand in")
    return folder


@pytest.fixture
def make(tmp_path, stands):
    def made(store, limits="", own="", **changes):
        """Make a repository; `own` is training code in Ultralytics' place, where another is proved than that one's."""
        folder = tmp_path / "boards"
        generate(folder / "shapes", images=24, size=64)
        text = CONFIGURATION.format(store=store, limits=limits)
        for old, new in changes.items():
            text = re.sub(rf"^{old} = .*", f"{old} = {new}", text, flags=re.MULTILINE)
        if own:
            (folder / "mine.py").write_text(own)
            text = re.sub(
                r"^hyperparameters = .*", f'entrypoint = "mine:main"\n{PACE}', text, flags=re.MULTILINE
            )
        (folder / "offload.toml").write_text(text)
        git(folder.parent, "init", "-q", "-b", "main", str(folder))
        git(folder, "remote", "add", "origin", "https://github.com/us/boards.git")
        write_workflows(folder, WorkflowProject(PIN, keep=store.startswith("file:.")))
        say_what_act_cannot(folder)
        commit(folder, "begin")
        return Repository(folder, stands)

    return made


@pytest.fixture
def fresh(tmp_path, stands):
    """A repository in which nothing was done but `offload init`."""
    folder = tmp_path / "boards"
    folder.mkdir()
    generate(folder / "shapes", images=24, size=64)
    (folder / "README.md").write_text("# Boards\n")
    git(folder.parent, "init", "-q", "-b", "main", str(folder))
    git(folder, "remote", "add", "origin", "https://github.com/us/boards.git")
    command = [
        sys.executable,
        "-P",
        "-m",
        "gpu_offload.orchestrator.cli",
        "init",
        "--all",
        "--action",
        f"{PIN.repository}@{PIN.commit}",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    # One epoch teaches nothing, and what is tried is the way to the release.
    changes = {
        "epochs": "1",
        "image-size": "32",
        "hyperparameters": "{plots = false, workers = 0}",
        "floor": "0",
    }
    text = (folder / "offload.toml").read_text()
    for name, value in changes.items():
        text = re.sub(rf"^(# )?{name} = .*", f"{name} = {value}", text, flags=re.MULTILINE)
    (folder / "offload.toml").write_text(text)
    say_what_act_cannot(folder)
    commit(folder, "begin")
    return Repository(folder, stands)


def github_words(github):
    """Lead a workflow to a GitHub of our own."""
    words = ["--env", f"GITHUB_API_URL={github.url}", "--env", f"GITHUB_SERVER_URL={github.url}"]
    return [*words, "-s", f"GITHUB_TOKEN={TOKEN}"]


def test_without_any_account_what_a_push_changed_is_trained_once_and_kept_in_a_release(fresh, tmp_path):
    """Each workflow checks out anew, as on a hosted runner: what is not in the release is gone."""
    with GitHub() as github:
        words = [*github_words(github), "--var", "OFFLOAD_ATTEST=true"]
        log = fresh.run("push", "offload-train", *words)
        assert log.code == 0, log.text("plan")[-3000:] + log.text("train")[-3000:]
        assert log.jobs == {"plan": "success", "train": "success", "keep": "success", "attest": "success"}
        outputs = log.outputs("train")
        assert outputs["where"] == "cpu"
        assert outputs["already-trained"] == "false"
        assert outputs["cost-usd"] == "0.0000"
        version = outputs["version"]
        assert outputs["model-url"] == f"{github.address}/models-{version}-model.pt"
        assert "### This will train" in log.summary("plan")
        summary = log.summary("train")
        assert summary.startswith("### Trained in ")
        for part in (
            "Where and why.**",
            "Estimate and actual",
            "Cost",
            "# Attempts",
            "# Metrics",
        ):
            assert part in summary
        assert "gantt" in summary
        assert "### Kept: version 1.0.0" in log.summary("keep")
        assert TOKEN not in "".join(line.get("msg", "") for line in log.lines)

        pulled = download.pull(open_store(github.address), "stable", tmp_path / "model.pt")
        assert pulled[0].version == version
        attested = dict(
            map(str.split, (fresh.folder.parent / "artifacts/attested").read_text().strip().splitlines())
        )
        assert attested[pulled[0].model.sha256] == f"models/{version}/model.pt"
        body, _ = open_store(github.address).read(f"models/{version}/manifest.json")
        assert attested[hashlib.sha256(body).hexdigest()] == f"models/{version}/manifest.json"
        assert [
            timing.actual > 0
            for timing in KeptTimings.model_validate_json(github.files()["timings.json"]).timings
        ] == [True]


def test_a_history_that_adds_spoils_reverts_and_adds_again_ends_as_it_should(make, tmp_path):
    """The registry is the repository's release; an application looks at it after each push."""
    repository = make("file:.offload", own=OWN_TRAINING, epochs="1")
    images = repository.folder / "shapes"
    with GitHub() as github:
        words = github_words(github)
        release = open_store(github.address)
        application = ModelClient(github.address, tmp_path / "app", interval=0)

        def push(workflow, jobs):
            log = repository.run("push", workflow, *words)
            assert log.code == 0, "\n".join(log.text(job)[-2000:] for job in log.jobs)
            assert log.jobs == dict.fromkeys(jobs, "success")
            return log

        def trained(*names):
            add_images(images, *names)
            commit(repository.folder, f"Add {names}")
            version = push("offload-train", ("plan", "train", "keep")).outputs("train")["version"]
            assert application.get().version == alias.alias_of(release, "stable").version == version
            return version

        first = trained("first")
        worse = trained("bad1", "bad2")
        git(repository.folder, "revert", "--no-edit", "HEAD")
        log = push("offload-rollback", ("find", "rollback"))
        assert log.outputs("rollback")["to"] == first
        assert "### Rolled back" in log.summary("rollback")
        assert application.get().version == first
        assert push("offload-train", ("plan", "train")).outputs("train")["already-trained"] == "true"

        last = trained("second")
        stable = alias.alias_of(release, "stable")
        assert [move.version for move in stable.moves] == [first, worse, first, last]
        assert set(stable.yanked) == {worse}

        log = repository.run("workflow_dispatch", "offload-rollback", *words, "--input", "why=it sees ghosts")
        assert log.code == 0, log.text("rollback")[-2000:]
        assert alias.alias_of(release, "stable").version == first, "by hand, to the one before"


def test_a_pull_request_from_a_fork_gets_the_plan_and_no_credentials(make, tmp_path):
    repository = make(f"file:{tmp_path}/store")
    event = tmp_path / "event.json"
    event.write_text(
        json.dumps(
            {
                "pull_request": {
                    "number": 1,
                    "head": {"ref": "x", "repo": {"full_name": "them/boards", "fork": True}},
                },
                "repository": {"full_name": "us/boards", "default_branch": "main"},
            }
        )
    )
    with TokenEndpoint() as endpoint:
        # Worse than on GitHub: the endpoint is reachable, and still no step asks it.
        repository.environment |= endpoint.environment
        log = repository.run("pull_request", "offload-plan", "-e", str(event))
        assert log.code == 0, log.text("plan")
        assert log.jobs == {"plan": "success"}
        assert "Merging this will train" in log.summary("plan")
        assert endpoint.asked == []
        assert not (tmp_path / "store").exists()
        # Even where a maintainer lets the whole workflow start on it, what spends does not.
        train = repository.folder / ".github/workflows/offload-train.yml"
        train.write_text(train.read_text().replace('  push:\n    branches: ["main"]\n', "  pull_request:\n"))
        log = repository.run("pull_request", "offload-train", "-e", str(event))
        assert set(log.jobs) == {"plan"}, log.jobs
        assert endpoint.asked == []


def test_a_failing_training_is_red_says_why_and_what_to_do_and_hands_over_what_it_has(make):
    """act ends with a called workflow that failed, so that `keep` does not run here, as `always()` says on GitHub."""
    repository = make("file:.offload", own=FAILING)
    with GitHub() as github:
        log = repository.run("push", "offload-train", *github_words(github))
    assert log.code != 0
    assert log.jobs == {"plan": "success", "train": "failure"}
    says_why_it_failed(log, "train")
    (artifact,) = (repository.folder.parent / "artifacts").iterdir()
    assert artifact.name == f"gpu-offload-{log.outputs('train')['training-key']}"
    assert [file.name[:11] for file in artifact.iterdir()] == ["unfinished-"]


def says_why_it_failed(log, job):
    summary = log.summary(job)
    assert summary.startswith("### Not trained: failed")
    assert "[!CAUTION]" in summary
    assert "this camera is none of them" in summary
    assert "The log's last lines" in summary
    assert log.annotations(job, "error")


def test_a_training_that_fails_on_an_instance_leaves_none(make, cloud):
    repository = make("s3://gpu-offload", own=FAILING)
    repository.environment |= cloud.to_act
    log = repository.run("workflow_dispatch", "offload", *ROLES)
    assert log.code != 0
    assert log.jobs == {"plan": "success", "offload": "failure", "clean-up": "success"}
    says_why_it_failed(log, "offload")
    assert not log.summary("clean-up")
    cloud.settle()
    assert not cloud.leftovers().costs_money


@pytest.fixture
def cloud():
    """A simulated cloud and a token endpoint: an account without a key in sight."""
    pytest.importorskip("moto.server", reason="the extra [simulator] is not installed")
    from gpu_offload.infra.simulator.cloud import SimulatedCloud

    with SimulatedCloud() as cloud, TokenEndpoint() as endpoint:
        environment = cloud.environment() | endpoint.environment
        cloud.to_act = {
            k: v for k, v in environment.items() if k not in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        }
        cloud.endpoint = endpoint
        yield cloud


ROLES = [
    word
    for name in ("PUBLISHER", "LAUNCHER", "JANITOR")
    for word in ("--var", f"OFFLOAD_{name}_ROLE=arn:aws:iam::123456789012:role/gpu-offload-{name.lower()}")
]


@pytest.fixture
def rented(make, cloud, tmp_path):
    """A repository with training code of its own, which needs no PyTorch and waits after an epoch for its gate."""
    gate = tmp_path / "gate"
    repository = make("s3://gpu-offload", own=f"HELD_AFTER = 1\nGATE = {str(gate)!r}\n{HELD_TRAINING}")
    repository.environment |= cloud.to_act
    repository.gate = gate
    return repository


@pytest.fixture
def large(make, cloud):
    """A repository whose dataset is too large for the time that its runner has; test_training_on_ec2 trains with Ultralytics."""
    repository = make("s3://gpu-offload", limits='ci-limit = "1s"', own=OWN_TRAINING, epochs="1")
    repository.environment |= cloud.to_act
    return repository


def test_what_takes_the_runner_too_long_is_trained_on_ec2_and_nothing_is_left(large, cloud):
    log = large.run("push", "offload-train", *ROLES, "--env", "X=1")
    assert log.code == 0, log.text("offload")[-3000:]
    assert log.jobs == {"plan": "success", "offload": "success", "clean-up": "success"}
    outputs = log.outputs("offload")
    assert outputs["where"].startswith("g")
    assert float(outputs["cost-usd"]) > 0
    assert log.outputs("plan")["where"] == "ec2"
    summary = log.summary("offload")
    assert "A GPU is needed" in summary
    assert "spot" in summary
    assert cloud.endpoint.asked
    assert not log.summary("clean-up")
    cloud.settle()
    assert not cloud.leftovers().costs_money


def test_a_training_that_will_not_make_it_on_the_runner_moves_to_ec2_with_its_checkpoint(make, cloud):
    """Its own steps say so, by a factor of ten; the plan, by as much, that it would: on whatever machine."""
    limits = 'deadline = "6h"\non-overrun = "escalate"'
    repository = make("s3://gpu-offload", own=MOVING, limits=limits, epochs="10")
    repository.environment |= cloud.to_act
    log = repository.run("push", "offload-train", *ROLES)
    assert log.code == 0, "\n".join(log.text(job)[-2000:] for job in log.jobs)
    assert log.jobs == dict.fromkeys(("plan", "train", "offload", "clean-up"), "success"), log.text("train")
    plan, first, second = (log.outputs(job) for job in ("plan", "train", "offload"))
    assert (plan["where"], plan["can-move"]) == ("cpu", "true")
    assert (first["where"], first["moves"]) == ("cpu", "true")
    assert log.summary("train").startswith("### Moves to an instance after epoch 1 of 10")
    # The same run goes on from its checkpoint, and its report has both places.
    assert second["run"] == first["run"]
    assert second["where"].startswith("g")
    assert second["version"] == plan["version"]
    summary = log.summary("offload")
    assert summary.startswith("### Trained in")
    assert "| 1 | this CPU |" in summary
    assert f"**Where and why.** {first['why'][:40]}" in summary
    model = cloud.client("s3").get_object(Bucket="gpu-offload", Key=f"models/{plan['version']}/model.bin")
    assert model["Body"].read() == b"epoch 1 on the runner"
    assert not log.summary("clean-up")
    cloud.settle()
    assert not cloud.leftovers().costs_money


BY_HAND = [
    word
    for pair in (
        "instance-type=g5.xlarge",
        "market=spot",
        "max-cost-usd=0.50",
        "deadline=1h",
        "reason=I want it *now*",
    )
    for word in ("--input", pair)
]


def test_a_workflow_that_is_cancelled_terminates_what_it_rented_and_started_again_carries_on(rented, cloud):
    """By hand, with everything that a person may say."""
    start = ("workflow_dispatch", "-W", ".github/workflows/offload.yml", *ROLES, *BY_HAND)
    process = rented.start(*start)
    read = rented.until(process, r"it needs us no more|epoch 1/")
    process.send_signal(signal.SIGINT)
    log = rented.finish(process, read)
    assert log.code != 0
    cloud.settle()
    assert not cloud.leftovers().instances, log.text("offload")[-4000:] + log.text("clean-up")

    rented.gate.touch()
    log = rented.finish(rented.start(*start))
    assert log.code == 0, log.text("offload")[-3000:]
    outputs = log.outputs("offload")
    assert outputs["where"].startswith("g5.xlarge"), outputs
    assert outputs["version"] == log.outputs("plan")["version"]
    summary = log.summary("offload")
    assert summary.startswith("### Trained in")
    assert "**Asked for by hand:** I want it &#42;now&#42;" in summary
    assert "g5.xlarge spot" in summary
    stored = cloud.client("s3").list_objects_v2(Bucket="gpu-offload", Prefix="runs/")["Contents"]
    runs = [item["Key"] for item in stored if item["Key"].endswith("/run.json")]
    limits = {
        json.loads(cloud.client("s3").get_object(Bucket="gpu-offload", Key=key)["Body"].read())[
            "max_cost_usd"
        ]
        for key in runs
    }
    assert limits == {0.5}
    cloud.settle()
    assert not cloud.leftovers().costs_money


def test_what_a_dead_runner_left_is_ended_by_tend(rented, cloud):
    """The janitor may not launch the next instance; the job behind the environment may."""
    rented.gate.touch()
    process = rented.start("workflow_dispatch", "-W", ".github/workflows/offload.yml", *ROLES)
    read = rented.until(process, r"i-[0-9a-f]{8,} in us-")
    os.killpg(process.pid, signal.SIGKILL)
    kill_step(rented)
    rented.finish(process, read)
    assert cloud.leftovers().instances
    cloud.inject("api:RunInstances:error=UnauthorizedOperation:times=1")
    deadline, launched = time.monotonic() + LIMIT_S, False
    while cloud.leftovers().instances:
        assert time.monotonic() < deadline
        log = rented.run("workflow_dispatch", "offload-tend", *ROLES)
        assert set(log.jobs.values()) == {"success"}, log.text("tend")
        assert ("launch" in log.jobs) == ("denied" in log.outputs("tend"))
        launched |= "launch" in log.jobs
    assert launched
    assert "### Tend" in log.summary("tend")


def kill_step(repository):
    """Kill what the runner's death would take with it: processes that run in act's copy of the repository."""
    mine = str(repository.folder.parent / "act")
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            if mine in (folder / "cmdline").read_text() or mine in str((folder / "cwd").readlink()):
                os.kill(pid, signal.SIGKILL)
