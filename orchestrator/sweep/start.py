"""Plans the start of a sweep's training within the machine, the money and the time."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_offload.orchestrator.sweep.decision import allowance, reserve
from gpu_offload.orchestrator.sweep.facts import TrainingFacts
from gpu_offload.orchestrator.sweep.record import SweepRecord, TrainingRef, TrialRecord
from gpu_offload.orchestrator.sweep.space import values_text, words
from gpu_offload.orchestrator.sweep.trainings import SweepError, Trainings


@dataclass(frozen=True, slots=True)
class Start:
    """A training that may start: the arguments of its command, and the USD that it has cost and may cost."""

    arguments: tuple[str, ...]
    on_cpu: bool
    reserved_usd: float


@dataclass(frozen=True, slots=True)
class Starter:
    """Plans each start within the sweep's limits. `arguments` give a process the same configuration."""

    record: SweepRecord
    trainings: Trainings
    arguments: Sequence[str]

    def start_of(
        self,
        trial: TrialRecord,
        ref: TrainingRef,
        facts: TrainingFacts,
        *,
        committed_usd: float,
        now: float,
        cpu_busy: bool,
    ) -> Start | str:
        """Return how a training starts or continues, or what prevents it: `cpu`, `budget` or `deadline`.

        `committed_usd` is the sweep's cost, with open runs at their limits; `cpu_busy`: a process trains here. Raises
        SweepError: the training exceeds the configuration's own limits; otherwise as `Trainings.plan`.
        """
        where = (ref.seed, ref.fold)
        limits = self.trainings.settings.limits
        money = allowance(self.record.budget_usd, committed_usd, limits.max_cost_usd)
        seconds = min(limits.deadline.total_seconds(), self.record.deadline_at - now)
        planned = self.trainings.plan(trial.values, where, max_cost_usd=money, deadline_s=seconds)
        option = planned.report.decision.option
        if option is None and facts.status != "open" and planned.report.already_trained is None:
            return self._why_not(trial, where, planned.report.decision.why, money)
        on_cpu = option is None or option.where == "cpu"
        if on_cpu and cpu_busy:
            return "cpu"
        reserved, limit = facts.limit_usd, facts.max_cost_usd
        if facts.status != "open" and option is not None:
            moves = limits.on_overrun == "escalate"  # from this CPU to an instance
            limit = reserved = reserve(money, option.cost_high) if not on_cpu else money if moves else 0.0
        base = self.trainings.settings.training.seed
        fold = self.trainings.fold_text(ref.fold)
        # A deadline has whole seconds, and none of 0 s is accepted.
        arguments = (
            "train", *self.arguments, "--json", "--sweep", self.record.id, "--on", self.trainings.on,
            *(part for word in words(trial.values, base_seed=base, seed=ref.seed, fold=fold) for part in ("--set", word)),
            "--set", f"limits.max-cost-usd={money if on_cpu else limit!r}",
            "--set", f"limits.deadline={max(1, int(seconds))}s",
        )  # fmt: skip
        # What its earlier runs cost stays spent while this one works.
        return Start(arguments, on_cpu, facts.cost_usd + reserved)

    def _why_not(self, trial: TrialRecord, where: tuple[int, int | None], why: str, money: float) -> str:
        """Return which of the sweep's limits keeps a training from its start."""
        if self.trainings.plan(trial.values, where).report.decision.option is None:
            raise SweepError(f"trial {trial.number} ({values_text(trial.values)}): {why}")
        fits = self.trainings.plan(trial.values, where, max_cost_usd=money).report.decision.option
        return "budget" if fits is None else "deadline"
