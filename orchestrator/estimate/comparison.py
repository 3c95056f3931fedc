"""How long it takes to compare a new model with the published `stable`, once it is published."""

from gpu_offload.orchestrator.estimate.correction import Estimate
from gpu_offload.orchestrator.estimate.formula import load_seconds
from gpu_offload.orchestrator.estimate.installation import NOTHING
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.workload import Workload

START_S = 2.3
"""A process that loads Ultralytics and both models, and draws the bootstrap's samples."""
PLAIN = 2.0
"""What an image takes in single precision, in final validations, which compute in half of it where the processor can."""
SPREAD = 1.8
"""Bounds of the interval, as a factor: a choice, not a measurement."""


def comparison(work: Workload, here: Estimate, images: int, *, slowness: float = 1.0) -> Interval:
    """Return the seconds of a comparison on so many held-out images, on the machine of the command.

    Both models find objects on each image, like the final validation of the training estimated `here`; no image is cached.
    `slowness` is how much longer this machine runs Python than the one that was measured.
    """
    if not images:
        return NOTHING
    found = here.breakdown.get("final validation", 0.0) / max(1, work.val_images)
    likely = START_S * slowness + 2 * images * (PLAIN * found + load_seconds(work, mosaic=False))
    return Interval(likely / SPREAD, likely, likely * SPREAD)
