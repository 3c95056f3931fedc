"""Compares two models on the same held-out images of a training tree, with a paired bootstrap interval.

python -m gpu_offload.remote_job.yolo.evaluation OLD.pt NEW.pt TREE METRIC IMAGE_SIZE BATCH OUT.json

The test images if the tree has any, else the validation images. Writes a JSON object: `metric`, `old`, `new`, `low`, `high`
(of new minus old), `images`, `split`.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree_manifest import TreeInfo, read_tree
from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.data import prepare
from gpu_offload.remote_job.speed import compiler
from gpu_offload.remote_job.yolo.bootstrap import Detections, Score, accuracy, paired

THRESHOLDS = {"map50": slice(0, 1), "map50_95": slice(0, 10)}
"""Of the ten IoU thresholds 0.50, 0.55 ... 0.95 that Ultralytics matches at."""

PARTS = {"": "tp", "mask_": "tp_m", "pose_": "tp_p"}


class EvaluationError(OffloadError):
    """Two models cannot be compared."""


def compare(old: Path, new: Path, tree: Path, metric: str, *, image_size: int, batch: int) -> dict[str, Any]:
    """Evaluate two models on the same images.

    Args:
        old: A published model, verified by its sha256.
        new: Another.
        tree: A training tree; see `dataset.tree`.
        metric: `map50_95`, `map50`, either with `mask_` or `pose_` before it, or `accuracy`.
        image_size: Side of the square that images are scaled to.
        batch: Images a step.

    Raises:
        EvaluationError: The models know different classes than the tree, or there are no held-out images.
        DatasetError: There is no training tree.
    """
    info = read_tree(tree)
    split = "test" if info.images["test"] else "val"
    if not info.images[split]:
        raise EvaluationError("the dataset holds no images out of the training")
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        from gpu_offload.remote_job.yolo.isolation import isolate, offline

        isolate(Path(scratch) / ".ultralytics")
        data = prepare(tree, task=info.task, fingerprint=info.fingerprint, output=Path(scratch))
        with offline():
            given = {
                "data": str(data.argument),
                "split": split,
                "imgsz": image_size,
                "batch": batch,
                "project": scratch,
            }
            (before, images), (after, _) = (_score(path, info, metric, given) for path in (old, new))
    result = paired(before, after, images)
    return {"metric": metric, "split": split, **asdict(result)}


def _score(path: Path, info: TreeInfo, metric: str, given: dict[str, Any]) -> tuple[Score, int]:
    """Return a model's metric as a function of the images' weights, and how many images there are."""
    from ultralytics import YOLO

    network = YOLO(path)
    if tuple(network.names.values()) != info.classes or str(network.task) != str(info.task):
        raise EvaluationError(f"{path.name} knows other classes than the dataset, or is for another task")
    # Ultralytics sums its statistics over all images; a bootstrap needs those of each.
    seen: list[Any] = []
    network.add_callback("on_val_start", lambda validator: _record(validator, seen))
    network.add_callback(
        "on_val_end", lambda validator: seen.append(validator) if info.task is Task.CLASSIFY else None
    )
    network.val(**given, plots=False, verbose=False, workers=0, name=path.stem, exist_ok=True)
    if info.task is Task.CLASSIFY:
        (validator,) = seen
        found = np.concatenate([part[:, 0].cpu().numpy() for part in validator.pred])
        truth = np.concatenate([part.cpu().numpy() for part in validator.targets])
        return accuracy(found == truth), len(truth)
    return _detections(seen, metric, len(info.classes)).score(), len(seen)


def _record(validator: Any, seen: list[Any]) -> None:
    """Keep what a validator finds on each image; its own statistics are over all of them."""
    add = getattr(validator.metrics, "update_stats", None)
    if add is None:
        return

    def update_stats(stat: dict[str, Any]) -> None:
        seen.append(stat)
        add(stat)

    validator.metrics.update_stats = update_stats


def _detections(seen: list[dict[str, Any]], metric: str, classes: int) -> Detections:
    prefix, _, name = metric.rpartition("map")
    columns = THRESHOLDS[f"map{name}"]
    objects = np.zeros((len(seen), classes))
    for image, stat in enumerate(seen):
        objects[image] = np.bincount(np.asarray(stat["target_cls"], dtype=int), minlength=classes)[:classes]
    # reshape: an image without a detection has an empty array of one dimension.
    hits = [np.asarray(stat[PARTS[prefix]], dtype=bool).reshape(-1, 10)[:, columns] for stat in seen]
    return Detections(
        image=np.repeat(np.arange(len(seen)), [len(hit) for hit in hits]),
        confidence=np.concatenate([np.asarray(stat["conf"], dtype=float) for stat in seen]),
        label=np.concatenate([np.asarray(stat["pred_cls"], dtype=int) for stat in seen]),
        hit=np.concatenate(hits),
        objects=objects,
    )


def main() -> None:
    """Compare two models by the command's arguments, and write the result."""
    old, new, tree, metric, image_size, batch, target = sys.argv[1:]
    try:
        with compiler.left_out():
            found = compare(
                Path(old), Path(new), Path(tree), metric, image_size=int(image_size), batch=int(batch)
            )
    except OffloadError as error:
        sys.exit(str(error))
    Path(target).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
