"""Names, order and labels of metrics."""

import re
from collections.abc import Mapping

NAMES = {"map50": "mAP50", "map50_95": "mAP50-95", "top1": "top-1 accuracy", "top5": "top-5 accuracy"}
"""Metrics as the field writes them."""


def named(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics as the field names them, the most telling first.

    The trainer's own names (`metrics/mAP50(B)`, `fitness`) are left out where the same numbers stand under ours.
    """
    ours = {n: v for n, v in metrics.items() if "/" not in n and n != "fitness"} or metrics
    return {NAMES.get(name, name): ours[name] for name in sorted(ours, key=display_order)}


def display_order(name: str) -> tuple[int, str]:
    """Return the sort key that puts the main metrics first."""
    order = list(NAMES)
    return (order.index(name) if name in order else len(order), name)


def curve_name(name: str) -> str:
    """Write a curve's name as the field does: `metrics/mAP50(B)` is `mAP50`, `train/box_loss` is `train box loss`."""
    group, slash, rest = name.partition("/")
    plain = re.sub(r"\([A-Z]\)$", "", rest if slash else name)
    return plain if group == "metrics" or not slash else f"{group} {plain}".replace("_", " ")
