"""Whether a training learned its images by heart: its own loss fell on while that of the validation rose."""

from collections.abc import Mapping

PATIENCE = 0.2
"""Share of the epochs that the validation loss must lie behind its lowest before that is called over-fitting."""

LEAST = 3
RISE = 1.05
"""How much above its lowest the validation loss must end; less is the noise of a small validation split."""


def overfitting(curves: Mapping[str, tuple[float, ...]]) -> str | None:
    """Return what the losses (by name, a value an epoch) say about over-fitting, in a clause; None if nothing.

    Losses of both training and validation are summed: Ultralytics' `train/box_loss` and `val/box_loss`, or one's own.
    """
    names = [name.removeprefix("train/") for name in curves if name.startswith("train/") and "loss" in name]
    pairs = [(curves[f"train/{name}"], curves[f"val/{name}"]) for name in names if f"val/{name}" in curves]
    if not pairs:
        return None
    epochs = min(len(values) for pair in pairs for values in pair)
    own = [sum(train[epoch] for train, _ in pairs) for epoch in range(epochs)]
    held_out = [sum(val[epoch] for _, val in pairs) for epoch in range(epochs)]
    best = min(range(epochs), key=held_out.__getitem__, default=0)
    since = epochs - 1 - best
    if since < max(LEAST, epochs * PATIENCE):
        return None
    if held_out[best] <= 0 or held_out[-1] < RISE * held_out[best] or own[-1] >= own[best]:
        return None
    rise = held_out[-1] / held_out[best] - 1
    return (
        f"over-fitting: the validation loss was lowest in epoch {best + 1} of {epochs} and has risen by {rise:.0%} since, "
        "while the training loss fell; fewer epochs, or more images, may do better. The best epoch is what is published"
    )
