"""What a training says while it runs."""

import json
import math
import os
from pathlib import Path

import pytest
from remote_job_case import bare_spec, read_events

from gpu_offload.remote_job import progress as module
from gpu_offload.remote_job.progress import Progress, finite
from gpu_offload.remote_job.result import Heartbeat, ProgressEvent


@pytest.fixture
def spec(tmp_path):
    return bare_spec(tmp_path / "output", attempt=2, training_key="key")


@pytest.fixture
def progress(spec):
    lines = []
    progress = Progress(spec, lines.append)
    progress.lines = lines
    yield progress
    progress.close()


def heartbeat(spec):
    return Heartbeat.model_validate_json((Path(spec.output) / "heartbeat.json").read_bytes())


def test_every_line_is_an_event_and_stands_in_the_file_too(progress, spec, tmp_path):
    progress.event("start", epochs=3)
    progress.stage("import", 1.23456)
    events = [ProgressEvent.model_validate(json.loads(line)) for line in progress.lines]
    assert [event.event for event in events] == ["start", "stage"]
    assert read_events(tmp_path / "output" / "progress.jsonl") == events


def test_batches_are_reported_twice_a_second_and_at_the_end_of_an_epoch(progress, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    asked = []
    for batch in range(1, 41):
        now[0] += 0.1
        progress.batch(batch, 40, epoch=1, losses=lambda: asked.append(1) or {"box": 1.0}, seconds=1.0)
    batches = [json.loads(line)["batch"] for line in progress.lines]
    assert batches[-1] == 40
    assert 8 <= len(batches) <= 10
    assert len(asked) == len(batches)


def test_the_file_that_is_uploaded_again_and_again_gets_few_batches(progress, monkeypatch, tmp_path):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for batch in range(1, 101):
        now[0] += 0.5
        progress.batch(batch, 1000, epoch=1, losses=dict, seconds=1.0)
    assert len(progress.lines) == 100
    assert len(read_events(tmp_path / "output" / "progress.jsonl")) == 10


def test_the_heartbeat_says_who_where_and_how_far(progress, spec):
    progress.update(state="training", epochs_completed=1, device="cpu")
    beat = heartbeat(spec)
    assert (beat.run, beat.attempt, beat.pid) == ("run-1", 2, os.getpid())
    assert (beat.state, beat.epochs_completed, beat.epochs) == ("training", 1, 3)
    assert beat.host
    assert beat.boot_id


@pytest.mark.parametrize("event", ["batch", "epoch"])
def test_the_heartbeat_says_when_the_first_step_began(progress, spec, event):
    for seconds in (100.0, 7.0):
        if event == "batch":
            progress.batch(1, 9, epoch=1, losses=dict, seconds=seconds)
        else:
            progress.event("epoch", epoch=1, seconds=seconds)
    progress.heartbeat()
    assert 99 < heartbeat(spec).time - heartbeat(spec).trains_since < 200


def test_a_change_of_state_is_in_the_heartbeat_at_once(progress, spec):
    progress.update(state="interrupted", message="spot notice")
    assert heartbeat(spec).message == "spot notice"


def test_a_message_that_is_not_utf8_is_said_all_the_same(progress, spec):
    progress.update(state="failed", message="no file a\udcff.png")
    progress.event("failed", message="no file a\udcff.png")
    assert heartbeat(spec).message == json.loads(progress.lines[-1])["message"] == "no file a\\udcff.png"


def test_numbers_that_json_cannot_carry_are_left_out():
    assert finite({"a": 1.5, "b": math.nan, "c": math.inf, "d": 2}) == {"a": 1.5, "d": 2.0}


def test_a_reader_that_is_gone_does_not_end_the_training(spec):
    def broken(_line):
        raise BrokenPipeError

    progress = Progress(spec, broken)
    progress.event("start")
    progress.close()
    assert len(read_events(progress._output / "progress.jsonl")) == 1
