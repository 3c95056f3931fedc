"""What a warm start brings: epochs and seconds to the same mAP, after a fifth of the images was added.

    python benchmarks/warm_start.py --data FOLDER [--image-size 160] [--epochs 30] [--keep FOLDER]

Trainings of the same definition, size, batch and seed, judged on the same validation images: `before` from random weights on
five sixths of the training images, then on all of them once from random weights (`scratch`), once from the weights of
`before` (`warm`), and once from these by the rule of `init-from` (`rule`): half of the epochs, and a patience. With `--keep` a training that is done is not repeated, so that the benchmark may be run in
pieces (`--only before`).
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.orchestrator.plan.warm_start import FEWER, LEAST_PATIENCE, PATIENCE
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec, Weights
from gpu_offload.remote_job.train import train

RUNS = (("before", "before"), ("scratch", "after"), ("warm", "after"), ("rule", "after"))
"""Trainings, and the tree of each."""

METRIC = "metrics/mAP50(B)"
SHARES = (0.5, 0.8, 0.9, 1.0)
"""Of the best mAP50 of `scratch`; how soon each is reached."""


def trees(options, folder):
    """Lay out the dataset with and without a sixth of its training images."""
    classes = tuple(options.classes.split(","))
    for name in ("after", "before"):
        raw = folder / f"raw-{name}"
        if not raw.exists():
            shutil.copytree(options.data, raw)
            (raw / "classes.txt").write_text("\n".join(classes) + "\n")
        if name == "before":
            snapshot = read_snapshot(folder / "raw-after", task=Task.DETECT)
            training = [sample for sample in snapshot.samples if sample.split == "train"]
            for sample in training[::6]:
                (raw / sample.image).unlink(missing_ok=True)
                (raw / sample.image).with_suffix(".txt").unlink(missing_ok=True)
        yield name, materialise(read_snapshot(raw, task=Task.DETECT), folder / f"tree-{name}")


def run(options, folder, name, tree, start=None):
    """Train, unless that is done; return mAP50 and wall seconds, one value an epoch."""
    output = folder / name
    info = read_tree(tree)
    epochs, more = options.epochs, {}
    if name == "rule":
        epochs = math.ceil(epochs * FEWER)
        more = {"patience": max(LEAST_PATIENCE, math.ceil(epochs * PATIENCE))}
    spec = TrainingSpec(
        run=name, attempt=1, training_key=name, task=info.task, model=options.model, epochs=epochs,
        dataset=DatasetRef(fingerprint=info.fingerprint, tree=str(tree)), image_size=options.image_size,
        batch=options.batch, seed=0, hyperparameters={"plots": False, **more}, output=str(output),
        weights=Weights(sha256=sha256_of(start), path=str(start)) if start else None,
    )  # fmt: skip
    train(spec)
    lines = (output / "progress.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "epoch"]
    return [event["metrics"][METRIC] for event in events], [event["seconds"] for event in events]


def reached(curve, seconds, wanted):
    """Return epochs and seconds until a mAP50 was reached, None where it was not."""
    for epoch, value in enumerate(curve):
        if value >= wanted:
            return f"{epoch + 1} epochs, {sum(seconds[: epoch + 1]):.0f} s"
    return "not"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a flat folder of images and YOLO labels")
    parser.add_argument("--classes", default="finger,thumb,marker", help="of --data")
    parser.add_argument("--model", default="yolov8n.yaml")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="where trainings are kept")
    parser.add_argument("--only", choices=[name for name, _ in RUNS], help="train this one only")
    parser.add_argument("--without", nargs="*", default=(), choices=["warm", "rule"], help="leave these out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="warm-start-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        made = dict(trees(options, folder))
        start = folder / "before" / "result" / "model.pt"
        found = {}
        for name, tree in RUNS:
            if options.only in {None, name} and name not in options.without:
                starts = start if name in {"warm", "rule"} else None
                found[name] = run(options, folder, name, made[tree], starts)
        if options.only:
            return
        images = {name: read_tree(tree).images for name, tree in made.items()}
        best = max(found["scratch"][0])
        rows = [
            {
                "mAP50": round(share * best, 3),
                "of the best from scratch": f"{share:.0%}",
                **{name: reached(*found[name], share * best) for name in found if name != "before"},
            }
            for share in SHARES
        ]
        last = {name: round(max(curve), 4) for name, (curve, _) in found.items()}
        json.dump({"images": images, "best": last, "rows": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
