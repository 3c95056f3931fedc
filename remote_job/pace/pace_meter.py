"""Takes the time of a training's own steps, from which the rest of it is estimated."""

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpu_offload.remote_job.pace.meter import Reading, read
from gpu_offload.remote_job.result import ModePace, Pace

STEPS = 3
"""Steps of a mode, after the first of all, that are enough where they agree."""
MOST_STEPS = 10
"""Steps after which it is enough even where they disagree."""
AGREEMENT = 0.1
"""Relative spread up to which steps agree."""
WINDOW = 200
"""The most recent steps of a mode that count."""
SHARE_STEPS = 50
"""The most recent steps of a mode that say what share of the cores there is."""
MANY = 8
"""Values from which on a mean without the extremes is better than the median."""
CUT = 0.1
"""Share of the values that is cut off at each end."""
BOOKKEEPING = 0.1
"""Seconds an epoch between its parts, until they were measured: tables, progress, garbage."""


@dataclass(frozen=True, slots=True)
class TimedStep:
    """One batch: what it took, the part of it that the optimizer took, and whether its pictures were new."""

    took: Reading
    optimizer: float
    decodes: bool

    def seconds(self, decoding: float) -> float:
        """Return the wall seconds without the optimizer, as later epochs take them."""
        return max(1e-6, self.took.wall - self.optimizer - (decoding if self.decodes else 0.0))


@dataclass(slots=True)
class PaceMeter:
    """The times of one training's steps; what else the estimate needs is set from outside.

    Attributes:
        ready: Seconds from the process's start to the first batch.
        steady: Of these, what does not depend on the training's length.
        batches: Of an epoch.
        other: What a batch takes more in the mode that has not begun yet, in seconds.
        decoding: What a batch of the first epoch takes more than a later one, in seconds.
        validation: Seconds of a validation image.
        save: Seconds of a checkpoint.
        final: Seconds of the end, beside the final validation.
        between: Seconds an epoch between its parts.
        announced: Whether the pace was reported.
    """

    clock: Callable[[], Reading] = read
    ready: float = 0.0
    steady: float = 0.0
    batches: int = 0
    final: float = 0.0
    other: float | None = None
    decoding: float = 0.0
    validation: float | None = None
    save: float | None = None
    between: float = BOOKKEEPING
    announced: bool = False
    _steps: dict[str, deque[TimedStep]] = field(default_factory=dict)
    _optimizer: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _first: float | None = None
    _first_optimizer: float = 0.0
    _began: Reading | None = None
    _in_optimizer: float = 0.0

    def begin(self) -> None:
        """Begin a step here: at the start of an epoch, or after something that belongs to no step."""
        self._began = self.clock()
        self._in_optimizer = 0.0

    def optimized(self, seconds: float) -> None:
        """Take in an optimizer step of the batch in progress."""
        self._in_optimizer += seconds

    def step(self, mode: str, *, decodes: bool) -> None:
        """End the step in progress, and begin the next."""
        now = self.clock()
        if self._began is not None:
            step = TimedStep(now.since(self._began), self._in_optimizer, decodes)
            if self._first is None:
                # It warms up, and says nothing about the others, but may be the only one before many are accumulated.
                self._first, self._first_optimizer = step.took.wall, self._in_optimizer
            else:
                self._steps.setdefault(mode, deque(maxlen=WINDOW)).append(step)
                if self._in_optimizer:
                    self._optimizer.append(self._in_optimizer)
        self._began, self._in_optimizer = now, 0.0

    @property
    def is_enough(self) -> bool:
        """Whether the steps so far are enough for an estimate: they agree, or more of them would not help."""
        steps = max(self._steps.values(), key=len, default=())
        if len(steps) < STEPS:
            return False
        return len(steps) >= MOST_STEPS or spread([step.seconds(0.0) for step in steps]) <= AGREEMENT

    def share(self, last: int = SHARE_STEPS) -> float:
        """Return the share of its processor time that the last steps got."""
        latest = [step.took for steps in self._steps.values() for step in list(steps)[-last:]]
        return Reading(0.0, sum(took.cpu for took in latest), sum(took.waited for took in latest)).share

    def forget(self) -> None:
        """Forget the steps so far: what comes now takes another time."""
        self._steps.clear()
        self._optimizer.clear()

    def pace(self) -> Pace | None:
        """Return what is known so far; None before the second step."""
        modes = {
            mode: self._mode([step.seconds(self.decoding) for step in steps])
            for mode, steps in self._steps.items()
        }
        if not modes:
            return None
        if self.other is not None and len(modes) == 1:
            ((mode, known),) = modes.items()
            unseen = "plain" if mode == "mosaic" else "mosaic"
            modes[unseen] = known.model_copy(
                update={"batch": max(1e-6, known.batch + self.other), "steps": 0}
            )
        return Pace.measured(
            ready=round(self.ready, 4),
            steady=round(self.steady, 4),
            batches=self.batches,
            mosaic=modes.get("mosaic"),
            plain=modes.get("plain"),
            decoding=round(self.decoding, 5),
            optimizer=round(statistics.median(self._optimizer or [self._first_optimizer]), 5),
            validation=self.validation,
            save=None if self.save is None else round(self.save + self.between, 4),
            final=self.final,
            share=round(self.share(), 4),
        )

    @staticmethod
    def _mode(seconds: Sequence[float]) -> ModePace:
        return ModePace(batch=round(usual(seconds), 5), spread=round(spread(seconds), 4), steps=len(seconds))


def usual(values: Sequence[float]) -> float:
    """Return the usual one of some times: their median, or, of many, their mean without the extremes."""
    if len(values) < MANY:
        return statistics.median(values)
    cut = max(1, int(len(values) * CUT))
    return statistics.fmean(sorted(values)[cut:-cut])


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation relative to the median; of many by their quartiles, so that outliers do not count."""
    middle = max(statistics.median(values), 1e-9)
    if len(values) < MANY:
        return statistics.stdev(values) / middle if len(values) > 1 else 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 1.349 / middle
