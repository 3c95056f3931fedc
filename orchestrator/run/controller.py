"""The loop: observe a run, ask for the next step, perform it; until the run is done."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, assert_never

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectMissingError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
)
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import Manifest, ManifestEstimate, RegistryError
from gpu_offload.orchestrator.run import collect
from gpu_offload.orchestrator.run.backend import (
    Cloud,
    CloudUnreachableError,
    Cpu,
    Ending,
    InstanceLeftError,
    InterruptedRunError,
    RefusedError,
)
from gpu_offload.orchestrator.run.journal import Journal, JournalError
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.next_step import MOST_PATIENT_S, next_step
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.pace import goes_to_its_limit, overrun
from gpu_offload.orchestrator.run.record import (
    AttemptEnd,
    AttemptRecord,
    Collected,
    EndReason,
    Outcome,
    OutcomeStatus,
    RunRecord,
)
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
    RecordHost,
    Step,
    Terminate,
    Train,
    Wait,
)
from gpu_offload.orchestrator.run.timing import record_timing
from gpu_offload.remote_job.result import Heartbeat, TrainingResult

T = TypeVar("T")

STORE_PATIENCE_S = 900.0
"""How long a store that cannot be reached is waited for: the training goes on without it."""


STOP_LOOK_S = 20.0
"""Between two looks for a request to end a run that trains on this machine."""

TERMINATION_LIMIT_S = 900.0
"""How long an instance may take to terminate before that is an error of its own: it takes a minute or two."""


@dataclass
class Controller:
    """One driver at work on one run."""

    run: RunRecord
    journal: Journal
    driver: Lease
    cpu: Cpu
    console: Console
    cloud: Cloud | None = None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    detach: bool = False
    """Leave the run as soon as its instance trains by itself."""
    patience: float = math.inf
    """The longest wait, in seconds, that this driver is here for; what takes longer it leaves to who comes next."""
    left: str | None = None
    """Why the run was left before its end, None while it is not."""
    settle: Callable[[RunRecord, Observation], None] = field(default=lambda _run, _seen: None)
    """Called when the run is done, perhaps more than once: accounts for it."""
    cost: Callable[[RunRecord, Observation], float] = field(default=lambda _run, _seen: 0.0)
    _observation: Observation | None = None
    _doubted: int = 0
    """The last attempt of which it was said that it may not make it."""

    @property
    def store(self) -> ObjectStore:
        """The store that holds the run."""
        return self.journal.store

    def to_end(self) -> Outcome | None:
        """Drive the run until it is done; None where it goes on without us, as `detach` says.

        Raises:
            InterruptedRunError: this process was told to end; what was rented is being terminated.
            InstanceLeftError: an instance would not terminate.
            StoreError: the store could not be reached for long. RegistryError: it holds what it should not.
        """
        try:
            with ending_signals(wanted=self.cloud is not None):
                try:
                    while self.left is None:
                        outcome = self.once()
                        if outcome is not None:
                            return outcome
                except EndingSignal as signal:
                    self._abandon(signal)
                    raise InterruptedRunError(
                        f"received {signal.name}: run {self.run.id} stays open; run the same command to carry on"
                    ) from None
            return None
        finally:
            self._release()

    def once(self) -> Outcome | None:
        """Take the run one step on; return its outcome when there is nothing left to do."""
        observation = self._observation = self._patiently(self.observe)
        self._tell_doubt(observation)
        step = next_step(self.run, observation)
        if isinstance(step, Done):
            self._patiently(lambda: self.settle(self.run, observation))
            return step.outcome
        self.left = self._beyond_us(step, observation)
        if self.left is None:
            self._patiently(lambda: self._perform(step, observation))
        return None

    def _beyond_us(self, step: Step, observation: Observation) -> str | None:
        """Why this driver leaves the run here, None where it goes on."""
        current = observation.attempts[-1] if observation.attempts else None
        rented = current is not None and current.end is None and current.record.offer.where == "ec2"
        if self.detach and isinstance(step, Wait) and rented and current and current.heartbeat is not None:
            return "its instance trains"
        if math.isinf(self.patience):
            return None
        if isinstance(step, Wait) and (observation.driver is not None or step.seconds > self.patience):
            return step.reason
        if isinstance(step, OpenAttempt) and step.offer.where == "cpu":
            return "its next attempt trains on a CPU: run `offload train` where its dataset is"
        return None

    def _abandon(self, signal: "EndingSignal") -> None:
        """Let go of the run at once: terminate what costs money, unless it was to be left training."""
        if (
            self.cloud is None
            or self._observation is None
            or self._observation.driver is not None
            or self._observation.outcome
        ):
            return
        current = self._observation.attempts[-1] if self._observation.attempts else None
        if current is None or current.end is not None or current.record.offer.where != "ec2":
            return
        if self.detach and current.heartbeat is not None:
            return
        number = current.record.number
        self.console.note(f"received {signal.name}: terminating what run {self.run.id} has rented")
        ids = self.cloud.abandon(self.run, current)
        self.console.note(f"terminate call sent: {', '.join(ids) or 'there was no instance'}")
        if ids:
            # Without an instance the attempt stays open: a launch may be on its way, and has to be accounted for.
            self._close(number, "stopped", f"the driver received {signal.name}")

    def observe(self) -> Observation:
        """Look at the store and at the cloud."""
        run = self.run
        other = self.driver.claim(self.store, run.id)
        if other is not None:
            # Its driver looks at the rest; we only want to know when it is over.
            outcome = self.journal.outcome(run.id)
            if outcome is None:
                return Observation(now=self.clock(), me=self.driver.name, driver=other)
        look = self.journal.look(run.id)
        rented = any(a.record.offer.where == "ec2" for a in look.attempts)
        cloud = self.cloud if rented else None
        instances = cloud.instances(run, look.attempts) if cloud else ()
        # What an instance holds cannot be removed before it is gone, so nobody needs to know of it before.
        ended = not look.attempts or look.attempts[-1].end is not None
        gone = ended and all(i.state == "terminated" for i in instances)
        observation = Observation(
            now=self.clock(),
            me=self.driver.name,
            driver=other,
            outcome=look.outcome,
            published=publish.manifest_of(self.store, run.version) is not None,
            result=look.result,
            collected=look.collected,
            attempts=look.attempts,
            instances=instances,
            leftovers=cloud.leftovers(run, look.attempts) if cloud and gone else (),
            epochs_completed=look.checkpoint.epochs_completed if look.checkpoint else 0,
            stop=look.stop,
        )
        return replace(observation, spent_usd=self.cost(run, observation))

    def _perform(self, step: Step, observation: Observation) -> None:  # noqa: C901, PLR0912 - one case a step
        match step:
            case OpenAttempt():
                self._open(step)
            case Launch(number):
                self._launch(observation.attempts[number - 1].record)
            case Train(number):
                self._train(observation.attempts[number - 1], observation)
            case RecordHost(number, host):
                self.journal.record_host(self.run.id, number, host)
            case CloseAttempt(number, reason, message, at):
                self._close(number, reason, message, at=at)
            case Collect():
                self._collect(observation)
            case Publish():
                self._publish(observation)
            case Terminate(instances, reason):
                self.console.note(f"terminating {', '.join(instances)}: {reason}")
                self._cloud().terminate(self.run, instances)
            case CleanUp(leftovers):
                self._cloud().clean_up(self.run, leftovers)
            case Wait(seconds, reason):
                self._wait(seconds, reason, observation)
            case Finish(status, message):
                self._finish(status, message, observation)
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
            self.console.stage(f"attempt {step.number}: {step.offer.name}")

    def _launch(self, attempt: AttemptRecord) -> None:
        try:
            host = self._cloud().launch(self.run, attempt)
        except RefusedError as refusal:
            self.console.note(f"refused: {refusal}")
            refused = str(refusal), refusal.quota
        else:
            # Patient by itself: a store that is away now must not make us launch again.
            if host is not None:
                self._patiently(lambda: self.journal.record_host(self.run.id, attempt.number, host))
            return
        message, quota = refused
        self._patiently(lambda: self._close(attempt.number, "refused", message, quota=quota))

    def _train(self, attempt: ObservedAttempt, observation: Observation) -> None:
        number = attempt.record.number
        if attempt.record.offer.where == "cpu":
            try:
                ended = self.cpu.train(self.run, attempt.record, self._judge(observation, attempt))
            except InterruptedRunError as error:
                with contextlib.suppress(StoreError):  # then whoever comes next closes it
                    self._close(number, "stopped", str(error))
                raise
            # Patient by itself: it took long, and a store that is away now must not make us train again.
            if ended is None and self._patiently(lambda: self.journal.result(self.run.id)) is None:
                ended = "died", "the training ended without a result in the store"
        else:
            ended = self._cloud().train(self.run, attempt)
        if ended is not None:
            self._patiently(lambda: self._close(number, *ended))

    def _judge(
        self, observation: Observation, attempt: ObservedAttempt
    ) -> Callable[[Heartbeat | None], Ending | None]:
        """Return what decides whether a training here goes on: it does for as long as the next step is to train."""
        stop, looked_at = observation.stop, observation.now

        def judge(beat: Heartbeat | None) -> Ending | None:
            nonlocal stop, looked_at
            if beat is not None and beat.state in {"finished", "failed", "interrupted"}:
                return None  # it ends by itself, and says why
            now = self.clock()
            if stop is None and now - looked_at >= STOP_LOOK_S:
                looked_at = now
                with contextlib.suppress(StoreError, JournalError):
                    stop = self.journal.stop_requested(self.run.id)
            current = replace(attempt, heartbeat=beat)
            kept = max(observation.epochs_completed, beat.epochs_completed if beat else 0)
            view = replace(
                observation,
                now=now,
                stop=stop,
                attempts=(*observation.attempts[:-1], current),
                epochs_completed=kept,
            )
            self._tell_doubt(view)
            step = next_step(self.run, view)
            return (step.reason, step.message) if isinstance(step, CloseAttempt) else None

        return judge

    def _tell_doubt(self, observation: Observation) -> None:
        """Say once, and early, that an attempt will more likely than not break a limit, and what follows."""
        current = observation.current
        if current is None or current.record.number == self._doubted or observation.driver is not None:
            return
        why = overrun(self.run, observation, current, likely=True)
        if why is None:
            return
        self._doubted = current.record.number
        what: str = self.run.on_overrun
        if goes_to_its_limit(self.run, current.record.offer):
            what = "continue"
        self.console.warning(f"it may not make it: {why}. {_FOLLOWS[what]}")

    def _close(
        self, number: int, reason: EndReason, message: str, *, quota: bool = False, at: float | None = None
    ) -> None:
        at = self.clock() if at is None else at
        if reason not in {"finished", "refused"}:
            self.console.note(f"attempt {number} ended ({reason}): {message}")
        self.journal.close_attempt(
            self.run.id,
            AttemptEnd(number=number, reason=reason, at=at, message=message, quota=quota),
        )

    def _collect(self, observation: Observation) -> None:
        result = _result(observation)
        self.console.stage("verifying the result")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            if self._verified(result, Path(scratch)) is None:
                return
        self.journal.record_collected(
            self.run.id,
            Collected(at=self.clock(), attempt=result.attempt, model_sha256=result.model.sha256),
        )

    def _verified(self, result: TrainingResult, scratch: Path) -> Path | None:
        """Read the staged model back; discard a result that does not count."""
        try:
            return collect.verify_staged(self.store, self.run, result, scratch)
        except (RegistryError, CorruptObjectError, ObjectMissingError) as error:
            # Not the end: without the result the training is resumed, and finishes from its checkpoint.
            self.console.warning(f"the staged result does not count and is discarded: {error}")
            self._close(result.attempt, "died", f"its result did not count: {error}")
            self.journal.discard_result(self.run.id)
            return None

    def _publish(self, observation: Observation) -> None:
        result = _result(observation)
        self.console.stage(f"publishing version {self.run.version}")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            # It was verified before, and may have been damaged or replaced since.
            model = self._verified(result, Path(scratch))
            if model is not None:
                publish.publish(
                    self.store, self._manifest(result, observation), model, note=self.console.note
                )

    def _manifest(self, result: TrainingResult, observation: Observation) -> Manifest:
        attempt = next((a for a in observation.attempts if a.record.number == result.attempt), None)
        offer = attempt.record.offer if attempt else None
        return Manifest(
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
            seconds=ManifestEstimate(
                estimated=self.run.estimate, actual=round(observation.now - self.run.created_at, 1)
            ),
            where=(offer.instance_type or "ec2") if offer and offer.where == "ec2" else "cpu",
            cost_usd=round(observation.spent_usd, 4),
            environment=result.environment,
        )

    def _finish(self, status: OutcomeStatus, message: str, observation: Observation) -> None:
        version = None
        if status == "published":
            version = self.run.version
            manifest = publish.manifest_of(self.store, version)
            if manifest is not None:
                publish.complete(self.store, manifest)
            if observation.result is not None:
                # Whoever may publish may not be allowed this, and an estimate that learns nothing is no fault.
                with contextlib.suppress(StoreDeniedError):
                    record_timing(self.store, self.run, observation.result, observation.attempts)
        self.journal.finish(
            self.run.id, Outcome(status=status, at=self.clock(), message=message, version=version)
        )

    def _wait(self, seconds: float, reason: str, observation: Observation) -> None:
        if observation.outcome is not None and observation.now - observation.outcome.at > TERMINATION_LIMIT_S:
            states = ", ".join(
                f"{i.id} is {i.state}" for i in observation.instances if i.state != "terminated"
            )
            raise InstanceLeftError(
                f"run {self.run.id} is over, and after {TERMINATION_LIMIT_S / 60:.0f} min {states}: "
                "look at it in the EC2 console; it may still cost money"
            )
        current = observation.attempts[-1] if observation.attempts else None
        if (
            self.cloud is not None
            and current is not None
            and current.end is None
            and current.heartbeat is not None
            # After its last word there is nothing to follow: that would come back at once, and ask EC2 in a loop.
            and current.heartbeat.state not in {"finished", "failed", "interrupted"}
            and current.record.offer.where == "ec2"
        ):
            ended = self.cloud.follow(self.run, current, seconds)
            if ended is not None:
                self._close(current.record.number, *ended)
        else:
            self.console.detail(f"waiting: {reason}")
            self.sleep(min(seconds, MOST_PATIENT_S))

    def _patiently(self, effect: Callable[[], T]) -> T:
        """Do something with store or cloud, and wait for one that cannot be reached."""
        since, pause = self.clock(), 1.0
        while True:
            try:
                return effect()
            except (StoreUnreachableError, CloudUnreachableError) as error:
                if self.clock() - since > STORE_PATIENCE_S:
                    raise
                self.console.warning(f"{error}; trying again in {pause:.0f} s")
                self.sleep(pause)
                pause = min(pause * 2, 30.0)

    def _release(self) -> None:
        if self.cloud is not None:
            self.cloud.close()
        try:
            self.driver.release(self.store, self.run.id)
        except StoreUnreachableError as error:
            self.console.warning(f"the lease was not released and ends by itself: {error}")


_FOLLOWS = {
    "stop": "Once that is certain it stops, and keeps its checkpoint",
    "escalate": "Once that is certain it moves to an offer that makes it, or stops, and keeps its checkpoint",
    "continue": "It goes on until then, and keeps its checkpoint",
}
"""By `limits.on-overrun`."""


def _result(observation: Observation) -> TrainingResult:
    if observation.result is None:  # next_step asks for this only when there is one
        raise AssertionError("no staged result")
    return observation.result
