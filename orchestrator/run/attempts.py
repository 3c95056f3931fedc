"""Opens, launches, trains and closes the attempts of a run."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import Cloud, Cpu, InterruptedRunError, RefusedError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.limits import LimitWatch
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.patience import Patience
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord, EndReason, RunRecord
from gpu_offload.orchestrator.run.step import OpenAttempt


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one run, for one driver."""

    run: RunRecord
    journal: Journal
    lease: Lease
    cpu: Cpu
    cloud: Cloud | None
    console: Console
    clock: Callable[[], float]
    limits: LimitWatch
    patiently: Patience

    def rented(self) -> Cloud:
        """Return the cloud. Raises InterruptedRunError for a driver without access to it."""
        if self.cloud is None:
            raise InterruptedRunError(
                f"run {self.run.id} has instances, and this driver was started without access to EC2; "
                "run `offload attach` or `offload tend` with credentials"
            )
        return self.cloud

    def open(self, step: OpenAttempt) -> None:
        """Journal an attempt."""
        record = AttemptRecord(
            number=step.number,
            offer=step.offer,
            created_at=self.clock(),
            expires_at=step.expires_at,
            driver=self.lease.name,
        )
        if self.journal.open_attempt(self.run.id, record):
            self.console.stage(f"attempt {step.number}: {step.offer.name}")

    def launch(self, attempt: AttemptRecord) -> None:
        """Launch the instance of an attempt and journal it, or journal that it was refused."""
        try:
            host = self.rented().launch(self.run, attempt)
        except RefusedError as refusal:
            self.console.note(f"refused: {refusal}")
            refused = str(refusal), refusal.quota
        else:
            # Patient by itself: a store that is away now must not make us launch again.
            if host is not None:
                self.patiently(lambda: self.journal.record_host(self.run.id, attempt.number, host))
            return
        message, quota = refused
        self.patiently(lambda: self.close(attempt.number, "refused", message, quota=quota))

    def train(self, attempt: ObservedAttempt, observation: Observation) -> None:
        """Train here to the end, or start the training on its instance."""
        number = attempt.record.number
        if attempt.record.offer.where == "cpu":
            try:
                ended = self.cpu.train(self.run, attempt.record, self.limits.judge(observation, attempt))
            except InterruptedRunError as error:
                with contextlib.suppress(StoreError):  # then the next driver closes it
                    self.close(number, "stopped", str(error))
                raise
            # Patient by itself: it took long, and a store that is away now must not make us train again.
            if ended is None and self.patiently(lambda: self.journal.result(self.run.id)) is None:
                ended = "died", "the training ended without a result in the store"
        else:
            ended = self.rented().train(self.run, attempt)
        if ended is not None:
            self.patiently(lambda: self.close(number, *ended))

    def close(
        self, number: int, reason: EndReason, message: str, *, quota: bool = False, at: float | None = None
    ) -> None:
        """Journal how an attempt ended; `at` is when, in Unix seconds, None for now."""
        at = self.clock() if at is None else at
        if reason not in {"finished", "refused"}:
            self.console.note(f"attempt {number} ended ({reason}): {message}")
        self.journal.close_attempt(
            self.run.id,
            AttemptEnd(number=number, reason=reason, at=at, message=message, quota=quota),
        )
