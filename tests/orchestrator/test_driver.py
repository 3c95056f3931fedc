"""What a driver does around its loop: signals, errors, and instances that do not end."""

import io
import sys
import time
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import pytest
from next_step_case import CPU
from run_case import T0, attempt_of, run_of, seen_attempt, spec_of

from gpu_offload.infra.aws.termination import Terminated
from gpu_offload.infra.instance.isolation import Isolation
from gpu_offload.infra.store.errors import StoreCredentialsError, StoreDeniedError, StoreUnreachableError
from gpu_offload.orchestrator.backends.isolated_training import IsolatedTraining
from gpu_offload.orchestrator.lifecycle import stop
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.backend import InstanceLeftError, InterruptedRunError
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptEnd, Outcome
from gpu_offload.orchestrator.run.terminations import LIMIT_S, Terminations
from gpu_offload.orchestrator.run.waiting import Bystander
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, StoreSettings


def controller(store, run, **more):
    """A driver without a cloud, of a run that is in the store."""
    journal = Journal(store)
    journal.begin(run)
    accounting = Accounting(store, StoreSettings(url=store.url))
    return Controller(run, journal, Lease(), None, Console(io.StringIO()), accounting, **more)


def test_a_driver_that_ends_with_an_error_names_the_instance_that_goes_on_and_until_when():
    run, out = run_of(now=T0), io.StringIO()
    cloud = SimpleNamespace(keeps_nothing=lambda _: False, abandon=lambda *_: ("i-1",))
    terminations = Terminations(run, SimpleNamespace(cloud=cloud), Console(out), time.time, time.sleep)
    attempts = (ObservedAttempt(attempt_of(run)),)
    seen = Observation(T0, "me", attempts=attempts, instances=(ObservedInstance("i-1", 1, "running"),))
    terminations.leave(seen, StoreDeniedError("no"))
    assert "i-1 goes on" in out.getvalue()
    cloud.keeps_nothing = lambda _: True  # its store denies the instance what it writes, too
    terminations.leave(seen, StoreDeniedError("no"))
    assert "terminated i-1" in out.getvalue()
    assert "2023-11-14 22:43 UTC" in out.getvalue(), "when the instance powers off"
    assert f"offload stop {run.id}" in out.getvalue()
    cloud.keeps_nothing = lambda _: False
    before = len(out.getvalue())
    ended = replace(attempts[0], end=AttemptEnd(number=1, reason="died", at=T0))
    terminations.leave(replace(seen, attempts=(ended,)), StoreUnreachableError("away"))
    assert "i-1 goes on" in out.getvalue()[before:], "between two attempts, too"


@pytest.mark.parametrize("state", ["running", "shutting-down"])
def test_an_instance_that_does_not_end_is_a_failure_and_no_endless_wait(state):
    """EC2 takes the terminate call and shows no effect, or keeps the instance shutting down; the run may be open."""
    now, sent = [T0], []
    cloud = SimpleNamespace(terminate=sent.append)
    attempts = SimpleNamespace(cloud=cloud, rented=lambda: cloud)
    ending = Terminations(run_of(), attempts, Console(io.StringIO()), lambda: now[0], lambda _: None)
    seen = Observation(T0, "me", instances=(ObservedInstance("i-1", 1, state),))
    ending.check(seen)
    if state == "running":
        ending.send(("i-1",), "its attempt has ended")
    now[0] += 10 * LIMIT_S  # a laptop that was closed meanwhile: what was seen before says nothing
    ending.check(seen)
    with pytest.raises(InstanceLeftError, match=f"i-1 is {state}"):
        ending.check(replace(seen, now=now[0]))


@pytest.mark.parametrize(
    ("instance", "closed"), [("running", False), ("terminated", False), ("running", True)]
)
def test_a_signal_between_two_attempts_terminates_what_is_still_there(instance, closed):
    """A job that ended closes its attempt first; its instance runs until the next step."""
    terminated, ends = [], []
    cloud = SimpleNamespace(abandon=lambda _run, attempt: terminated.append(attempt) or ("i-1",))
    attempts = SimpleNamespace(cloud=cloud, close=lambda *end: ends.append(end))
    ending = Terminations(run_of(), attempts, Console(io.StringIO()), time.time, time.sleep)
    last = seen_attempt(1, T0, T0 + 60 if closed else None, "died")
    seen = Observation(T0, "me", attempts=(last,), instances=(ObservedInstance("i-1", 1, instance),))
    ending.abandon(seen, "SIGINT", detach=False)
    assert terminated == [last]
    assert len(ends) == (not closed)
    ending.abandon(
        replace(seen, attempts=(seen_attempt(1, T0, T0 + 60, "died"),), instances=()), "SIGINT", detach=False
    )
    assert len(terminated) == 1, "nothing is left"


def test_a_signal_while_the_store_is_away_leaves_the_run_resumable():
    """The next driver closes the attempt; the command must not end with the store's error and its exit code."""

    def close(*_):
        raise StoreUnreachableError("away")

    attempts = SimpleNamespace(cloud=SimpleNamespace(abandon=lambda *_: ("i-1",)), close=close)
    ending = Terminations(run_of(), attempts, Console(io.StringIO()), time.time, time.sleep)
    ending.abandon(Observation(T0, "me", attempts=(seen_attempt(1, T0, None),)), "SIGINT", detach=False)


@pytest.mark.process
def test_an_isolated_training_ends_with_a_driver_that_fails(tmp_path, monkeypatch):
    """The terminal is gone, for example: without limits and lease the training must not go on."""
    quiet, reads = [sys.executable, "-c", ""], [sys.executable, "-c", "import sys; sys.stdin.read()"]
    monkeypatch.setattr(Isolation, "command", lambda *_: reads)
    monkeypatch.setattr(IsolatedTraining, "_module", lambda *_: quiet)
    spec = spec_of(output=str(tmp_path / "output"))
    with pytest.raises(BrokenPipeError), IsolatedTraining(spec, tmp_path).training(deque()):
        raise BrokenPipeError
    assert (tmp_path / "trained").exists()


def test_a_stop_reaches_the_driver_of_a_run_whose_record_only_another_version_can_read(
    store, tmp_path, monkeypatch
):
    """Its instances are terminated; without the request its driver would rent the next one."""
    monkeypatch.setattr(stop, "terminate_and_wait", lambda *_, **__: Terminated((), {}, {}))
    settings = Settings(root=tmp_path, dataset=DatasetSettings(path="x"), store=StoreSettings(url=store.url))
    store.put("runs/new-1/run.json", b'{"format": 2}')
    out = io.StringIO()
    assert stop.stop_run(settings, store, "new-1", Console(out)) == ()
    assert "newer version" in out.getvalue()
    assert Journal(store).stop_requested("new-1") is not None
    stop.stop_run(settings, store, "none-1", Console(out))
    assert Journal(store).stop_requested("none-1") is None


def test_a_driver_without_access_to_ec2_does_not_take_a_rented_instance_for_gone(store):
    """It followed a driver that rented, and that died: what it cannot see may run."""
    driver = controller(store, run_of(CPU, now=T0))
    driver.journal.open_attempt(driver.run.id, seen_attempt(1, T0, None).record)
    with pytest.raises(InterruptedRunError, match="offload tend"):
        driver.to_end()
    assert driver.journal.attempts(driver.run.id)[0].end is None


def test_a_result_that_is_damaged_in_the_store_ends_its_attempt_and_not_the_command(store):
    """The next attempt finishes from the checkpoint and writes it again."""
    driver = controller(store, run_of(CPU, now=T0))
    driver.attempts = replace(driver.attempts, attended=SimpleNamespace(train=lambda *_: None))
    trains = ObservedAttempt(attempt_of(driver.run))
    driver.journal.open_attempt(driver.run.id, trains.record)
    store.put(f"runs/{driver.run.id}/result/result.json", b"?")
    driver.attempts.train(trains, Observation(T0, "me", attempts=(trains,)))
    assert driver.journal.attempts(driver.run.id)[0].end.reason == "died"


def test_the_end_of_a_run_counts_although_its_lease_cannot_be_released(store):
    """The credentials expired with the last step."""
    driver = controller(store, run_of(CPU, now=T0))
    driver.journal.finish(driver.run.id, Outcome(status="stopped", at=T0 + 60))

    def release(*_):
        raise StoreCredentialsError("expired")

    driver.lease.release = release
    assert driver.to_end().status == "stopped"


def test_a_follower_reports_the_end_of_a_run_although_the_store_is_away_for_a_moment(store, monkeypatch):
    driver = controller(store, run_of(CPU, now=T0), sleep=lambda _: None)
    driver.journal.finish(driver.run.id, Outcome(status="stopped", at=T0 + 60))
    driver.bystander.driver = "there:1:aa"
    shown = [StoreUnreachableError("away")]

    def look(*_):
        if shown:
            raise shown.pop()

    monkeypatch.setattr(Bystander, "look", look)
    assert driver.to_end().status == "stopped"
    assert not shown
