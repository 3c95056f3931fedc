"""Opens, launches, trains and closes the attempts of a run."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import (
    Attended,
    Cloud,
    InterruptedRunError,
    LaunchDeniedError,
    RefusedError,
)
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.limits import LimitWatch
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.patience import Patience
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord, EndReason, HostRecord, RunRecord
from gpu_offload.orchestrator.run.step import OpenAttempt


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one run, for one driver."""

    run: RunRecord
    journal: Journal
    lease: Lease
    attended: Attended
    cloud: Cloud | None
    console: Console
    clock: Callable[[], float]
    limits: LimitWatch
    patiently: Patience

    def rented(self) -> Cloud:
        """Return the cloud."""
        if self.cloud is None:  # the observer refuses such a run
            raise AssertionError("a run with instances has a cloud")
        return self.cloud

    def open(self, step: OpenAttempt) -> None:
        """Journal an attempt."""
        record = AttemptRecord(
            number=step.number,
            offer=step.offer,
            created_at=self.clock(),
            expires_at=step.expires_at,
            driver=self.lease.name,
            max_price_usd=step.max_price_usd,
        )
        if self.journal.open_attempt(self.run.id, record):
            self.console.stage(f"attempt {step.number}: {step.offer.name}")

    def launch(self, attempt: AttemptRecord) -> None:
        """Launch an attempt's instance and journal it or its refusal. Raises LaunchDeniedError: the run stays open."""
        cloud, number = self.rented(), attempt.number
        cloud.prepare(self.run)  # can take minutes
        self.patiently(lambda: self.journal.record_launching(self.run.id, number, self.clock()))
        # The record is written before this is read, and a stop is written before the record is read: so either
        # this driver sees the stop, or the stop sees that an instance can appear.
        why = self.patiently(lambda: self._reason_not_to_launch(number))
        if why is not None:
            self.console.note(f"nothing is launched: {why}")
            return
        # Each write retries on its own: a store that does not answer now must not cause a second launch.
        try:
            host = cloud.launch(self.run, attempt)
        except RefusedError as refusal:
            self.console.note(f"refused: {refusal}")
            self._refuse(
                number,
                str(refusal),
                quota=refusal.quota,
                limit_vcpus=refusal.limit_vcpus,
                for_good=refusal.for_good,
            )
        except LaunchDeniedError as denial:
            self._refuse(number, str(denial), denied=True)
            raise
        else:
            if host is not None:
                self.patiently(lambda: self.journal.record_host(self.run.id, number, host))

    def _refuse(self, number: int, message: str, **details: Any) -> None:
        end = AttemptEnd(number=number, reason="refused", at=self.clock(), message=message, **details)
        self.patiently(lambda: self.journal.close_attempt(self.run.id, end))

    def _reason_not_to_launch(self, number: int) -> str | None:
        other = self.lease.claim(self.journal.store, self.run.id)
        if other is not None:
            return f"{other} drives this run now"
        documents = self.journal.read(self.run.id)
        if documents.stop is not None:
            return "the run is to stop"
        if documents.outcome is not None or documents.attempts[number - 1].end is not None:
            return "another driver has ended the attempt"
        return None

    def adopt(self, attempt: ObservedAttempt, host: HostRecord) -> None:
        """Journal an instance whose launch reply was lost, and complete the launch."""
        if attempt.end is None and host.ended_at is None:
            self.rented().adopt(self.run, attempt.record, host)
        self.journal.record_host(self.run.id, attempt.record.number, host)

    def train(self, attempt: ObservedAttempt, observation: Observation) -> None:
        """Train to the end, or start the training on its instance."""
        number = attempt.record.number
        if not attempt.record.offer.is_rented:
            try:
                ended = self.attended.train(self.run, attempt.record, self.limits.judge(observation, attempt))
            except InterruptedRunError as error:
                with contextlib.suppress(StoreError):  # then the next driver closes it
                    self.close(number, "stopped", str(error))
                raise
            # Retries on its own: a store that does not answer now must not repeat a long training.
            if ended is None and self.patiently(lambda: self.journal.read(self.run.id)).result is None:
                ended = "died", "the training ended without a result in the store"
        else:
            ended = self.rented().train(self.run, attempt)
        if ended is not None:
            self.patiently(lambda: self.close(number, *ended))

    def close(
        self, number: int, reason: EndReason, message: str, *, at: float | None = None, by_cloud: bool = False
    ) -> None:
        """Journal how an attempt ended; `at` is when, in Unix seconds, None for now."""
        at = self.clock() if at is None else at
        # A failure and a stop end the command, which reports them.
        if reason not in {"finished", "failed", "stopped"}:
            self.console.note(f"attempt {number} ended ({reason}): {message}")
        end = AttemptEnd(number=number, reason=reason, at=at, message=message, by_cloud=by_cloud)
        self.journal.close_attempt(self.run.id, end)
