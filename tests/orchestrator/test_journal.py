"""Who begins a run: one driver, at whatever moment another one comes."""

import io
import json
import time
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import run_case

from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.lifecycle.opening import Opening
from gpu_offload.orchestrator.lifecycle.train import Training, TrainingFailedError
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Outcome
from gpu_offload.remote_job.result import Artifact, CheckpointManifest

KEY = "a" * 64


class Raced(FolderStore):
    """A store in which another driver acts right after the `when`-th listing."""

    when = 0
    listings = 0
    other = staticmethod(lambda: None)

    def list(self, prefix=""):
        found = list(super().list(prefix))
        self.listings += 1
        if self.listings == self.when:
            self.other()
        yield from found


def run_of(run, resumes=None):
    cpu = Offer("cpu", "this CPU", "", "", "on-demand", 0.0, "free", None, 2, 8.0, 0.0)
    return run_case.run_of(cpu, id=run, resumes=resumes)


def training_of(store):
    planned = SimpleNamespace(
        training_key=KEY,
        on="auto",
        candidates=run_of("x-1").candidates,
        inputs=SimpleNamespace(code=object()),
        settings=SimpleNamespace(root=Path("/nowhere")),
    )
    workspace = SimpleNamespace(runs=list)  # no earlier run left files here
    return Training(planned, store, workspace=workspace, console=Console(io.StringIO()))


def opened(store):
    """The run that a `train` command drives."""
    training = training_of(store)
    opening = Opening(training.planned, store, training.console, training.clock)
    return opening.open_run(Journal(store))[0].id


@pytest.mark.process
def test_a_command_that_sees_another_ones_run_fail_does_not_train_it_again(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_offload.orchestrator.lifecycle.opening.spec_differences", lambda *_: [])
    for name in ("record_data", "check_conditional_writes"):
        monkeypatch.setattr(f"gpu_offload.orchestrator.lifecycle.train.{name}", lambda *_: None)
    store = open_store(tmp_path.as_uri())
    Journal(store).begin(run_of(f"{KEY[:12]}-1"))
    waiting = training_of(store)
    waiting.planned.version, waiting.planned.fingerprint, waiting.planned.snapshot = "a" * 16, "f", None
    failed = Outcome(status="failed", at=time.time(), message="the code returned no model")
    monkeypatch.setattr(Training, "_drive", lambda _self, run, _lease: Journal(store).finish(run.id, failed))
    with pytest.raises(TrainingFailedError, match="no model"):
        waiting.run()
    assert list(Journal(store).run_ids()) == [f"{KEY[:12]}-1"]


@pytest.mark.process
@pytest.mark.parametrize("when", range(1, 4))
def test_two_drivers_that_begin_at_once_drive_one_run_at_whatever_moment_the_other_comes(
    when, tmp_path, monkeypatch
):
    monkeypatch.setattr("gpu_offload.orchestrator.lifecycle.opening.spec_differences", lambda *_: [])
    monkeypatch.setattr(
        "gpu_offload.orchestrator.lifecycle.opening.run_record",
        lambda _planned, run, *, resumes, **_: run_of(run, resumes),
    )
    store = Raced(tmp_path)
    store.when, store.other = when, lambda: opened(open_store(tmp_path.as_uri()))
    mine = opened(store)
    assert list(Journal(store).run_ids()) == [mine]


@pytest.mark.process
@pytest.mark.parametrize(
    "forged",
    [
        b"{",
        {"training_key": "b" * 64},
        {"last": {"name": "../../../escaped", "size": 1, "sha256": "0" * 64}},
        {"last": {"name": "gone.pt", "size": 1, "sha256": "0" * 64}},
    ],
    ids=["damaged", "of another training", "a name that leads out", "without its file"],
)
def test_a_damaged_checkpoint_of_an_earlier_run_does_not_keep_the_training_from_beginning(
    forged, tmp_path, monkeypatch
):
    monkeypatch.setattr("gpu_offload.orchestrator.lifecycle.opening.spec_differences", lambda *_: [])
    monkeypatch.setattr(
        "gpu_offload.orchestrator.lifecycle.opening.run_record",
        lambda _planned, run, *, resumes, **_: run_of(run, resumes),
    )
    store, whole, earlier = open_store(tmp_path.as_uri()), f"{KEY[:12]}-1", f"{KEY[:12]}-2"
    journal, artifact = Journal(store), Artifact(name="last.pt", size=4, sha256=sha256(b"good").hexdigest())
    manifest = CheckpointManifest(
        run=earlier, attempt=1, training_key=KEY, epochs_completed=1, epochs=3, last=artifact, seconds=1.0
    )
    for run in (whole, earlier):
        journal.begin(run_of(run))
        journal.finish(run, Outcome(status="failed", at=1.0, message="no money"))
        store.put(f"runs/{run}/checkpoint/last.pt", b"good")
        store.put(f"runs/{run}/checkpoint/manifest.json", manifest.model_dump_json().encode())
    body = (
        forged
        if isinstance(forged, bytes)
        else json.dumps(manifest.model_dump(mode="json") | forged).encode()
    )
    store.put(f"runs/{earlier}/checkpoint/manifest.json", body)
    begun = opened(store)
    assert begun == f"{KEY[:12]}-3"
    assert journal.run(begun).resumes == whole
    assert store.read(f"runs/{begun}/checkpoint/last.pt")[0] == b"good"
