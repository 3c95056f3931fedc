"""A training is followed over SSH and, while the connection is lost, through the store."""

import io
from types import SimpleNamespace

from run_case import attempt_of, run_of

from gpu_offload.infra.instance.job import JobState, Look
from gpu_offload.infra.ssh.errors import ConnectionLostError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends.ec2 import RentedTraining
from gpu_offload.orchestrator.backends.ssh_session import RECONNECT_S, Session
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.events import EventReader
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.settings.machines import Ec2Settings
from gpu_offload.remote_job.result import ProgressEvent
from gpu_offload.remote_job.spec import StoreRef


def epoch(number):
    event = ProgressEvent.measured(event="epoch", time=float(number), epoch=number, epochs=9, seconds=1.0)
    return event.model_dump_json(exclude_none=True).encode() + b"\n"


class Job:
    """A job on an instance with this progress; each look can fail."""

    def __init__(self, *happens):
        self.happens = list(happens)

    def look(self, progress, log, *, hold):
        body = self.happens.pop(0)
        if isinstance(body, Exception):
            raise body
        return Look(JobState.RUNNING, None, body[progress:], b"", len(body), log, more=False, trouble="")


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
