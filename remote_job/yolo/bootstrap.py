"""How certain a difference between two models is: the paired bootstrap over the images that both were shown.

Both models are scored on the same resample of the images, so that hard images weigh on both alike. B. Efron, R. Tibshirani,
An Introduction to the Bootstrap (1993), chapter 8; Berg-Kirkpatrick et al., EMNLP 2012, for the paired form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 400
Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], float]
"""Takes how often each image counts, and returns a metric."""

RECALLS = np.linspace(0, 1, 101)
"""COCO's and Ultralytics' 101 points of a precision-recall curve."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Metrics of two models on the same images, and the interval of new minus old."""

    old: float
    new: float
    low: float
    high: float
    images: int


def paired(old: Score, new: Score, images: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Paired:
    """Compare two models; the interval is that of 95 % of the resamples."""
    chance = np.random.default_rng(seed)
    ones = np.ones(images)
    differences = []
    for _ in range(resamples):
        counts = np.bincount(chance.integers(0, images, images), minlength=images).astype(float)
        differences.append(new(counts) - old(counts))
    low, high = np.quantile(differences, [0.025, 0.975])
    return Paired(old(ones), new(ones), float(low), float(high), images)


def accuracy(correct: npt.NDArray[np.bool_]) -> Score:
    """Return the share of images whose class was found, as a function of the images' weights."""
    return lambda counts: float(counts @ correct / counts.sum())


@dataclass(frozen=True)
class Detections:
    """What a detector found on a set of images, and what there was to find.

    Attributes:
        image: The image of each detection, by position; shape (n,), as `confidence` and `label`.
        hit: Whether a detection counts at each IoU threshold; shape (n, thresholds).
        objects: How many objects of each class each image has; shape (images, classes).
    """

    image: npt.NDArray[np.int64]
    confidence: Floats
    label: npt.NDArray[np.int64]
    hit: npt.NDArray[np.bool_]
    objects: Floats

    def score(self) -> Score:
        """Return the mean average precision over classes and thresholds, as a function of the images' weights."""
        order = np.argsort(-self.confidence, kind="stable")
        image, label, hit = self.image[order], self.label[order], self.hit[order]
        of_class = [np.flatnonzero(label == c) for c in range(self.objects.shape[1])]

        def mean(counts: Floats) -> float:
            totals = counts @ self.objects
            values = [
                _average_precision(counts[image[rows]], hit[rows], totals[c])
                for c, rows in enumerate(of_class)
                if totals[c] > 0
            ]
            return float(np.mean(values)) if values else 0.0

        return mean


def _average_precision(weight: Floats, hit: npt.NDArray[np.bool_], total: float) -> float:
    """Return the average precision of one class, detections in order of confidence, over all thresholds."""
    if not len(weight):
        return 0.0
    found = np.cumsum(hit * weight[:, None], axis=0)
    shown = np.cumsum(weight)[:, None]
    recall = found / total
    precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
    areas = []
    for i in range(hit.shape[1]):
        # Nothing is found beyond the last recall: the curve falls to 0 there.
        curve_r = np.concatenate(([0.0], recall[:, i], [recall[-1, i], 1.0]))
        curve_p = np.concatenate(([1.0], precision[:, i], [0.0, 0.0]))
        envelope = np.flip(np.maximum.accumulate(np.flip(curve_p)))
        areas.append(np.trapezoid(np.interp(RECALLS, curve_r, envelope), RECALLS))
    return float(np.mean(areas))
