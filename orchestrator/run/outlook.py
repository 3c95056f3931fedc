"""The outlook of a run: what the decision derives from one observation, each part at most once."""

from dataclasses import dataclass
from functools import cached_property

from gpu_offload.orchestrator.offers.offer import Market
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.candidates import first_market, fitting, steadiest, waiting_for_spot
from gpu_offload.orchestrator.run.liveness import absence, awaits_reclaim, verdict
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.pace import leaves, overrun
from gpu_offload.orchestrator.run.record import EndReason, RunRecord
from gpu_offload.orchestrator.run.relocation import moving


@dataclass(frozen=True)
class Outlook:
    """A run, an observation of it, and what follows from the two; each part is computed on first use."""

    run: RunRecord
    seen: Observation

    @cached_property
    def current(self) -> ObservedAttempt | None:
        """The open attempt."""
        return self.seen.current

    @cached_property
    def mine(self) -> tuple[ObservedInstance, ...]:
        """The open attempt's instances."""
        return self.seen.instances_of(self.current.record.number) if self.current is not None else ()

    @cached_property
    def market(self) -> Market | None:
        """The market whose candidates come first; None while the run waits for spot."""
        return first_market(self.run, self.seen, self._steadiest)

    @cached_property
    def candidate(self) -> Candidate | None:
        """The best candidate for another attempt."""
        return next(fitting(self.run, self.seen, self.market), None)

    @cached_property
    def rented_candidate(self) -> Candidate | None:
        """The best candidate that is an instance."""
        offers = fitting(self.run, self.seen, self.market)
        return next((c for c in offers if c.offer.where == "ec2"), None)

    @cached_property
    def escape(self) -> Candidate | None:
        """The best candidate where a run that escalates can go on; its CPU's limit can be that of the job alone."""
        last = self.seen.last
        return self.rented_candidate if last and last.record.offer.where == "cpu" else self.candidate

    @cached_property
    def leaves(self) -> str | None:
        """Why a toss-up that began on the CPU moves to an instance now."""
        current, better = self.current, self.rented_candidate if self.run.reversible else None
        return leaves(self.run, self.seen, current, better) if current and better else None

    @cached_property
    def wait(self) -> str | None:
        """Why the run waits for spot instead."""
        if self.market is not None or self._steadiest is None:
            return None
        return waiting_for_spot(self.run, self.seen, self._steadiest)

    @cached_property
    def ended(self) -> tuple[EndReason, str] | None:
        """Why the open attempt is over, if it rents an instance: a reason and a sentence."""
        if self._rented is None:
            return None
        over = verdict(self.seen, self._rented, self.mine)
        if over is None and (why := moving(self.run, self.seen, self._rented)) is not None:
            return "moved", why
        return over or absence(self.seen, self._rented, self.mine)

    @cached_property
    def reclaim(self) -> bool:
        """Whether AWS is about to take the open attempt's instance back for free."""
        return self._rented is not None and awaits_reclaim(self.seen, self._rented, self.mine)

    @cached_property
    def overrun(self) -> str | None:
        """Why the open attempt will not finish within its limits, nine in ten certain."""
        return overrun(self.run, self.seen, self.current) if self.current is not None else None

    @cached_property
    def doubt(self) -> str | None:
        """Why the open attempt will not finish within its limits, more likely than not."""
        return overrun(self.run, self.seen, self.current, likely=True) if self.current is not None else None

    @cached_property
    def _rented(self) -> ObservedAttempt | None:
        current = self.current
        return current if current is not None and current.record.offer.where == "ec2" else None

    @cached_property
    def _steadiest(self) -> Candidate | None:
        return steadiest(self.run, self.seen)
