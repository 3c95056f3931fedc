"""The loop: observe a run, ask for the next step, perform it; until the run is done."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.attempts import Attempts
from gpu_offload.orchestrator.run.backend import (
    Attended,
    Cloud,
    Ending,
    InterruptedRunError,
    StoppedHereError,
)
from gpu_offload.orchestrator.run.collect import Collector
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.lease import Lease, holder_text
from gpu_offload.orchestrator.run.limits import LimitWatch
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.observe import Observer
from gpu_offload.orchestrator.run.patience import Patience
from gpu_offload.orchestrator.run.record import Outcome, OutcomeStatus, RunRecord
from gpu_offload.orchestrator.run.signals import EndingSignal, ending_signals
from gpu_offload.orchestrator.run.step import (
    CleanUp,
    CloseAttempt,
    Collect,
    Done,
    Finish,
    Launch,
    OpenAttempt,
    Publish,
    RecordGone,
    RecordHost,
    Step,
    Terminate,
    Train,
    Wait,
)
from gpu_offload.orchestrator.run.terminations import Terminations
from gpu_offload.orchestrator.run.waiting import Bystander, Waiting
from gpu_offload.remote_job.result import TrainingResult


@dataclass
class Controller:
    """Drives one run: one process, one lease."""

    run: RunRecord
    journal: Journal
    lease: Lease
    attended: Attended
    console: Console
    accounting: Accounting
    cloud: Cloud | None = None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    detach: bool = False
    """Leave the run once its instance trains without the driver."""
    launched_later: bool = False
    """Leave the run once it needs an instance, which a later job may launch and this driver may not."""
    max_wait: float = math.inf
    """The longest wait that this driver makes, in seconds; what takes longer is left to the next driver."""
    detached_reason: str | None = None
    """Why the run was left before its end, None while it is not."""
    prices: Callable[[RunRecord, Observation], RunRecord] = field(default=lambda run, _seen: run)
    """Returns the run with the spot prices of now."""
    rules: publish.Rules = publish.DEFAULT
    """Rules by which the registry numbers and promotes what is published."""
    attempts: Attempts = field(init=False)
    observer: Observer = field(init=False)
    limits: LimitWatch = field(init=False)
    collector: Collector = field(init=False)
    patiently: Patience = field(init=False)
    terminations: Terminations = field(init=False)
    bystander: Bystander = field(init=False)
    waiting: Waiting = field(init=False)
    observation: Observation | None = None
    """The last one that it made."""
    found: Observation | None = None
    """The first one since no other driver has the run."""

    def __post_init__(self) -> None:
        self.observer = Observer(
            self.run, self.journal, self.lease, self.cloud, self.clock, self.accounting.spent
        )
        self.limits = LimitWatch(self.run, self.journal, self.console, self.clock)
        self.collector = Collector(self.run, self.journal, self.console, self.clock, self.rules)
        self.patiently = Patience(self.console, self.clock, self.sleep)
        self.bystander = Bystander(self.run, self.journal, self.console, self.clock)
        self.attempts = Attempts(
            self.run,
            self.journal,
            self.lease,
            self.attended,
            self.cloud,
            self.console,
            self.clock,
            self.limits,
            self.patiently,
        )
        self.terminations = Terminations(self.run, self.attempts, self.console, self.clock, self.sleep)
        self.waiting = Waiting(self.run, self.attempts, self.bystander, self.console, self.clock, self.sleep)

    def to_end(self) -> Outcome | None:
        """Drive the run until it is done; None if it continues without this driver (`detached_reason`).

        Raises:
            InterruptedRunError: this process received an ending signal; its instances are being terminated.
            InstanceLeftError: an instance would not terminate.
            StoreError: the store could not be reached for long. RegistryError: it holds what it should not.
        """
        try:
            with ending_signals():
                try:
                    while self.detached_reason is None:
                        outcome = self.once()
                        if outcome is not None:
                            return outcome
                except EndingSignal as signal:
                    if self.observation is not None:
                        self.terminations.abandon(self.observation, signal.by, detach=self.detach)
                    raise InterruptedRunError(self._interruption(signal.by)) from None
                except StoppedHereError as stopped:
                    raise InterruptedRunError(self._interruption(stopped.by)) from None
                except Exception as error:
                    self.terminations.leave(self.observation, error)
                    raise
            return None
        finally:
            self._release()

    def _interruption(self, by: str) -> str:
        """Describe what an interruption leaves, and how to resume."""
        if self.bystander.driver is not None:
            return f"{by}; run {self.run.id} goes on in {holder_text(self.bystander.driver)}"
        checkpoint = None
        with contextlib.suppress(StoreError, JournalError):
            checkpoint = self.journal.checkpoint(self.run.id)
        done, of = checkpoint.epochs_completed if checkpoint else 0, self.run.spec.epochs
        kept = f"{done} of {of} epochs are kept" if done else "no epoch was complete yet"
        return f"{by}; run {self.run.id} stays open, {kept}. Run the same command to carry on"

    def once(self) -> Outcome | None:
        """Perform one step; return the run's outcome when there is nothing left to do."""
        observation = self.observation = self.patiently(self.observer.observe)
        self.limits.warn(observation)
        step = next_step(self.prices(self.run, observation), observation)
        if self.found is None and observation.driver is None:
            self.found = observation
        if observation.driver is None and not isinstance(step, Done):
            self.bystander.driver = None  # this driver holds the lease
        if isinstance(step, Done):
            if (driver := self.bystander.driver) is not None:
                self.patiently(lambda: self.bystander.look(driver))  # its last epochs
            self.patiently(lambda: self.accounting.settle(self.run, observation))
            if step.outcome.status == "published":
                with contextlib.suppress(StoreError, JournalError):  # `offload prune` deletes them later
                    self.journal.discard_checkpoints(self.run)
            return step.outcome
        self.detached_reason = self.reason_to_detach(step, observation)
        if self.detached_reason is None:
            self.patiently(lambda: self._perform(step, observation))
        return None

    def reason_to_detach(self, step: Step, observation: Observation) -> str | None:
        """Why this driver leaves the run here, None where it continues."""
        current = observation.current
        rented = current is not None and current.record.offer.is_rented
        if self.launched_later and observation.driver is None:
            if isinstance(step, Wait) or (isinstance(step, OpenAttempt) and step.offer.where == "ec2"):
                end = observation.last.end if observation.last else None
                return end.message if end and end.message else "this CPU would not keep its limit"
            return None
        if self.detach and isinstance(step, Wait) and rented and current and current.heartbeat is not None:
            return "its instance trains"
        if math.isinf(self.max_wait):
            return None
        if isinstance(step, Wait) and (observation.driver is not None or step.seconds > self.max_wait):
            return step.reason
        if isinstance(step, OpenAttempt) and not step.offer.is_rented:
            return f"its next attempt trains on {step.offer.kind}: run `offload train` where its dataset is"
        return None

    def _perform(self, step: Step, observation: Observation) -> None:  # noqa: C901, PLR0912 - one case a step
        match step:
            case OpenAttempt():
                self.attempts.open(step)
            case Launch(number):
                self.attempts.launch(observation.attempts[number - 1].record)
            case Train(number):
                self.attempts.train(observation.attempts[number - 1], observation)
            case RecordHost(number, host):
                self.attempts.adopt(observation.attempts[number - 1], host)
            case RecordGone(number, gone):
                self.journal.record_gone(self.run.id, number, gone)
            case CloseAttempt(number, reason, message, at, by_cloud):
                self.attempts.close(number, reason, message, at=at, by_cloud=by_cloud)
            case Collect():
                self._bring_in(observation, self.collector.collect)
            case Publish():
                cost = functools.partial(self.accounting.total, self.run, observation)
                self._bring_in(observation, lambda r: self.collector.publish(r, observation, cost))
            case Terminate(instances, reason):
                self.terminations.check(observation)
                self.terminations.send(instances, reason)
            case CleanUp(leftovers):
                self.attempts.rented().clean_up(leftovers)
            case Wait():
                self.terminations.check(observation)
                self.waiting.wait(step, observation)
            case Finish(status, message, cut):
                self._finish(status, message, observation, cut=cut)
            case Done():
                pass
            case _:
                assert_never(step)

    def _bring_in(self, observation: Observation, act: Callable[[TrainingResult], Ending | None]) -> None:
        """Act on the staged result; close its attempt and discard it where it does not count."""
        if observation.result is None:  # `next_step` asks for this only where there is one
            raise AssertionError("no result")
        if (ended := act(observation.result)) is not None:
            # In this order: a driver that dies in between finds the result again, and judges it again.
            self.attempts.close(observation.result.attempt, *ended)
            self.journal.discard_result(self.run.id)

    def _finish(self, status: OutcomeStatus, message: str, observation: Observation, *, cut: bool) -> None:
        at = self.collector.complete(observation) if status == "published" else self.clock()
        version = self.run.version if status == "published" else None
        ending = Outcome(status=status, at=at, message=message, version=version, cut=cut)
        self.journal.finish(self.run.id, ending)

    def _release(self) -> None:
        if self.cloud is not None:
            self.cloud.close()
        try:
            self.lease.release(self.journal.store, self.run.id)
        except StoreError as error:  # also credentials that expired meanwhile: the run's own end counts
            self.console.warning(f"the lease was not released and expires by itself: {error}")
