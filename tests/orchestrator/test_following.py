"""A training is followed over SSH and, while the connection is lost, through the store."""

import io
from types import SimpleNamespace

import pytest
from run_case import attempt_of, run_of

from gpu_offload.infra.instance.job import JobState, Look
from gpu_offload.infra.ssh.errors import ConnectionLostError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends.ec2 import RentedTraining
from gpu_offload.orchestrator.backends.ssh_session import RECONNECT_S, Session
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.events import EventReader
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import HostRecord
from gpu_offload.orchestrator.settings.machines import Ec2Settings
from gpu_offload.remote_job.result import Heartbeat, ProgressEvent
from gpu_offload.remote_job.spec import StoreRef


def epoch(number):
    event = ProgressEvent.measured(event="epoch", time=float(number), epoch=number, epochs=9, seconds=1.0)
    return event.model_dump_json(exclude_none=True).encode() + b"\n"


class Job:
    """A job on an instance, by what happens at each look: an error, its whole progress, or the code that it ended with."""

    def __init__(self, *happens):
        self.happens = iter(happens)

    def look(self, progress, log, *, hold):
        assert hold
        match next(self.happens):
            case Exception() as error:
                raise error
            case int(code):
                return Look(
                    JobState.ENDED, code, b"", b"", progress, log, more=False, trouble="the store denies it"
                )
            case body:
                return Look(
                    JobState.RUNNING, None, body[progress:], b"", len(body), log, more=False, trouble=""
                )

    def console(self):
        return "AccessDenied"


def test_an_epoch_is_shown_once_whether_it_comes_over_ssh_or_from_the_store(tmp_path):
    """The connection is cut in the midst of a line; the store has more than was shown, then the instance has."""
    now, run, store, text = [1000.0], run_of(), f"file:{tmp_path}", io.StringIO()
    journal = Journal(open_store(store))
    journal.begin(run)
    one, two, three, four = map(epoch, range(1, 5))
    journal.store.put(f"runs/{run.id}/attempts/1/progress.jsonl", one + two + three)

    def sleep(seconds):
        now[0] += seconds

    rented = RentedTraining(Ec2Settings(), journal, StoreRef(url=store), Console(text), sleep=sleep)
    seen = ObservedAttempt(attempt_of(run))
    session = rented._sessions[1] = Session(
        run=run, attempt=seen.record, host=SimpleNamespace(name="instance"), console=rented.console,
        store=rented.store, store_keys={}, region="", software=None, project=None, dataset=None, state=None,
        serial_console=None, pause=rented._pause, clock=lambda: now[0], started=True,
        _job=Job(one + two[:9], ConnectionLostError("cut"), one + two + three + four),
    )  # fmt: skip
    rented.follow(run, seen, 1.0)
    assert not session.reachable
    rented.follow(run, seen, 0.0)
    now[0] += RECONNECT_S[1]
    rented.follow(run, seen, 0.0)
    shown = [line.split()[1] for line in text.getvalue().splitlines() if line.strip().startswith("epoch")]
    assert shown == ["1/9", "2/9", "3/9", "4/9"]


def test_a_line_that_is_half_written_is_read_once_it_is_whole(store):
    key, reader = "runs/a-1/attempts/1/progress.jsonl", EventReader(store, "a-1", 1)
    assert reader.read() == []
    for body, epochs in (
        (epoch(1) + epoch(2)[:5], [1]),
        (epoch(1) + epoch(2), [2]),
        (epoch(1) + epoch(2), []),
    ):
        store.put(key, body)
        assert [event.epoch for event in reader.read()] == epochs


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(
    ("happens", "stalls"),
    [((b"", 78), 900.0), ((ConnectionLostError("cut"), 78), 0.0)],
    ids=["stopped-between-two-looks", "connection-lost"],
)
def test_a_job_whose_store_denies_it_is_asked_for_its_end_before_its_silence_counts(
    tmp_path, happens, stalls
):
    """Its last heartbeat is 15 minutes old, and only SSH says why: another instance would meet the same."""
    clock, run = Clock(), run_of()
    store = f"file:{tmp_path}"
    journal = Journal(open_store(store))
    journal.begin(run)
    console, stalled = Console(io.StringIO()), iter([stalls])

    def sleep(seconds):
        clock.sleep(seconds + next(stalled, 0.0))

    rented = RentedTraining(Ec2Settings(), journal, StoreRef(url=store), console, sleep=sleep)
    seen = ObservedAttempt(attempt_of(run))
    host = SimpleNamespace(name="instance", address="", close=lambda: None)
    rented._sessions[1] = Session(
        run=run, attempt=seen.record, host=host, console=console, store=rented.store, store_keys={}, region="",
        software=None, project=None, dataset=None, state=None, serial_console=None, pause=rented._pause, clock=clock,
        started=True, _job=Job(*happens),
    )  # fmt: skip
    if happens[0]:
        assert rented.follow(run, seen, 240.0) is None
    reason, why = rented.follow(run, seen, 240.0)
    assert (reason, "AccessDenied" in why) == ("failed", True)


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store):
        self.store, self.calls = store, 0

    def __getattr__(self, name):
        found = getattr(self.store, name)
        if not callable(found):
            return found

        def counted(*arguments, **options):
            self.calls += 1
            return found(*arguments, **options)

        return counted


class Distant:
    """A cloud whose instance trains for ever; it counts what EC2 is asked."""

    def __init__(self, clock, store, run):
        self.clock, self.store, self.run, self.calls = clock, store, run, 0

    def instances(self, run, attempts):
        self.calls += 1
        return (ObservedInstance("i-1", 1, "running"),)

    def leftovers(self, run, attempts):
        self.calls += 3
        return ()

    def follow(self, run, attempt, seconds):
        # The instance writes as often as it likes: those calls are its own.
        for _ in range(int(seconds) // 15):
            self.clock.now += 15
            beat = Heartbeat(
                run=run.id, attempt=1, time=self.clock.now, pid=1, host="h", boot_id="b", epochs_completed=1,
                epochs=3, state="training",
            )  # fmt: skip
            self.store.store.put(f"runs/{run.id}/attempts/1/heartbeat.json", beat.model_dump_json().encode())
            if int(self.clock.now) % 60 == 0:
                self.renew()


def test_an_hour_of_waiting_takes_fewer_than_200_calls(tmp_path):
    clock = Clock()
    store = Counting(open_store(f"file:{tmp_path}"))
    run = run_of(now=clock.now, deadline_at=clock.now + 86_400)
    journal = Journal(store)
    journal.begin(run)
    driver = Lease(clock=clock)
    journal.open_attempt(
        run.id, attempt_of(run).model_copy(update={"driver": driver.name, "expires_at": clock.now + 80_000})
    )
    journal.record_host(run.id, 1, HostRecord(
        instance_id="i-1", address="127.0.0.9", launched_at=clock.now, market="spot", zone="us-east-1a",
        region="us-east-1", volume_gib=60))  # fmt: skip
    far = Distant(clock, store, run)
    far.renew = lambda: driver.claim(store, run.id)
    far.follow(run, None, 15)
    drive = Controller(
        run,
        journal,
        driver,
        None,
        Console(io.StringIO()),
        SimpleNamespace(spent=lambda _run, _seen: 0.0),
        cloud=far,
        clock=clock,
        sleep=clock.sleep,
    )
    drive.once()
    store.calls = far.calls = 0
    began = clock.now
    while clock.now - began < 3600:
        drive.once()
    hours = (clock.now - began) / 3600
    assert (store.calls + far.calls) / hours < 200
