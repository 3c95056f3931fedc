"""The receipt of a sweep, before anything is started: how many trials the money and the time buy, and where. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpu_offload.dataset.finding import counted
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.table import text_table, wrapped
from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.plan.option import Option, PlanReport
from gpu_offload.orchestrator.sweep.record import SweepRecord
from gpu_offload.orchestrator.sweep.space import Space

MOST_SHOWN = 99_999
"""A larger number of trials is shown as this one."""


@dataclass(frozen=True, slots=True)
class PlannedPlace:
    """A place where trainings of a sweep can run. Costs are of one training, in US dollars."""

    name: str
    chosen: bool
    seconds: Interval
    cost_likely: float
    cost_high: float
    parallel: int
    unpriced: str = "free"

    def trials_in(self, seconds: float, trainings: int, *, upper: bool = False) -> int:
        """Return how many trials of `trainings` trainings fit a time; `upper`: by the upper estimate."""
        each = (self.seconds.high if upper else self.seconds.likely) * trainings
        return math.floor(max(0.0, seconds) * self.parallel / each) if each > 0 else MOST_SHOWN

    def trials_for(self, usd: float, trainings: int, *, upper: bool = False) -> int | None:
        """Return how many trials an amount buys, None if they are free; `upper`: by the upper estimate."""
        each = (self.cost_high if upper else self.cost_likely) * trainings
        return math.floor(max(0.0, usd) / each) if each > 0 else None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The plan of a sweep: `done` trials exist and cost `spent_usd`; times are from `now`."""

    record: SweepRecord
    space: Space
    places: tuple[PlannedPlace, ...]
    done: int
    spent_usd: float
    now: float

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.record.deadline_at - self.now)

    @property
    def left_usd(self) -> float:
        """What the budget leaves."""
        return max(0.0, self.record.budget_usd - self.spent_usd)

    def buys(self, *, upper: bool = False) -> int | None:
        """Return how many more trials time and money buy in the chosen place; None if nothing fits."""
        chosen = next((place for place in self.places if place.chosen), None)
        if chosen is None:
            return None
        each = len(self.space.repetitions)
        money = chosen.trials_for(self.left_usd, each, upper=upper)
        time = chosen.trials_in(self.left_s, each, upper=upper)
        wanted = self.record.trials - self.done
        return max(0, min(x for x in (wanted, time, money) if x is not None))

    def json(self) -> dict[str, Any]:
        """Return the plan as one JSON object; docs/json.md describes it."""
        return {
            "sweep": self.record.id,
            "trials": self.record.trials,
            "done": self.done,
            "spent_usd": self.spent_usd,
            "left_usd": self.left_usd,
            "left_seconds": self.left_s,
            "trainings_per_trial": len(self.space.repetitions),
            "buys": {"likely": self.buys(), "at_least": self.buys(upper=True)},
            "places": [
                {
                    "name": place.name,
                    "chosen": place.chosen,
                    "seconds": place.seconds.json(),
                    "cost_likely_usd": place.cost_likely,
                    "cost_high_usd": place.cost_high,
                    "parallel": place.parallel,
                }
                for place in self.places
            ],
        }

    def text(self, *, width: int = 80) -> str:
        """Render it for a terminal or a log."""
        record, each = self.record, len(self.space.repetitions)
        lines = [
            f"{record.id}: " + ("a new sweep" if not self.done else f"{self.done} trials are there already")
        ]
        rows = [("value", "tried")]
        rows += [(name, str(dimension)) for name, dimension in self.space.dimensions.items()]
        if record.seeds > 1:
            rows.append(("seed", f"{record.seeds} seeds for each trial"))
        if record.folds > 1:
            rows.append(("fold", f"{record.folds} folds for each trial"))
        lines += ["", text_table(rows, width=width)]
        table: list[tuple[str, ...]] = [
            ("", "where", "a training takes", "costs", "at once", "trials in time", "for the money")
        ]
        for place in self.places:
            bought = place.trials_for(self.left_usd, each)
            takes = f"{human_duration(place.seconds.likely)} to {human_duration(place.seconds.high)}"
            costs = f"{human_money(place.cost_likely)} to {human_money(place.cost_high)}"
            table.append(
                (
                    ">" if place.chosen else "",
                    place.name,
                    takes,
                    costs if place.cost_high else place.unpriced,
                    str(place.parallel),
                    str(min(place.trials_in(self.left_s, each), MOST_SHOWN)),
                    "any" if bought is None else str(min(bought, MOST_SHOWN)),
                )
            )
        lines += ["", text_table(table, width=width)]
        likely, least = self.buys(), self.buys(upper=True)
        if likely is None:
            lines += ["", "No place fits the limits of a single training: see `offload plan`."]
        else:
            trainings = f" of {each} trainings{' each' if record.trials > 1 else ''}" if each > 1 else ""
            is_less = least is not None and least < likely
            worst = f", at least {least} if every training goes badly" if is_less else ""
            lines += [
                "",
                wrapped(
                    f"Up to {counted(record.trials, 'trial')}{trainings}, within {human_money(record.budget_usd)} and "
                    f"{human_duration(record.deadline_s)}. The money and the time left likely suffice for "
                    f"{counted(likely, 'more trial' if self.done else 'trial')}{worst}.",
                    width=width,
                ),
            ]
        return "\n".join(lines) + "\n"


def places(plans: Sequence[PlanReport], *, parallel: int) -> tuple[PlannedPlace, ...]:
    """Return the places of some planned trainings with averages over them: this CPU, and the best instance."""
    found = []
    chosen = [plan.decision.option for plan in plans if plan.decision.option is not None]
    for where in ("cpu", "ec2", "ray"):
        best = [option for plan in plans if (option := _best(plan, where)) is not None]
        picked = [option for option in chosen if option.where == where]
        shown = picked or best
        if shown:
            # Trainings on this CPU run one after another, because each uses all cores.
            found.append(_place(shown, chosen=bool(picked), parallel=1 if where == "cpu" else parallel))
    return tuple(found)


def _best(plan: PlanReport, where: str) -> Option | None:
    fitting = [option for option in plan.options if option.where == where and option.feasible]
    return min(fitting, key=lambda option: (option.cost_likely, option.interval.likely), default=None)


def _place(options: Sequence[Option], *, chosen: bool, parallel: int) -> PlannedPlace:
    count = len(options)
    names = list(dict.fromkeys(option.offer.name for option in options))
    seconds = options[0].interval
    for option in options[1:]:
        seconds += option.interval
    return PlannedPlace(
        name=names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
        chosen=chosen,
        seconds=seconds.scaled(1 / count),
        cost_likely=sum(option.cost_likely for option in options) / count,
        cost_high=sum(option.cost_high for option in options) / count,
        parallel=parallel,
        unpriced=options[0].offer.unpriced,
    )
