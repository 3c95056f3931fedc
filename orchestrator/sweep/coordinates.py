"""Parallel coordinates as SVG: a line for each trial through its values, coloured by its score. Pure."""

import math

from gpu_offload.orchestrator.output.metrics import label
from gpu_offload.orchestrator.report.markup import safe, without_controls
from gpu_offload.orchestrator.report.svg import svg_figure, svg_text
from gpu_offload.orchestrator.settings.dimension import Choice, Range, Scalar
from gpu_offload.orchestrator.sweep.content import SweepReport, TrialReport
from gpu_offload.orchestrator.sweep.space import Space, shown, values_text

WIDTH, LEFT, RIGHT, TOP, PLOT = 520, 64, 64, 58, 220
NAME, LINE, FEW_AXES = 14, 14, 4
"""The y of axis names, the height of a line, and how many axis names fit side by side; of more, every second is lower."""
WORST, BEST = (148, 163, 184), (5, 150, 105)
PRUNED = "#d97706"


def coordinates_svg(report: SweepReport) -> str:
    """Draw the trials that have a value; the last axis is the metric. Empty for fewer than two of them."""
    record = report.record
    space = Space.written(record.space, record.seeds, record.folds)
    drawn = [trial for trial in report.trials if trial.value is not None and math.isfinite(trial.value)]
    if len(drawn) < 2 or not space.dimensions:
        return ""
    values = [trial.value for trial in drawn if trial.value is not None]
    low, high = min(values), max(values)
    axes = [*space.dimensions, record.metric or "metric"]
    gap = (WIDTH - LEFT - RIGHT) / (len(axes) - 1)
    parts = []
    for i, name in enumerate(axes):
        x = LEFT + i * gap
        anchor = "start" if i == 0 else "end" if i == len(axes) - 1 else "middle"
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + PLOT}" class="grid"/>')
        lower = LINE if len(axes) > FEW_AXES and i % 2 else 0
        named = name if name in space.dimensions else label(name)
        parts.append(svg_text(x, NAME + lower, without_controls(named), anchor))
        for at, text in _marks(space.dimensions.get(name), low, high):
            parts.append(
                svg_text(x, TOP + PLOT * (1 - at) + (14 if at == 0 else -6), without_controls(text), anchor)
            )
    for trial in sorted(drawn, key=lambda t: (t.state != "pruned", _good(t, low, high, report))):
        points = [_position(space.dimensions[n], trial.values[n]) for n in space.dimensions]
        points.append(_share(trial.value or 0.0, low, high))
        path = " ".join(f"{LEFT + i * gap:.1f},{TOP + PLOT * (1 - y):.1f}" for i, y in enumerate(points))
        pruned = trial.state == "pruned"
        colour = PRUNED if pruned else _colour(_good(trial, low, high, report))
        dashed = ' stroke-dasharray="4 3"' if pruned else ""
        title = f"trial {trial.number}: {values_text(trial.values)}; {trial.value:.4g}"
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}>'
            f"<title>{safe(title)}</title></polyline>"
        )
    return svg_figure(TOP + PLOT + 24, parts, "Trials: the greener the better; dashed ones were pruned")


def _marks(dimension: Range | Choice | None, low: float, high: float) -> list[tuple[float, str]]:
    if dimension is None:
        return [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
    if isinstance(dimension, Choice):
        return [(_position(dimension, value), shown(value)) for value in dimension.values]
    return [(0.0, shown(dimension.ends[0])), (1.0, shown(dimension.ends[1]))]


def _position(dimension: Range | Choice, value: Scalar) -> float:
    """Return where a value is on its axis, 0 at the bottom to 1 at the top."""
    if isinstance(dimension, Choice):
        names = [repr(one) for one in dimension.values]
        return names.index(repr(value)) / (len(names) - 1) if repr(value) in names else 0.0
    number = float(value)
    if dimension.log:
        return _share(math.log(number), math.log(dimension.low), math.log(dimension.high))
    return _share(number, dimension.low, dimension.high)


def _share(value: float, low: float, high: float) -> float:
    # Equal trials are drawn in the middle.
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


def _good(trial: TrialReport, low: float, high: float, report: SweepReport) -> float:
    share = _share(trial.value or 0.0, low, high)
    return share if report.record.goal == "maximize" else 1 - share


def _colour(good: float) -> str:
    mixed = [round(w + (b - w) * good) for w, b in zip(WORST, BEST, strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)
