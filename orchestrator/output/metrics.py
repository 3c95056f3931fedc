"""The one vocabulary of metrics: names, labels and order, for every place that shows them."""

import re
from collections.abc import Mapping

from gpu_offload.orchestrator.output.units import human_number

LABELS = {
    "map50": "mAP50",
    "map50_95": "mAP50-95",
    "mask_map50": "mask mAP50",
    "mask_map50_95": "mask mAP50-95",
    "pose_map50": "pose mAP50",
    "pose_map50_95": "pose mAP50-95",
    "accuracy": "top-1 accuracy",
    "accuracy_top5": "top-5 accuracy",
    "precision": "precision",
    "recall": "recall",
}
"""What our trainings publish, in the order in which it is shown. Other names are shown as they are, after these."""

COUNTS = frozenset({"images"})
"""Values by class that our trainings publish beside the metrics and that are whole numbers."""

SHORT = 3
"""Metrics in a line of text."""

_PARTS = {"": "", "(B)": "", "(M)": "mask ", "(P)": "pose "}
"""Ultralytics' suffixes: box, mask, pose."""


def published_by(task: str | None) -> tuple[str, ...]:
    """Return the metrics that our trainings for a task publish; None: for any task."""
    parts = {"detect": (), "segment": ("mask_",), "pose": ("pose_",)}
    if task is None:
        return tuple(LABELS)
    if task not in parts:
        return tuple(name for name in LABELS if name.startswith("accuracy"))
    others = tuple({"accuracy", "mask_", "pose_"} - set(parts[task]))
    return tuple(name for name in LABELS if not name.startswith(others))


def named(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by their labels, the main ones first, without Ultralytics' duplicates of ours."""
    shown = own_metrics(metrics)
    return {label(name): shown[name] for name in sorted(shown, key=display_order)}


def metric_table(metrics: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return a row for each metric, by the label that it has already."""
    return [("metric", "value"), *((name, human_number(value, 4)) for name, value in metrics.items())]


def class_table(per_class: Mapping[str, Mapping[str, float]], digits: int = 4) -> list[tuple[str, ...]]:
    """Return a row for each class, and a column for each of its metrics."""
    shown = {kind: own_metrics(metrics) for kind, metrics in per_class.items()}
    names = sorted({name for metrics in shown.values() for name in metrics}, key=display_order)
    rows = [
        (
            kind,
            *(
                human_number(metrics[name], digits_of(name, digits)) if name in metrics else ""
                for name in names
            ),
        )
        for kind, metrics in shown.items()
    ]
    return [("class", *map(label, names)), *rows]


def digits_of(name: str, digits: int = 4) -> int:
    """Return how many decimals a value is shown with: none for a count."""
    return 0 if name in COUNTS else digits


def own_metrics(metrics: Mapping[str, float]) -> Mapping[str, float]:
    """Return metrics by our names, without Ultralytics' own for the same numbers."""
    theirs = {name for name in metrics if name.startswith("metrics/")}
    # `fitness` is Ultralytics' weighted sum of its own metrics.
    ours = {n: v for n, v in metrics.items() if n not in theirs and not (theirs and n == "fitness")}
    return ours or metrics


def label(name: str) -> str:
    """Return how a metric is written."""
    return LABELS.get(name, name)


def display_order(name: str) -> tuple[int, str]:
    """Return the sort key that puts the main metrics first."""
    order = list(LABELS)
    return (order.index(name) if name in order else len(order), name)


def is_share(name: str) -> bool:
    """Return whether a label is of a metric that runs from 0, nothing learnt, to 1."""
    return name in LABELS.values()


def score_text(metrics: Mapping[str, float]) -> str:
    """Return the main metrics in a line: `mAP50 0.371  mAP50-95 0.212`."""
    return "  ".join(f"{name} {human_number(value)}" for name, value in list(named(metrics).items())[:SHORT])


def main_curve(curves: Mapping[str, object]) -> str | None:
    """Return which of some labelled curves says best how good the model is; None where none is a known metric."""
    return next((name for name in LABELS.values() if name in curves), None)


def curve_name(name: str) -> str:
    """Return a curve's label: `metrics/mAP50(M)` is `mask mAP50`, `train/box_loss` is `train box loss`."""
    group, slash, rest = name.partition("/")
    if group == "metrics" and slash and (match := re.fullmatch(r"(.*?)(\([A-Z]\))?", rest)):
        # Ultralytics' name for what we publish as `accuracy`.
        plain = {"accuracy_top1": "accuracy"}.get(match[1], match[1])
        return _PARTS.get(match[2] or "", "") + label(plain)
    if group in {"train", "val", "lr"} and slash:
        return f"{group} {rest}".replace("_", " ")
    return label(name)
