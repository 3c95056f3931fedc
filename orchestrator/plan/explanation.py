"""The terms of an estimate, for `offload estimate explain`."""

import math
from typing import Any

from gpu_offload.orchestrator.output.table import text_table, wrapped
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.option import Option, PlanReport
from gpu_offload.orchestrator.plan.receipt import BASES, compared

LEAST_S = 0.05
"""Terms below it are left out."""


def explanation_text(report: PlanReport, *, width: int = 80) -> str:
    """Render the terms of the CPU's estimate and of the best GPU's."""
    parts = [_terms(option, width) for option in compared(report)]
    notes = [wrapped(note, width=width, indent="  - ", hanging="    ") for note in report.notes]
    return "\n\n".join([*parts, "\n".join(["Based on:", *notes])])


def _terms(option: Option, width: int) -> str:
    shown = {name: seconds for name, seconds in option.breakdown.items() if seconds >= LEAST_S}
    total = math.fsum(option.breakdown.values())
    rows = [(option.offer.name, "time", "share")]
    rows += [
        (name, human_duration(seconds), f"{seconds / total:.0%}" if total else "")
        for name, seconds in shown.items()
    ]
    rows.append(("the sum", human_duration(total), ""))
    likely = option.interval.likely
    # Less would be shown as +0 %.
    if total and abs(likely / total - 1) >= 0.005:
        rows.append((f"corrected by history, {likely / total - 1:+.0%}", human_duration(likely), ""))
    bounds = f"{human_duration(option.interval.low)} to {human_duration(option.interval.high)}"
    basis = f"times: {BASES.get(option.basis, option.basis)}"
    told = wrapped(f"eight in ten take {bounds}; {basis}", width=width, indent="   ", hanging="   ")
    return f"{text_table(rows, width=width)}\n{told}"


def explanation_json(report: PlanReport) -> dict[str, Any]:
    """Return the object of `offload estimate explain --json`."""
    return {
        "options": [
            {
                "where": option.offer.name,
                "basis": option.basis,
                "seconds": option.interval.json(),
                "terms": {name: round(seconds, 3) for name, seconds in option.breakdown.items()},
            }
            for option in compared(report)
        ],
        "notes": list(report.notes),
    }
