"""How well past estimates held: errors, bias and coverage, as a table, a plot and lines for others."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_offload.orchestrator.estimate.history import Timing
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.table import text_table
from gpu_offload.orchestrator.output.units import human_duration

NOMINAL = 0.8
"""The share of trainings that should end inside their intervals."""

COLUMNS = 61
"""Of the plot; the middle one is an estimate that held exactly."""

LEAST_S = 1e-3
"""An estimate of less says nothing, and no error is relative to it."""

MOST = math.log(2)
"""ln(actual / estimate) at the plot's edges: half and twice."""


@dataclass(frozen=True, slots=True)
class EstimateScore:
    """How well one kind of estimate held."""

    count: int
    error: float
    """Median of |actual / estimate - 1|."""
    bias: float
    """Median of actual / estimate - 1; above zero, trainings take longer than estimated."""
    inside: int
    """How many ended inside of their interval."""


def score(estimates: Iterable[tuple[Interval, float]]) -> EstimateScore | None:
    """Score intervals against what happened; None where there is none."""
    pairs = [(interval, actual) for interval, actual in estimates if interval.likely >= LEAST_S]
    if not pairs:
        return None
    errors = [actual / interval.likely - 1 for interval, actual in pairs]
    return EstimateScore(
        count=len(pairs),
        error=statistics.median(map(abs, errors)),
        bias=statistics.median(errors),
        inside=sum(interval.low <= actual <= interval.high for interval, actual in pairs),
    )


def scores(timings: Sequence[Timing]) -> dict[str, EstimateScore]:
    """Score the estimates of the plans and those after the first steps; a name without estimates is left out."""
    whole = [(timing, timing.whole) for timing in timings if timing.whole]
    found = {
        "plan": score((t.planned, actual) for t, actual in whole if t.planned),
        "after the first steps": score((t.forecast, actual) for t, actual in whole if t.forecast),
    }
    return {name: one for name, one in found.items() if one is not None}


def history_text(timings: Sequence[Timing], *, width: int = 80) -> str:
    """Render past trainings, the newest last: predicted against actual, their coverage and bias, and a plot."""
    if not timings:
        return "no training has left its time yet; `offload train` does"
    rows = [("run", "where", "plan", "within", "first steps", "within", "actual")]
    rows += [
        (
            timing.run,
            timing.machine.removesuffix("-prior"),
            human_duration(timing.planned.likely) if timing.planned else human_duration(timing.predicted),
            _within(timing.planned, timing.whole),
            human_duration(timing.forecast.likely) if timing.forecast else "",
            _within(timing.forecast, timing.whole),
            human_duration(timing.whole or timing.actual),
        )
        for timing in timings
    ]
    parts = [text_table(rows, width=width)]
    summary = [("estimate", "trainings", "error", "bias", "within its 80 % interval")]
    summary += [
        (name, str(one.count), f"{one.error:.0%}", f"{one.bias:+.0%}", f"{one.inside} of {one.count}")
        for name, one in scores(timings).items()
    ]
    if len(summary) > 1:
        parts.append(text_table(summary, width=width))
    if plot := plot_text(timings):
        parts.append(plot)
    return "\n\n".join(parts)


def _within(estimate: Interval | None, actual: float | None) -> str:
    if estimate is None or not actual:
        return ""
    return "yes" if estimate.low <= actual <= estimate.high else "no"


def plot_text(timings: Sequence[Timing]) -> str:
    """Draw a line for each training: `-` its interval, `|` what was estimated, `x` what it took; logarithmic."""
    lines = []
    for timing in timings:
        said = timing.forecast or timing.planned
        if said is None or not timing.whole or not said.likely:
            continue
        line = [" "] * COLUMNS
        low, high = _column(said.low / said.likely), _column(said.high / said.likely)
        line[low : high + 1] = "-" * (high - low + 1)
        line[_column(1.0)] = "|"
        line[_column(timing.whole / said.likely)] = "x"
        lines.append("".join(line).rstrip())
    if not lines:
        return ""
    scale = "half".ljust(COLUMNS // 2 - 1) + "as estimated".center(3) + "twice".rjust(COLUMNS // 2 - 10)
    return "\n".join([scale, *lines])


def _column(ratio: float) -> int:
    place = math.log(max(ratio, 1e-6)) / MOST
    return round((COLUMNS - 1) / 2 * (1 + max(-1.0, min(1.0, place))))


def history_json(timings: Sequence[Timing]) -> dict[str, Any]:
    """Return the object of `offload estimate history --json`."""
    return {
        "trainings": [timing.model_dump(mode="json") for timing in timings],
        "scores": {
            name.replace(" ", "_"): {
                "count": one.count,
                "median_error": round(one.error, 4),
                "bias": round(one.bias, 4),
                "inside": one.inside,
                "nominal_coverage": NOMINAL,
            }
            for name, one in scores(timings).items()
        },
    }


SHARED = ("machine", "ultralytics", "family", "predicted", "actual", "planned", "forecast", "whole", "left", "share",
          "stages", "work", "environment")  # fmt: skip
"""What a line for others holds: nothing that names a project, a run, a dataset, a host or a day."""


def shared_line(timing: Timing) -> dict[str, Any]:
    """Return what a user would share of a training: times, machine and sizes."""
    whole = timing.model_dump(mode="json")
    return {name: whole[name] for name in SHARED}
