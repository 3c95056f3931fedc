"""A run with real processes on the simulated cloud, whose spot capacity follows a series in each of two zones.

Time is the cloud's: hours of a run pass in seconds (`fast_clock`).
"""

import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import start
from fast_clock import FastClock
from leak_case import STORE, train_project
from trace_world import read_series

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.run.accounting import read_bill
from gpu_offload.orchestrator.run.forecast import forecast
from gpu_offload.orchestrator.run.journal import Journal

pytestmark = [pytest.mark.process, pytest.mark.simulator]

ZONES = ["us-west-1b", "us-west-1a"]
"""All of the region's, the cheaper one first."""
EPOCHS, EPOCH_S = 25, 80.0
OPTIONS = {
    "limits.deadline": "9000s",
    # A model that any CPU is expected to train too slowly, so that the run does not begin on this one.
    "training.model": "yolov8m.yaml",
    "training.image-size": "1280",
    "ec2.regions": '["us-west-1"]',
}


def train(folder, series, gap_s, monkeypatch):
    """Train where zones have capacity as the series say; return the run, its attempts, its bill and what a plan said."""
    (folder / "project").mkdir()
    train_project(folder / "project", pace=EPOCH_S, epochs=EPOCHS, images=320)
    options = [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]
    with FastClock(folder / "clock") as clock:
        behaviour = Behaviour(
            region="us-west-1",
            lag_seconds=0.05,
            spot_series=series,
            spot_series_gap_seconds=gap_s,
            environment=clock.environment(),
        )
        with SimulatedCloud(behaviour, clock=clock) as cloud:
            clock.follow(cloud)
            for name, value in cloud.environment().items():
                monkeypatch.setenv(name, value)
            process = start(
                folder / "project", "train", "--no-calibrate", *options, environment=clock.environment()
            )
            said, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
            cloud.settle()
            assert not cloud.leftovers()
            journal = Journal(open_store(STORE))
            [name] = journal.run_ids()
            run, attempts = journal.run(name), journal.attempts(name)
            bill = read_bill(journal.store, name)
    assert max(attempt.end.at for attempt in attempts) <= run.deadline_at
    return run, attempts, float(bill.total), said


def test_real_processes_follow_two_zones_and_cost_what_was_forecast(tmp_path, monkeypatch):
    """The cheaper zone is taken back after 25 minutes; the other one, without capacity at first, then lasts."""
    (tmp_path / "series").mkdir()
    for zone, data in {"a": [1] * 5 + [0] * 31, "b": [0] * 3 + [1] * 33}.items():
        document = {"metadata": {"gap_seconds": 300}, "data": data}
        (tmp_path / "series" / f"{zone}.json").write_text(json.dumps(document))
    series, gap_s = read_series(tmp_path / "series", ZONES, 3)
    run, attempts, usd, said = train(tmp_path, series, gap_s, monkeypatch)
    assert [(a.record.offer.market, a.record.offer.zone, a.end.reason) for a in attempts] == [
        ("spot", ZONES[0], "reclaimed"),
        ("spot", ZONES[1], "finished"),
    ]
    expected = forecast(run)
    assert expected.text in " ".join(said.split())
    assert 0.5 * expected.expected < usd < 1.5 * expected.expected
    assert usd <= expected.worst


def test_real_processes_on_real_series(tmp_path, monkeypatch, capsys):
    """From a moment at which the first zone is about to be taken back."""
    folder = os.environ.get("CAPACITY_SERIES")
    if not folder:
        pytest.skip("the capacity series are not here: CAPACITY_SERIES is not set")
    whole, gap_s = read_series(Path(folder), ZONES, 24 * 30)
    first, second = (whole[zone] for zone in ZONES)
    steps = int(3 * 3600 / gap_s)
    begin = next(i for i in range(len(first)) if first[i : i + 5] == [1, 1, 1, 1, 0] and second[i + 5])
    series = {zone: values[begin : begin + steps] for zone, values in whole.items()}
    run, attempts, usd, _ = train(tmp_path, series, gap_s, monkeypatch)
    with capsys.disabled():
        lived = [f"{a.record.offer.name} {a.end.reason}" for a in attempts]
        sys.stdout.write(f"\nfrom step {begin}: ${usd:.2f}; {', '.join(lived)}. {forecast(run).text}\n")
    assert usd <= forecast(run).worst
