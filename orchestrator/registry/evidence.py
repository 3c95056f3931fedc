"""Whether a new version is good enough for `stable`: a floor, and no worse than the version in use."""

import math
from collections.abc import Mapping
from typing import Any

from gpu_offload.orchestrator.output.metrics import label, named
from gpu_offload.orchestrator.output.units import human_number
from gpu_offload.orchestrator.registry.manifest import Manifest
from gpu_offload.orchestrator.registry.publish import Verdict
from gpu_offload.orchestrator.settings.types import Goal

MAIN = ("map50_95", "accuracy", "map50")
"""Metrics that models are judged by unless the configuration says otherwise: the first that a model has."""

COLLAPSE = 0.5
"""Share of the old figure that may be lost between different images. Two validation sets differ by more than any useful
tolerance, but a model that loses half, or makes twice the error, is broken."""

ROUNDING = 1e-9
"""In floating point, 0.50 - 0.48 is more than 0.02."""


def metric_of(manifest: Manifest, configured: str | None) -> str | None:
    """Return the metric that a version is judged by; None if it has no such metric."""
    return next((name for name in ((configured,) if configured else MAIN) if name in manifest.metrics), None)


def judge(
    new: Manifest,
    stable: Manifest | None,
    paired: Mapping[str, Any] | None,
    *,
    metric: str | None,
    goal: Goal = "maximize",
    floor: float | None,
    tolerance: float,
) -> Verdict:
    """Decide whether a version is promoted over the one in use (None: it is the first).

    `paired` has the figures of both on the same images: `old`, `new`, `low` and `high` of the difference, `images`.
    Without it, their own validations are compared: of the same data by `tolerance`, of different data only for a collapse.
    """
    name = metric_of(new, metric)
    if name is None:
        # A training drops metrics that are not finite. The user's own training code need not report any.
        is_expected = metric or "ultralytics" in new.environment or (stable and metric_of(stable, metric))
        asked = f"the metric {metric}" if metric else "a metric to judge by"
        others = [n for n in named(new.metrics) if n != metric]
        hint = f"; set registry.metric to what it has: {', '.join(others)}" if others else ""
        return Verdict(promoted=not is_expected, why=f"it does not have {asked}{hint}")
    value = float(paired["new"]) if paired else new.metrics[name]
    shown = label(name)
    evidence: dict[str, Any] = {"metric": name, "new": value, "floor": floor, "tolerance": tolerance}
    sign = 1 if goal == "maximize" else -1
    if not math.isfinite(value):
        return Verdict(promoted=False, why=f"{shown} {human_number(value)} is not finite", evidence=evidence)
    if floor is not None and sign * value < sign * floor:
        side = "below" if goal == "maximize" else "above"
        why = f"{shown} {human_number(value)} is {side} the floor {human_number(floor)}"
        return Verdict(promoted=False, why=why, evidence=evidence)
    if stable is None:
        why = f"{shown} {human_number(value)}; there is no version in use to compare with"
        return Verdict(promoted=True, why=why, evidence=evidence)
    old = float(paired["old"]) if paired else stable.metrics.get(name)
    if old is None:
        why = f"{shown} {human_number(value)}; the version before was not judged by it"
        return Verdict(promoted=True, why=why, evidence=evidence)
    same = paired is not None or new.fingerprint == stable.fingerprint
    evidence |= {"old": old, "against": stable.version, "method": "paired" if paired else "own validations"}
    how = f"by their own validations, of {'the same' if same else 'different'} images"
    if paired:
        evidence |= {key: paired[key] for key in ("low", "high", "images", "split") if key in paired}
        how = (
            f"on the same {paired['images']} images; 95 % interval of the difference "
            f"{paired['low']:+.3f} to {paired['high']:+.3f}"
        )
    difference = value - old
    allowed = tolerance if same else max(tolerance, abs(old) * (COLLAPSE if goal == "maximize" else 1))
    text = f"{shown} {human_number(value)} against {human_number(old)} ({difference:+.3f}) {how}"
    if sign * difference < -allowed - ROUNDING:
        return Verdict(promoted=False, why=f"worse by more than {allowed:.3f}: {text}", evidence=evidence)
    return Verdict(promoted=True, why=text, evidence=evidence)
