"""A folder store on a runner that is thrown away: what was published stays, and what was begun goes on."""

import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from github_case import TOKEN, GitHub
from leak_case import STORE, train_project
from release_case import A, B, C, Runner, release_store

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.infra.github.release import GitHubRelease
from gpu_offload.infra.github.release_store import ReleaseStore
from gpu_offload.infra.store.errors import StoreDeniedError, StoreError, StoreUnreachableError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.history import KeptTimings, Timing, history, timing_key
from gpu_offload.orchestrator.github.claims import moved, timed
from gpu_offload.orchestrator.github.release import PREDICTIONS, keep
from gpu_offload.orchestrator.github.run_archive import pack as pack_runs
from gpu_offload.orchestrator.github.store import TAG, kept_at
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry import download, promote, publish
from gpu_offload.orchestrator.registry.manifest import Alias, IndexEntry, Move, Yank, model_key
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, StoreSettings


def test_what_one_runner_published_the_next_one_finds_and_anybody_can_download(github, tmp_path, model):
    first = Runner(github, tmp_path / "1")
    first.publish(model, A)
    assert first.pack(A).version == A
    assert first.keep().version == A
    second = Runner(github, tmp_path / "2")
    assert publish.manifest_of(second.store, A).metrics == {"map50": 0.5}
    assert [v.version for v in publish.versions(second.store)] == [A]
    assert second.pack(A).is_empty
    assert not (tmp_path / "2/store/models" / A / "model.pt").exists()
    assert second.store.public_url(model_key(A)) == f"{github.address}/models-{A}-model.pt"
    _, path, _ = download.pull(open_store(github.address), "stable", tmp_path / "pulled.pt")
    assert path.read_bytes() == model.read_bytes()


def timing_of(version, number=1, **changes):
    given_ = {"run": f"{(version * 4)[:12]}-{number}", "machine": "cpu-4-prior", "ultralytics": "8.4",
              "dataset": "d", "family": "yolov8", "predicted": 100.0, "actual": 150.0, "at": 90.0,
              "installed": {"job": 61.0}}  # fmt: skip
    return Timing(**given_ | changes)


def test_estimates_learn_from_what_trainings_took_on_other_runners(github, tmp_path, model):
    first = Runner(github, tmp_path / "1")
    first.publish(model, A)
    first.store.put(timing_key(90.0, "x"), timing_of(A).model_dump_json().encode())
    first.pack(A)
    first.keep()
    second = Runner(github, tmp_path / "2")
    [ratio] = history(second.store, now=100.0)
    assert (ratio.actual, ratio.installed) == (150.0, {"job": 61.0})
    second.publish(model, B, at=200.0)
    second.store.put(timing_key(190.0, "y"), timing_of(B, at=190.0).model_dump_json().encode())
    second.pack(B)
    second.keep()
    kept = KeptTimings.model_validate_json(github.files()["timings.json"])
    assert [timing.run for timing in kept.timings] == [timing_of(B).run, timing_of(A).run]


@pytest.mark.parametrize(
    "forged",
    [
        timing_of("c" * 16),
        timing_of(A, actual=1e-3),
        timing_of(A, predicted=math.inf),
        timing_of(A, left=(1.0, 1e9)),
        timing_of(A, installed={"job": -1.0}),
        timing_of(A, machine="x" * 10_000),
        timing_of(A, run=f"{A[:12]}-1/../../index"),
    ],
    ids=["another run", "faster than light", "endless", "never done", "before it began", "long", "a path"],
)
def test_times_that_no_training_takes_are_not_kept(forged):
    claimed = KeptTimings(timings=(forged,))
    assert timed(KeptTimings(), claimed, A * 4, 100.0) == KeptTimings()
    assert (
        timed(KeptTimings(), KeptTimings(timings=(timing_of(A, at=1e12),)), A * 4, 100.0).timings[0].at
        == 100.0
    )


def test_going_back_to_an_older_version_moves_stable_and_uploads_no_model_again(github, tmp_path, model):
    for number, version, at in (("1", A, 100.0), ("2", B, 200.0)):
        runner = Runner(github, tmp_path / number)
        runner.publish(model, version, at)
        runner.pack(version)
        runner.keep()
    assert publish.alias_of(open_store(github.address), "stable").version == B
    third = Runner(github, tmp_path / "3")
    publish.complete(third.store, publish.manifest_of(third.store, A), again=True)
    assert third.pack(A).moved
    assert not list((tmp_path / "3/packed").glob("*model.pt"))
    third.keep()
    assert publish.alias_of(open_store(github.address), "stable").version == A


def test_what_was_rolled_back_while_a_version_trained_stays_so_and_the_version_is_a_candidate(
    github, tmp_path, model
):
    first = Runner(github, tmp_path / "one")
    first.publish(model, A)
    first.pack(A)
    first.keep()
    second = Runner(github, tmp_path / "two")
    second.publish(model, B, at=200.0)  # its runner has read `stable` by now
    second.pack(B)
    promote.take_back(release_store(github), A, (), why="reverted", commit="c" * 40)
    for _ in range(2):  # harmless to repeat
        second.keep()
        kept = open_store(github.address)
        assert publish.alias_of(kept, "stable").version == A
        assert "c" * 9 in publish.why_candidate(kept, B)
    third = Runner(github, tmp_path / "three")
    third.publish(model, C, at=time.time())  # it knows of the rollback
    third.pack(C)
    third.keep()
    assert publish.alias_of(open_store(github.address), "stable").version == C


def test_a_runners_move_has_its_place_in_time_and_leads_to_no_version_that_must_not_be_used():
    def entry(version, semver, yanked=None):
        return IndexEntry(
            version=version, created_at=1, sha256="0" * 64, size=1, metrics={}, semver=semver, yanked=yanked
        )

    a, b, c = (Move(at=at, version=v * 4, sha256="0" * 64) for at, v in enumerate("abc", 1))
    alias = aliases.written("stable", (a, c), {}, None)
    one = moved(alias, b, (), "stable", 9.0)
    assert [m.version for m in one.moves] == ["aaaa", "bbbb", "cccc"]
    assert one.version == "cccc"
    yanked = (entry("cccc", "1.0.0", Yank(at=4, by="", why="bad")),)
    assert moved(alias, b, yanked, "stable", 9.0).version == "bbbb"
    lowest = aliases.written("stable", (a,), {}, "1.1.0")
    numbers = (entry("aaaa", "1.1.0"), entry("bbbb", "1.0.1"))
    assert moved(lowest, b, numbers, "stable", 9.0).version == "aaaa"


def test_two_jobs_at_once_lose_neither_version(github, tmp_path, model):
    runners = [Runner(github, tmp_path / version) for version in (A, B)]
    for runner, version, at in zip(runners, (A, B), (100.0, 200.0), strict=True):
        runner.publish(model, version, at)
        runner.pack(version)
    for runner in reversed(runners):
        runner.keep()
    assert [v.version for v in publish.versions(open_store(github.address))] == [A, B]
    assert publish.alias_of(open_store(github.address), "stable").version == B


class Meanwhile(GitHubRelease):
    """A release in which another job is between the deletion of the old index and the renaming of its own."""

    def __init__(self, github):
        super().__init__(github.url, github.repository, TOKEN, TAG)
        self.github, self.is_meanwhile = github, True

    def repair(self):
        super().repair()
        for asset in self.github.assets.values():
            if asset["name"] == "index.json" and self.is_meanwhile:
                asset["name"] += ".new"
                self.is_meanwhile = False


def test_an_index_that_another_job_replaces_at_this_moment_loses_no_version(github, tmp_path, model):
    for number, version in (("1", A), ("2", B)):
        runner = Runner(github, tmp_path / number)
        runner.publish(model, version, 100.0 + int(number))
        runner.pack(version)
        store = ReleaseStore(github.address, Meanwhile(github))
        keep(store, runner.folder / "packed", lambda _: None, version * 4)
    assert [v.version for v in publish.versions(open_store(github.address))] == [A, B]


class Overwritten(GitHubRelease):
    """A release in which another job writes its own document after each of our writes, `times` times."""

    def __init__(self, *arguments, name, body, times):
        super().__init__(*arguments)
        self.name, self.body, self.times = name, body, times

    def upload(self, name, path):
        asset = super().upload(name, path)
        self.overwrite(name, path)
        return asset

    def replace(self, name, path):
        super().replace(name, path)
        self.overwrite(name, path)

    def overwrite(self, name, path):
        if name == self.name and self.times:
            self.times -= 1
            path.write_bytes(self.body)
            super().replace(name, path)


OLDER = Alias(name="stable", version="c" * 16, sha256="0" * 64, moved_at=1.0).model_dump_json().encode()


@pytest.mark.parametrize(
    ("name", "body"),
    [("index.json", b'{"versions": []}'), ("aliases-stable.json", OLDER)],
    ids=["index", "alias"],
)
def test_a_job_that_is_overwritten_tries_again_and_fails_where_it_never_wins(
    github, tmp_path, model, name, body
):
    """A version that the index does not list is lost to every reader, so giving up is an error."""
    runner = Runner(github, tmp_path / "1")
    runner.publish(model, A)
    runner.pack(A)

    def keep_against(times):
        arguments = (github.url, github.repository, TOKEN, TAG)
        store = ReleaseStore(github.address, Overwritten(*arguments, name=name, body=body, times=times))
        return keep(store, runner.folder / "packed", lambda _: None, A * 4)

    with pytest.raises(StoreError, match="5 times in a row"):
        keep_against(times=100)
    keep_against(times=2)
    assert [v.version for v in publish.versions(open_store(github.address))] == [A]
    assert publish.alias_of(open_store(github.address), "stable").version == A


BREAKS = [("GET", "tags"), ("POST", "releases"), ("POST", "uploads"), ("GET", "assets")]


@pytest.mark.parametrize("broken", BREAKS, ids="-".join)
def test_a_keep_that_breaks_off_shows_no_half_version_and_can_be_repeated(github, tmp_path, model, broken):
    runner = Runner(github, tmp_path / "1")
    runner.publish(model, A)
    runner.pack(A)
    github.broken = broken
    with pytest.raises(StoreUnreachableError):
        runner.keep()
    names = set(github.files())
    assert f"models-{A}-manifest.json" not in names or f"models-{A}-model.pt" in names
    runner.keep()
    assert {f"models-{A}-model.pt", f"models-{A}-manifest.json", "index.json", "aliases-stable.json"} == set(
        github.files()
    )


@pytest.mark.parametrize("is_killed", [False, True], ids=["refused", "killed"])
def test_a_replacement_that_ended_after_its_deletion_is_finished(
    github, tmp_path, model, monkeypatch, is_killed
):
    def dying(self, method, *more):
        if method == "PATCH":
            raise KeyboardInterrupt
        return json_of(self, method, *more)

    json_of = GitHubRelease._json
    for number, version in (("1", A), ("2", B)):
        runner = Runner(github, tmp_path / number)
        runner.publish(model, version, 100.0 + int(number))
        runner.pack(version)
        if number == "2" and is_killed:
            with monkeypatch.context() as patched:
                patched.setattr(GitHubRelease, "_json", dying)
                with pytest.raises(KeyboardInterrupt):
                    runner.keep()
            assert "index.json" not in github.files()
        elif number == "2":
            github.broken = ("PATCH", "assets")
        runner.keep()
    assert github.broken is None
    assert [v.version for v in publish.versions(open_store(github.address))] == [A, B]


def test_an_unfinished_run_goes_on_on_the_next_runner_and_is_forgotten_when_it_is_published(
    github, tmp_path, model
):
    first = Runner(github, tmp_path / "1")
    run = f"{A[:12]}-1"
    first.store.put(f"runs/{run}/checkpoint/last.pt", b"epoch 3")
    first.store.put(f"runs/{'c' * 12}-1/run.json", b"another training's")
    packed = first.folder / "packed"
    packed.mkdir()
    # As `pack_for_keeping` does with a run that the journal knows.
    pack_runs(first.store, f"runs/{A[:12]}-", packed / f"unfinished-{A[:12]}.tar")
    assert first.keep() is None
    second = Runner(github, tmp_path / "2")
    assert [info.key for info in second.store.list(f"runs/{A[:12]}-")] == [f"runs/{run}/checkpoint/last.pt"]
    assert second.store.read(f"runs/{run}/checkpoint/last.pt")[0] == b"epoch 3"
    second.publish(model, A)
    second.pack(A)
    second.keep()
    assert not [name for name in github.files() if name.startswith("unfinished")]


@pytest.mark.process
def test_a_step_that_is_cancelled_says_so_and_the_next_runner_carries_on(github, tmp_path):
    """As GitHub cancels: SIGINT to the step's entry process only."""
    folder, files = tmp_path / "boards", tmp_path / "runner"
    train_project(folder, epochs=60, held_after=1)
    configuration = folder / "offload.toml"
    configuration.write_text(configuration.read_text().replace(STORE, "file:.offload"))
    files.mkdir()
    runner = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_REPOSITORY": github.repository,
        "GITHUB_SERVER_URL": github.url,
        "GITHUB_WORKSPACE": str(folder),
        "GITHUB_STEP_SUMMARY": str(files / "summary.md"),
        "GITHUB_OUTPUT": str(files / "outputs"),
        "RUNNER_TEMP": str(files),
        "GPU_OFFLOAD_INPUT_ON": "cpu",
        "GPU_OFFLOAD_INPUT_CALIBRATE": "false",
        "GPU_OFFLOAD_INPUT_COMMAND": "train",
    }
    command = [sys.executable, "-P", "-m", "gpu_offload.orchestrator.github.action"]
    told = []
    with subprocess.Popen(command, cwd=folder, env=runner, stdout=subprocess.PIPE, text=True) as step:
        for line in step.stdout:
            told.append(line)
            if re.search(r"epoch +1/60", line):
                step.send_signal(signal.SIGINT)
    assert step.returncode == EXIT_RESUMABLE, "".join(told)
    summary = (files / "summary.md").read_text()
    assert summary.startswith("### Interrupted ")
    assert "carries on from the last completed epoch" in summary
    key = re.search(r"training-key<<\S+\n([0-9a-f]{64})\n", (files / "outputs").read_text())[1]

    pack_step = runner | {"GPU_OFFLOAD_INPUT_COMMAND": "pack", "GPU_OFFLOAD_INPUT_TRAINING_KEY": key}
    subprocess.run(command, cwd=folder, env=pack_step, check=True, stdout=subprocess.DEVNULL)
    assert f"gpu-offload-{key[:16]}" in (files / "outputs").read_text()
    keep(release_store(github), files / "gpu-offload-packed", lambda _: None, key)
    elsewhere = Journal(Runner(github, tmp_path / "elsewhere").store)
    (run,) = elsewhere.runs_of(key)
    assert elsewhere.outcome(run.id) is None
    assert elsewhere.checkpoint(run.id).epochs_completed >= 1


@pytest.mark.simulator
def test_a_release_that_does_not_answer_is_no_release_without_models(tmp_path):
    with GitHub() as gone:
        runner = Runner(gone, tmp_path)
    with pytest.raises(StoreUnreachableError):
        publish.manifest_of(runner.store, A)


# ----------------------------------------------------------------------------- a training that claims things


@pytest.mark.simulator
def test_where_nothing_was_packed_no_request_is_sent(tmp_path):
    with GitHub() as gone:
        runner = Runner(gone, tmp_path)
    assert runner.keep() is None


def test_a_job_that_may_not_write_learns_which_permission_it_needs(github, tmp_path, model):
    runner = Runner(github, tmp_path)
    runner.publish(model, A)
    runner.pack(A)
    github.broken = ("POST", "releases", (403, {"message": "Resource not accessible by integration"}))
    with pytest.raises(StoreDeniedError, match="contents: write"):
        runner.keep()
    with pytest.raises(StoreDeniedError, match="expired"):
        keep(release_store(github, "another"), tmp_path / "packed", lambda _: None, A * 4)


def test_the_token_goes_nowhere_unsafe():
    with pytest.raises(StoreError, match="token is not sent"):
        GitHubRelease("http://api.example.org", "us/boards", TOKEN, TAG)


@pytest.mark.parametrize(
    ("url", "hosted", "kept"),
    [
        ("file:.offload", True, True),
        ("file:.offload", False, True),
        ("file:/srv/store", False, False),
        ("file:/srv/store", True, True),
        ("s3://bucket/x", True, False),
    ],
)
def test_a_folder_is_kept_elsewhere_where_it_would_be_thrown_away(tmp_path, url, hosted, kept):
    settings = Settings(dataset=DatasetSettings(path="x"), store=StoreSettings(url=url), root=tmp_path)
    runner = {"GITHUB_WORKSPACE": str(tmp_path), "GITHUB_REPOSITORY": "us/boards"}
    runner |= {"RUNNER_ENVIRONMENT": "github-hosted"} if hosted else {}
    address = kept_at(settings, runner)
    assert address == ("https://github.com/us/boards/releases/download/offload-models" if kept else None)
    assert kept_at(settings, {}) is None


PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


@pytest.mark.parametrize(
    ("body", "kept"),
    [(PNG, True), (b"<script>", False), (PNG + b"0" * (8 << 20), False)],
    ids=["png", "text", "huge"],
)
def test_a_picture_of_predictions_is_kept_beside_the_model_if_it_is_one(github, tmp_path, model, body, kept):
    runner = Runner(github, tmp_path / "1")
    runner.publish(model, A)
    picture = tmp_path / "drawn.png"
    picture.write_bytes(body)
    runner.store.upload(model_key(A, PREDICTIONS), picture, create=True)
    runner.pack(A)
    runner.keep()
    names = set(github.files())
    assert (f"models-{A}-predictions.png" in names) == kept
    assert {f"models-{A}-model.pt", f"models-{A}-manifest.json"} <= names
