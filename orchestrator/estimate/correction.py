"""An estimated training time, and its correction by history and by the training itself.

Calibrated on the machine itself (3 real steps; every time below in seconds):

    T = start + sum over modes E_m * (N / B) * t_m + n_opt * t_opt + first
        + V * (n_val * t_val) + E * t_save + PHI * n_val * t_val + final

with E_m epochs in mode m (mosaic, plain), N images in batches of B, n_opt optimiser steps of the replayed
accumulation, V validations. Without a measurement, one of two priors of the same shape is used, and marked as such.
docs/estimate.md has the source of each number and the errors measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import Kind, Ratio, RatioPrediction, predict
from gpu_offload.orchestrator.output.units import human_duration

Basis = Literal["calibrated", "prior, not measured", "a guess", "history", "measured while it trains"]

GUESS: Basis = "a guess"
"""Nothing was measured that it rests on: its interval is a choice, and no probability follows from it."""


INSTALLATION = "installation"
"""The part of a breakdown that earlier trainings' ratios do not correct."""

DRIFT = 0.03
"""Least relative uncertainty of the rest of a running training: machines drift."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated training time and its parts."""

    interval: Interval
    breakdown: Mapping[str, float]
    """Uncorrected seconds by part; their sum is `point` and the installation."""
    basis: Basis
    kind: Kind
    epoch_seconds: tuple[tuple[int, float], ...]
    """(epochs, seconds of each) in the order in which they are trained."""
    before: float
    """Seconds before the first epoch."""
    earliest_epochs: int
    """The first epoch after which early stopping can end it."""
    contention: float = 1.0
    """Of the calibration; 1.0 is a quiet machine."""
    notes: tuple[str, ...] = ()
    installation: Interval | None = None
    """What of the interval is for installing."""

    @property
    def point(self) -> float:
        """The uncorrected estimate in seconds, without installing; ratios of history refer to it."""
        return math.fsum(seconds for name, seconds in self.breakdown.items() if name != INSTALLATION)

    def with_installation(self, installation: Interval, notes: Sequence[str] = ()) -> "Estimate":
        """Return the estimate of a training for which something is installed first."""
        if not installation.high:
            return self
        return replace(
            self,
            interval=self.interval + installation,
            installation=installation,
            breakdown={INSTALLATION: installation.likely, **self.breakdown},
            notes=(*self.notes, *notes),
        )

    @property
    def epochs(self) -> int:
        """Number of epochs estimated."""
        return sum(count for count, _ in self.epoch_seconds)

    def epochs_seconds(self, first: int) -> float:
        """Return the uncorrected seconds of the first epochs, without start and end."""
        total, left = 0.0, first
        for count, seconds in self.epoch_seconds:
            total += min(count, left) * seconds
            left -= min(count, left)
        return total

    def point_after(self, epochs: int) -> float:
        """Return the uncorrected seconds of a training that ends after this many of its epochs."""
        return self.point - self.epochs_seconds(self.epochs) + self.epochs_seconds(epochs)


def correct(
    estimate: Estimate, history: Sequence[Ratio], kind: Kind | None = None, *, prior: float = 0.0
) -> Estimate:
    """Correct an estimate by `history`, ratios of the same key; an earlier correction is replaced.

    `prior` is what other kinds of training let expect (`shared_mean`); `kind` overrides the estimate's spread.
    """
    kind = kind or estimate.kind
    prediction = predict(kind, [r.log for r in history], [r.weight for r in history], prior=prior)
    full = prediction.interval(estimate.point)
    low, high = full.low, full.high
    notes = estimate.notes
    if estimate.earliest_epochs < estimate.epochs:
        low = min(low, prediction.interval(estimate.point_after(estimate.earliest_epochs)).low)
        note = f"early stopping could end it after {estimate.earliest_epochs} of {estimate.epochs} epochs"
        notes = notes if note in notes else (*notes, note)
    if estimate.contention > 1:
        # Quiet from now on, it is faster by as much; busier still, slower by as much.
        low, high = low / estimate.contention, high * estimate.contention
    if history:
        past = f"corrected by {len(history)} earlier training{'s' if len(history) > 1 else ''} of this kind"
        notes = (*(n for n in notes if not n.startswith("corrected by ")), past)
    return replace(
        estimate,
        interval=Interval(low, full.likely, high),
        basis="history" if history else estimate.basis,
        kind=kind,
        notes=notes,
    )


def correct_running(estimate: Estimate, epochs_done: int, seconds_so_far: float) -> Interval:
    """Return the whole training's interval after `epochs_done` epochs and `seconds_so_far` seconds of it.

    Each epoch counts as one more observation of this run's own ratio, so the interval narrows to the machine's drift.
    Raises ValueError: more epochs than planned, or a negative time.
    """
    if not 0 <= epochs_done <= estimate.epochs or not seconds_so_far >= 0:
        raise ValueError(f"{epochs_done} of {estimate.epochs} epochs in {seconds_so_far} s cannot be")
    if epochs_done == 0 or seconds_so_far == 0:
        full = estimate.interval
        return Interval(*(max(bound, seconds_so_far) for bound in (full.low, full.likely, full.high)))
    predicted = estimate.before + estimate.epochs_seconds(epochs_done)
    log = math.log(seconds_so_far / max(predicted, 1e-3))
    prediction = predict(estimate.kind, [log] * epochs_done)
    prediction = RatioPrediction(prediction.mean, max(prediction.scale, DRIFT), prediction.freedom)
    rest = prediction.interval(estimate.point - predicted if estimate.point > predicted else 0.0)
    low = rest.low
    if epochs_done < estimate.epochs:
        soonest = estimate.point_after(max(epochs_done, estimate.earliest_epochs)) - predicted
        low = min(low, prediction.interval(max(0.0, soonest)).low)
    return Interval(low, rest.likely, rest.high) + seconds_so_far


def remaining_note(interval: Interval, seconds_so_far: float) -> str:
    """Describe the time left: `about 12 min left (9 min 30 s to 15 min)`."""
    left = [max(0.0, bound - seconds_so_far) for bound in (interval.likely, interval.low, interval.high)]
    likely, low, high = map(human_duration, left)
    return f"about {likely} left ({low} to {high})"
