"""Several processes that train one model together, on CPUs as they do it on GPUs."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_job_case import bare_spec, make_spec, make_tree, module, run_module, stderr, stopping_at, wait_for

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.remote_job.data import TrainingData
from gpu_offload.remote_job.files import result_files
from gpu_offload.remote_job.interruption import InterruptedTrainingError
from gpu_offload.remote_job.train import spec_faults, train
from gpu_offload.remote_job.yolo import team
from gpu_offload.remote_job.yolo.gpu_memory import GpuMemoryError

pytestmark = [
    pytest.mark.training,
    pytest.mark.usefixtures("same_environment"),
    pytest.mark.filterwarnings("default"),
]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_ranks_draw_together_the_batches_that_one_process_draws(size, share, ranks, epoch, skip):
    """So that a training goes on in the middle of an epoch with another number of GPUs, and misses no image."""
    from gpu_offload.remote_job.yolo.sampler import EpochSampler

    def batches(rank, of, batch):
        sampler = EpochSampler(size, 7, rank, of)
        sampler.start_at(epoch, skip=skip * batch)
        order = list(sampler)
        return [order[i : i + batch] for i in range(0, len(order), batch)]

    alone = batches(0, 1, share * ranks)
    together = [batches(rank, ranks, share) for rank in range(ranks)]
    assert {len(one) for one in together} == {len(alone)}
    for i, batch in enumerate(alone):
        assert set(batch) <= {image for one in together for image in one[i]}


def test_a_training_goes_on_with_more_processes_in_the_middle_of_an_epoch_and_ends(tmp_path, monkeypatch):
    tree = make_tree(tmp_path)
    with stopping_at(monkeypatch, 1, 2) as interruption, pytest.raises(InterruptedTrainingError):
        train(make_spec(tree, tmp_path / "out"), interruption=interruption)
    code, events = run_module(make_spec(tree, tmp_path / "out", gpus=2, device="cpu"), tmp_path)
    assert code == 0, stderr(tmp_path)
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2, 3]
    assert next(e for e in events if e["event"] == "batch")["batch"] == 3
    result = result_files.read(tmp_path / "out" / "result", training_key="key-1")
    assert result.epochs_completed == 3
    assert "map50_95" in result.metrics


def test_two_processes_stop_together_and_one_goes_on(tmp_path):
    """Rank 0 alone reports and saves; told to stop, it leaves no process behind."""
    spec = make_spec(make_tree(tmp_path), tmp_path / "out", gpus=2, device="cpu", epochs=2)
    with module(spec, tmp_path) as process:
        wait_for(process, lambda event: event["event"] == "batch")
        [other] = _children(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == EXIT_RESUMABLE, stderr(tmp_path)
    assert not Path(f"/proc/{other}").exists()
    said = []
    result = train(spec.model_copy(update={"gpus": 1}), emit=said.append)
    assert result.epochs_completed == 2
    assert sum('"event":"epoch"' in line for line in said) == 2


def test_one_process_that_fails_ends_the_training(tmp_path):
    spec = make_spec(make_tree(tmp_path), tmp_path / "out", gpus=2, device="cpu", epochs=2)
    with module(spec, tmp_path) as process:
        wait_for(process, lambda event: event["event"] == "stage" and event["stage"] == "import")
        os.kill(_children(process.pid)[0], signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the process of GPU 1 ended" in stderr(tmp_path)


def test_a_process_whose_memory_does_not_suffice_is_named_with_a_batch_that_may_fit(tmp_path, monkeypatch):
    """The others notice only that a collective operation fails."""

    def start(*_):
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({team.NO_MEMORY})"])

    monkeypatch.delitem(sys.modules, "ultralytics", raising=False)
    monkeypatch.setattr(team, "_start", start)
    monkeypatch.setattr(team, "PATIENCE_S", 240.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as `isolate` does
    spec = bare_spec(tmp_path, gpus=2)
    bench = SimpleNamespace(spec=spec, data=TrainingData(tmp_path, tmp_path, {}), weights=None)
    with pytest.raises(GpuMemoryError, match=r"GPU 1 .*training\.batch = 2"), team.team(bench):
        raise RuntimeError("Connection closed by peer")


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path):
    tree = make_tree(tmp_path, images=4)
    [fault] = spec_faults(make_spec(tree, tmp_path / "out", gpus=3), has_store=False)
    assert "batch" in fault
    [fault] = spec_faults(make_spec(tree, tmp_path / "out", gpus=2, device="cuda:1"), has_store=False)
    assert "device" in fault


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
