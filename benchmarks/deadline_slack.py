"""Draw what a training of 48 h costs against the slack of its deadline, by policy.

    python -m benchmarks.deadline_slack HARNESS docs/deadline-slack.svg [--overhead 0.2] [--step 12]

HARNESS as in `benchmarks.deadline_policy`. Played is the fold "east, spring", with the prior of "west, summer".
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from benchmarks.deadline_folds import FOLDS, fit, is_in, load
from benchmarks.deadline_policy import HOUR, Policy
from gpu_offload.orchestrator.report.svg import COLOURS, svg_text

WORK_H = 48.0
DEADLINES_H = (49.0, 50.0, 52.0, 55.0, 60.0, 65.0, 70.0)
WIDTH, HEIGHT, LEFT, TOP, RIGHT = 640, 320, 56, 16, 170
STYLE = (
    "text{font:12px sans-serif;fill:#6b7280} .grid{stroke:#9ca3af;stroke-opacity:.3} "
    "polyline{fill:none;stroke-width:2}"
)


def costs(
    harness: ModuleType, overhead_h: float, step: int, zones: tuple[str, tuple[str, ...]]
) -> dict[str, list[float]]:
    """Return mean costs in US dollars by policy, a value a deadline."""
    gap_s, windows = harness.load_set("dev", True)
    played = [series.tolist() for zone, _, series in windows if is_in(zone, *zones)][::step]
    makers = {
        "on-demand": harness.OnDemand,
        "greedy": harness.Greedy,
        "Uniform Progress": harness.UniformProgress,
        "expected cost (ours)": Policy,
    }
    found: dict[str, list[float]] = {name: [] for name in (*makers, "optimum in hindsight")}
    for deadline in DEADLINES_H:
        job = {
            "total_h": WORK_H,
            "deadline_h": deadline,
            "overhead_h": overhead_h,
            "tick_h": gap_s / HOUR,
            "price_spot": harness.SPOT,
            "price_on_demand": harness.OD,
        }
        for name, make in makers.items():
            paid = []
            for series in played:
                cost, end, _ = harness.simulate(series, gap_s, make(job).decide, WORK_H, deadline, overhead_h)
                if end is None or end > deadline + 1e-9:
                    raise RuntimeError(f"{name} missed a deadline of {deadline} h")
                paid.append(cost)
            found[name].append(sum(paid) / len(paid))
        best = [harness.offline_opt(series, gap_s, WORK_H, deadline, overhead_h) for series in played]
        found["optimum in hindsight"].append(sum(best) / len(best))
        print(deadline, {name: round(values[-1], 2) for name, values in found.items()}, flush=True)
    return found


def chart(found: Mapping[str, Sequence[float]]) -> str:
    """Return the drawing: slack in hours to the right, US dollars upwards from 0."""
    slack = [deadline - WORK_H for deadline in DEADLINES_H]
    high = 20.0 * -(-max(max(values) for values in found.values()) // 20)
    bottom = HEIGHT - 44
    x_scale, y_scale = (WIDTH - LEFT - RIGHT) / slack[-1], (bottom - TOP) / high
    parts = []
    for usd in range(0, int(high) + 1, 20):
        y = bottom - usd * y_scale
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(svg_text(LEFT - 8, y + 4, f"${usd}", "end"))
    hours = range(0, int(slack[-1]) + 1, 4)
    parts += [svg_text(LEFT + hour * x_scale, bottom + 18, str(hour), "middle") for hour in hours]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        svg_text(middle, bottom + 36, f"hours between {WORK_H:g} h of work and the deadline", "middle")
    )
    for i, (name, values) in enumerate(found.items()):
        points = " ".join(
            f"{LEFT + x * x_scale:.1f},{bottom - y * y_scale:.1f}" for x, y in zip(slack, values, strict=True)
        )
        parts.append(f'<polyline points="{points}" stroke="{COLOURS[i]}"/>')
        y = TOP + 12 + 20 * i
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 16}" y="{y - 10}" width="12" height="12" fill="{COLOURS[i]}"/>'
        )
        parts.append(svg_text(WIDTH - RIGHT + 34, y, name, "start"))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Cost against slack" '
        f'xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def main() -> int:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--overhead", type=float, default=0.2, help="hours")
    parser.add_argument("--step", type=int, default=12, help="play every STEP-th window only")
    arguments = parser.parse_args()
    harness = load(arguments.harness)
    played, fitted = FOLDS["east, spring"]
    fit(arguments.harness, lambda zone: is_in(zone, *fitted))
    arguments.output.write_text(chart(costs(harness, arguments.overhead, arguments.step, played)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
