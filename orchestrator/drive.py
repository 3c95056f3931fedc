"""The loop: observe a run, ask for the next step, perform it; until the run is done."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, assert_never

from infra.object_store import CorruptObjectError, ObjectMissingError, ObjectStore, StoreUnreachableError
from orchestrator import registry
from orchestrator.console import Console
from orchestrator.driver import Driver
from orchestrator.journal import Journal
from orchestrator.next_step import (
    AttemptSeen,
    CleanUp,
    CloseAttempt,
    Collect,
    Done,
    Finish,
    InstanceSeen,
    Launch,
    OpenAttempt,
    Publish,
    Seen,
    Step,
    Terminate,
    Train,
    Wait,
    next_step,
)
from orchestrator.run import (
    AttemptEnd,
    AttemptRecord,
    Collected,
    EndReason,
    HostRecord,
    Outcome,
    OutcomeStatus,
    RunRecord,
)
from remote_job.result import TrainingResult

T = TypeVar("T")

STORE_PATIENCE_S = 900.0
"""How long a store that cannot be reached is waited for: the training goes on without it."""


class RefusedError(Exception):
    """No instance came of an offer. `quota` says that no other zone or hour will help."""

    def __init__(self, message: str, *, quota: bool = False) -> None:
        super().__init__(message)
        self.quota = quota


class InterruptedRunError(Exception):
    """Somebody ended this process; the run stays open and carries on where it was."""


class Cpu(Protocol):
    """Trains on this machine."""

    def train(self, run: RunRecord, attempt: AttemptRecord) -> tuple[EndReason, str] | None:
        """Train to the end and return None, or why the attempt ended without a result.

        Raises InterruptedRunError when this process was told to end.
        """


class Cloud(Protocol):
    """Trains on rented instances. Every call is harmless to repeat."""

    def instances(self, run: RunRecord) -> tuple[InstanceSeen, ...]:
        """Return the run's instances, found by tag."""

    def leftovers(self, run: RunRecord) -> tuple[str, ...]:
        """Name what the run has beside instances."""

    def launch(self, run: RunRecord, attempt: AttemptRecord) -> HostRecord:
        """Ask for the instance. Raises RefusedError."""

    def train(self, run: RunRecord, attempt: AttemptSeen) -> tuple[EndReason, str] | None:
        """Start the training on the instance; return why that cannot be, if it cannot."""

    def terminate(self, run: RunRecord, instances: tuple[str, ...]) -> None:
        """Send the terminate call."""

    def clean_up(self, run: RunRecord, leftovers: tuple[str, ...]) -> None:
        """Remove what `leftovers` named."""

    def follow(self, run: RunRecord, attempt: AttemptSeen, seconds: float) -> None:
        """Pass `seconds`, showing what the instance says meanwhile."""


@dataclass
class Drive:
    """One driver at work on one run."""

    run: RunRecord
    journal: Journal
    driver: Driver
    cpu: Cpu
    console: Console
    cloud: Cloud | None = None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    cost: Callable[[RunRecord, Seen], float] = field(default=lambda _run, _seen: 0.0)

    @property
    def store(self) -> ObjectStore:
        """The store that holds the run."""
        return self.journal.store

    def to_end(self) -> Outcome:
        """Drive the run until it is done. Raises InterruptedRunError, StoreError, RegistryError."""
        try:
            while True:
                outcome = self.once()
                if outcome is not None:
                    return outcome
        finally:
            self._release()

    def once(self) -> Outcome | None:
        """Take the run one step on; return its outcome when there is nothing left to do."""
        seen = self._patiently(self.observe)
        step = next_step(self.run, seen)
        if isinstance(step, Done):
            return step.outcome
        self._patiently(lambda: self._perform(step, seen))
        return None

    def observe(self) -> Seen:
        """Look at the store and at the cloud."""
        run = self.run.id
        other = self.driver.claim(self.store, run)
        result = self.journal.result(run)
        checkpoint = self.journal.checkpoint(run)
        seen = Seen(
            now=self.clock(),
            me=self.driver.name,
            driver=other,
            outcome=self.journal.outcome(run),
            published=registry.manifest_of(self.store, self.run.version) is not None,
            result=result,
            collected=self.journal.collected(run),
            attempts=self.journal.attempts(run),
            instances=self.cloud.instances(self.run) if self.cloud else (),
            leftovers=self.cloud.leftovers(self.run) if self.cloud else (),
            epochs_completed=checkpoint.epochs_completed if checkpoint else 0,
            stop=self.journal.stop_requested(run),
        )
        return replace(seen, spent_usd=self.cost(self.run, seen))

    def _perform(self, step: Step, seen: Seen) -> None:  # noqa: C901 - one case a step
        match step:
            case OpenAttempt():
                self._open(step)
            case Launch(number):
                self._launch(seen.attempts[number - 1].record)
            case Train(number):
                self._train(seen.attempts[number - 1])
            case CloseAttempt(number, reason, message):
                self._close(number, reason, message)
            case Collect():
                self._collect(seen)
            case Publish():
                self._publish(seen)
            case Terminate(instances, reason):
                self.console.note(f"terminating {', '.join(instances)}: {reason}")
                self._cloud().terminate(self.run, instances)
            case CleanUp(leftovers):
                self._cloud().clean_up(self.run, leftovers)
            case Wait(seconds, reason):
                self._wait(seconds, reason, seen)
            case Finish(status, message):
                self._finish(status, message)
            case Done():
                pass
            case _:
                assert_never(step)

    def _cloud(self) -> Cloud:
        if self.cloud is None:
            raise InterruptedRunError(
                f"run {self.run.id} has instances, and this driver was started without access to EC2; "
                "run `offload attach` or `offload tend` with credentials"
            )
        return self.cloud

    def _open(self, step: OpenAttempt) -> None:
        record = AttemptRecord(
            number=step.number,
            offer=step.offer,
            created_at=self.clock(),
            expires_at=step.expires_at,
            driver=self.driver.name,
        )
        if self.journal.open_attempt(self.run.id, record):
            place = step.offer.instance_type or "this machine"
            self.console.stage(f"attempt {step.number}: {place}")

    def _launch(self, attempt: AttemptRecord) -> None:
        try:
            host = self._cloud().launch(self.run, attempt)
        except RefusedError as refusal:
            self.console.note(f"refused: {refusal}")
            self._close(attempt.number, "refused", str(refusal), quota=refusal.quota)
        else:
            self.journal.record_host(self.run.id, attempt.number, host)

    def _train(self, attempt: AttemptSeen) -> None:
        number = attempt.record.number
        if attempt.record.offer.where == "cpu":
            try:
                ended = self.cpu.train(self.run, attempt.record)
            except InterruptedRunError as error:
                self._close(number, "stopped", str(error))
                raise
        else:
            ended = self._cloud().train(self.run, attempt)
        if ended is not None:
            self._close(number, *ended)

    def _close(self, number: int, reason: EndReason, message: str, *, quota: bool = False) -> None:
        if reason not in {"finished", "refused"}:
            self.console.note(f"attempt {number} ended ({reason}): {message}")
        self.journal.close_attempt(
            self.run.id,
            AttemptEnd(number=number, reason=reason, at=self.clock(), message=message, quota=quota),
        )

    def _collect(self, seen: Seen) -> None:
        result = _result(seen)
        self.console.stage("verifying the result")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            try:
                registry.verify_staged(self.store, self.run, result, Path(scratch))
            except (registry.RegistryError, CorruptObjectError, ObjectMissingError) as error:
                # Not the end: without the result the training is resumed, and finishes from its checkpoint.
                self.console.warning(f"the staged result does not count and is discarded: {error}")
                self._close(result.attempt, "died", f"its result did not count: {error}")
                self.journal.discard_result(self.run.id)
                return
        self.journal.record_collected(
            self.run.id,
            Collected(at=self.clock(), attempt=result.attempt, model_sha256=result.model.sha256),
        )

    def _publish(self, seen: Seen) -> None:
        result = _result(seen)
        self.console.stage(f"publishing version {self.run.version}")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            model = registry.verify_staged(self.store, self.run, result, Path(scratch))
            manifest = self._manifest(result, seen)
            registry.publish(self.store, manifest, model, note=self.console.note)

    def _manifest(self, result: TrainingResult, seen: Seen) -> registry.Manifest:
        attempt = next((a for a in seen.attempts if a.record.number == result.attempt), None)
        offer = attempt.record.offer if attempt else None
        return registry.Manifest(
            version=self.run.version,
            training_key=self.run.training_key,
            fingerprint=self.run.fingerprint,
            run=self.run.id,
            commit=self.run.commit,
            repository=self.run.repository,
            created_at=self.clock(),
            model=result.model.model_copy(update={"name": "model.pt"}),
            task=result.task,
            base_model=self.run.spec.model,
            epochs=result.epochs,
            epochs_completed=result.epochs_completed,
            metrics=result.metrics,
            per_class=result.per_class,
            seconds=registry.ManifestEstimate(
                estimated=self.run.estimate, actual=round(seen.now - self.run.created_at, 1)
            ),
            where=(offer.instance_type or "ec2") if offer and offer.where == "ec2" else "cpu",
            cost_usd=round(seen.spent_usd, 4),
            environment=result.environment,
        )

    def _finish(self, status: OutcomeStatus, message: str) -> None:
        version = None
        if status == "published":
            version = self.run.version
            manifest = registry.manifest_of(self.store, version)
            if manifest is not None:
                registry.complete(self.store, manifest)
        self.journal.finish(
            self.run.id, Outcome(status=status, at=self.clock(), message=message, version=version)
        )

    def _wait(self, seconds: float, reason: str, seen: Seen) -> None:
        current = seen.attempts[-1] if seen.attempts else None
        if self.cloud is not None and current is not None and current.end is None:
            self.cloud.follow(self.run, current, seconds)
        else:
            self.console.detail(f"waiting: {reason}")
            self.sleep(seconds)

    def _patiently(self, effect: Callable[[], T]) -> T:
        """Do something with the store, and wait for a store that cannot be reached."""
        since, pause = self.clock(), 1.0
        while True:
            try:
                return effect()
            except StoreUnreachableError as error:
                if self.clock() - since > STORE_PATIENCE_S:
                    raise
                self.console.warning(f"{error}; trying again in {pause:.0f} s")
                self.sleep(pause)
                pause = min(pause * 2, 30.0)

    def _release(self) -> None:
        try:
            self.driver.release(self.store, self.run.id)
        except StoreUnreachableError as error:
            self.console.warning(f"the lease was not released and ends by itself: {error}")


def _result(seen: Seen) -> TrainingResult:
    if seen.result is None:  # next_step asks for this only when there is one
        raise AssertionError("no staged result")
    return seen.result
