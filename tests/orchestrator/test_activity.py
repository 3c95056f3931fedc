"""The time of a run: what counts, what does not, and that an idle run's does not grow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_case import T0, gpu_offer, run_of, seen_attempt

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.report.load import gather
from gpu_offload.orchestrator.report.outcome import explained, headline
from gpu_offload.orchestrator.report.rows import estimate_rows
from gpu_offload.orchestrator.run.activity import activity_of, run_seconds
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Outcome
from gpu_offload.orchestrator.run.run_documents import RunDocuments
from gpu_offload.orchestrator.settings.sections import StoreSettings
from gpu_offload.remote_job.result import Heartbeat

CPU = Offer("cpu", None, None, None, None, 0.0, "test", None, 2, 4.0)
RAY = replace(CPU, where="ray")


def attempt(number, begin, end, reason="finished", *, offer=CPU, spoke=None):
    seen = seen_attempt(number, begin, end, reason, with_host=offer.where == "ec2")
    beat = spoke and Heartbeat(
        run="abc-1", attempt=number, time=spoke, pid=1, host="h", boot_id="b", epochs_completed=2, epochs=3,
        state="training",
    )  # fmt: skip
    record = seen.record.model_copy(update={"offer": offer, "created_at": begin})
    return replace(seen, record=record, heartbeat=beat)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        ((), 1000),
        ((attempt(1, T0, T0 + 1000),), 1000),
        ((attempt(1, T0, T0 + 60, "stopped"), attempt(2, T0 + 900, T0 + 1000)), 160),
        ((attempt(1, T0, T0 + 60, "orphaned"), attempt(2, T0 + 900, T0 + 1000)), 160),
        ((attempt(1, T0, T0 + 60, "stopped"),), 60),
        ((attempt(1, T0, T0 + 60, "stopped", offer=RAY),), 60),
        ((attempt(1, T0, T0 + 60, "died"), attempt(2, T0 + 70, T0 + 1000)), 1000),
        # Waiting for an instance is a part of the run.
        (
            (
                attempt(1, T0, T0 + 60, "reclaimed", offer=gpu_offer()),
                attempt(2, T0 + 900, None, offer=gpu_offer()),
            ),
            1000,
        ),
    ],
)
def test_pauses_in_which_nothing_worked_on_a_run_are_no_time_of_it(attempts, seconds):
    assert run_seconds(run_of(now=T0), attempts, T0 + 1000) == seconds


def test_what_the_job_installed_before_is_time_of_the_run(store):
    run = run_of(now=T0, installed_s=40.0, installation=Interval(20, 45, 100))
    journal = Journal(store)
    journal.begin(run)
    journal.finish(run.id, Outcome(status="stopped", at=T0 + 100))
    report = gather(store, StoreSettings(), run.id)
    assert report.seconds == 140
    [row] = [row for row in estimate_rows(report) if row[0] == "installing"]
    assert row[2] == "40 s"
    assert report.json()["installing"]["seconds"] == 40


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=12), st.floats(0, 1e6))
def test_the_time_of_a_run_is_never_below_zero_nor_above_its_wall_time(times, until):
    times = sorted(times)
    attempts = tuple(
        attempt(i + 1, T0 + a, T0 + b, "stopped")
        for i, (a, b) in enumerate(zip(times[::2], times[1::2], strict=False))
    )
    assert 0 <= run_seconds(run_of(now=T0), attempts, T0 + until) <= round(until, 3)


@pytest.mark.parametrize(
    "last",
    [attempt(1, T0, T0 + 60, "stopped", spoke=T0 + 50), attempt(1, T0, None, spoke=T0 + 60)],
    ids=["interrupted", "killed"],
)
def test_an_idle_run_has_the_time_until_it_was_left_and_its_report_says_so(store, last):
    run, journal = run_of(CPU, now=T0), Journal(store)
    journal.begin(run)
    journal.open_attempt(run.id, last.record)
    store.put(f"runs/{run.id}/attempts/1/heartbeat.json", last.heartbeat.model_dump_json().encode())
    if last.end is not None:
        journal.close_attempt(run.id, last.end)
    for now in (T0 + 100, T0 + 1e6):
        activity = activity_of(store, run, journal.read(run.id), now)
        report = gather(store, StoreSettings(), run.id, now=now)
        assert (activity.at_work, activity.seconds, report.seconds) == (False, 60.0, 60.0)
    assert headline(report) == "Interrupted after epoch 2 of 3, 1 min on this CPU, free"
    assert f"offload stop {run.id}" in explained(report)
    journal.finish(run.id, Outcome(status="stopped", at=T0 + 5e5, message="stopped by hand"))
    report = gather(store, StoreSettings(), run.id, now=T0 + 1e6)
    assert headline(report).startswith("Stopped after epoch 2 of 3")
    assert explained(report) == "Why: stopped by hand"


def test_an_instance_works_on_a_run_without_a_driver(store):
    run = run_of(now=T0)
    trains = attempt(1, T0, None, offer=gpu_offer())
    activity = activity_of(store, run, RunDocuments((trains,)), T0 + 100)
    assert (activity.driven, activity.at_work, activity.seconds) == (False, True, 100.0)
