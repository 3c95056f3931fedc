"""A training of one's own: softmax regression on tiny grey pictures, with nothing but Pillow.

    [training]
    entrypoint = "softmax_regression:train"
    model = "softmax.yaml"
    hyperparameters = {learning_rate = 0.5}

It keeps the whole contract of docs/bring-your-own.md: it reports progress, saves a checkpoint after each epoch,
resumes from it, stops when it is told to, and yields the same model whether it was interrupted or not.
"""

import json
import math
import random
from pathlib import Path

from PIL import Image

from gpu_offload.remote_job.entrypoint import Trained, TrainingContext

SIDE = 12


def read(folder: Path) -> tuple[list[list[float]], list[int], list[str]]:
    """Return pictures as rows of brightness, their classes' numbers, and the classes' names."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    rows, labels = [], []
    for label, name in enumerate(names):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as image:
                grey = image.convert("L").resize((SIDE, SIDE))
            rows.append([value / 255 - 0.5 for value in grey.tobytes()] + [1.0])
            labels.append(label)
    return rows, labels, names


def probabilities(weights: list[list[float]], row: list[float]) -> list[float]:
    """Return how likely each class is."""
    scores = [sum(w * x for w, x in zip(column, row, strict=True)) for column in weights]
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def accuracy(weights: list[list[float]], rows: list[list[float]], labels: list[int]) -> float:
    """Return the share of pictures whose likeliest class is theirs."""
    right = 0
    for row, label in zip(rows, labels, strict=True):
        likely = probabilities(weights, row)
        right += likely.index(max(likely)) == label
    return right / max(1, len(rows))


def train(context: TrainingContext) -> Trained | None:
    """Train, from the checkpoint if there is one."""
    spec = context.spec
    rows, labels, names = read(context.tree / "train")
    seen_rows, seen_labels, _ = read(context.tree / "val")
    rate = float(spec.hyperparameters.get("learning_rate", 0.5))
    weights = [[0.0] * (SIDE * SIDE + 1) for _ in names]
    if (checkpoint := context.resume()) is not None:
        weights = json.loads(checkpoint.read_text())
    batches = math.ceil(len(rows) / spec.batch)
    for epoch in range(context.epochs_completed + 1, spec.epochs + 1):
        # The order of an epoch follows from seed and epoch alone, so that a resumed training goes the same way.
        order = list(range(len(rows)))
        random.Random(f"{spec.seed}/{epoch}").shuffle(order)  # noqa: S311 - an order, no secret
        loss = 0.0
        for batch in range(batches):
            chosen = order[batch * spec.batch : (batch + 1) * spec.batch]
            for index in chosen:
                likely = probabilities(weights, rows[index])
                loss -= math.log(max(likely[labels[index]], 1e-9)) / len(rows)
                for label, column in enumerate(weights):
                    slope = likely[label] - (label == labels[index])
                    for place, value in enumerate(rows[index]):
                        column[place] -= rate * slope * value / len(chosen)
            context.progress(epoch=epoch, batch=batch + 1, batches=batches, losses={"cross_entropy": loss})
            if context.interrupted():
                return None  # this epoch is repeated; the last one's checkpoint is safe
        reached = accuracy(weights, seen_rows, seen_labels)
        context.epoch(epoch, metrics={"accuracy": reached}, losses={"cross_entropy": loss})
        kept = context.output / "weights.json"
        kept.write_text(json.dumps(weights))
        context.checkpoint(kept, epochs_completed=epoch)
    model = context.output / "model.json"
    model.write_text(json.dumps({"side": SIDE, "classes": names, "weights": weights}))
    return Trained(model=model, metrics={"accuracy": accuracy(weights, seen_rows, seen_labels)})
