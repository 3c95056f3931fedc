"""Takes the time of a training's own steps, from which the rest of it is estimated."""

import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_offload.remote_job.pace.meter import Reading, read
from gpu_offload.remote_job.pace.pace import ModePace, Pace

STEPS = 3
"""Steps of a mode, after the first ones of all, that are enough where they agree."""
MOST_STEPS = 10
"""Steps after which it is enough even where they disagree."""
AGREEMENT = 0.1
"""Relative spread up to which steps agree."""
WINDOW = 200
"""The most recent steps of a mode that count."""
SHARE_STEPS = 50
"""The most recent steps of a mode that say what share of the cores there is."""
LATEST = 5
"""The most recent epochs that count."""
MANY = 8
"""Values from which on a mean is better than the median: what some steps take more belongs to the whole."""
OUTLIER = 3.0
"""Medians that a value counts at most: a machine that was suspended is no slow one."""
WARM_UP = 2
"""The first steps of all, which set up libraries and kernels."""
NOTHING = Reading(0.0, 0.0, 0.0)
TAKEN_S = 2.6e-9
"""Most seconds to take a byte of memory from the kernel: on a virtual machine 2 to 2.6 ns, zeroed and mapped on the host."""
BOOKKEEPING = 0.03
"""Seconds an epoch between its parts, until they were measured: tables, progress, garbage."""


@dataclass(frozen=True, slots=True)
class TimedStep:
    """One batch: what it took, and the parts of it that loading and the optimizer took."""

    took: Reading
    load: Reading
    optimizer: float
    is_new: bool
    """Whether its pictures were loaded for the first time."""
    kept: int = 0
    """Bytes of pictures that were kept for later epochs."""

    @property
    def growing(self) -> float:
        """The seconds, beside loading, in which the process took memory for the pictures that it keeps."""
        return max(0.0, min(self.took.kernel - self.load.kernel, self.kept * TAKEN_S))

    @property
    def computing(self) -> float:
        """The wall seconds without loading, growing and the optimizer."""
        return max(1e-6, self.took.wall - self.load.wall - self.growing - self.optimizer)

    def seconds(self, again: float | None) -> float:
        """Return the wall seconds without the optimizer, as later epochs take them: they load it in `again` seconds."""
        saved = self.load.wall - again if self.is_new and again is not None else 0.0
        return max(1e-6, self.took.wall - self.growing - self.optimizer - saved)


@dataclass(slots=True)
class PaceMeter:
    """The times of one training's steps; what else the estimate needs is set from outside.

    Attributes:
        ready: Seconds from the process's start to the first batch.
        batches: Of an epoch.
        other: What a batch takes more in the mode that has not begun yet, in seconds.
        again: Seconds that later epochs take to load a batch of the first epoch.
        decoding: Seconds that a batch of the first epoch takes longer to load, because its pictures are decoded.
        final: Seconds of the end, beside the final validation.
        slowness: Of Python here.
        validation: Seconds of a validation image, by the latest epochs.
        save: Seconds of a checkpoint, likewise.
        between: Seconds an epoch between its parts, likewise.
        announced: Whether the pace was reported.
        part: Of the cores, those that it computes on: fewer where other programs use the others.
    """

    clock: Callable[[], Reading] = read
    ready: float = 0.0
    batches: int = 0
    final: float = 0.0
    slowness: float = 1.0
    other: float | None = None
    again: float | None = None
    decoding: float = 0.0
    validation: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    save: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    between: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    announced: bool = False
    part: float = 1.0
    _steps: dict[str, deque[TimedStep]] = field(default_factory=dict)
    _optimizer: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _warming: list[tuple[str, TimedStep]] = field(default_factory=list)
    _forgot: bool = False
    _began: Reading | None = None
    _load: Reading = NOTHING
    _in_optimizer: float = 0.0

    def begin(self) -> None:
        """Begin a step here: at the start of an epoch, or after something that belongs to no step."""
        self._began = self.clock()
        self._load, self._in_optimizer = NOTHING, 0.0

    def loaded(self) -> None:
        """Take in that the batch in progress is loaded."""
        if self._began is not None:
            self._load = self.clock().since(self._began)

    def optimized(self, seconds: float) -> None:
        """Take in an optimizer step of the batch in progress."""
        self._in_optimizer += seconds

    def step(self, mode: str, *, is_new: bool, kept: int = 0) -> None:
        """End the step in progress, in which so many bytes of pictures were kept, and begin the next."""
        now = self.clock()
        if self._began is not None:
            step = TimedStep(now.since(self._began), self._load, self._in_optimizer, is_new, kept)
            if len(self._warming) < WARM_UP:
                self._warming.append((mode, step))
            else:
                self._steps.setdefault(mode, deque(maxlen=WINDOW)).append(step)
                if self._in_optimizer:
                    self._optimizer.append(self._in_optimizer)
        self._began, self._load, self._in_optimizer = now, NOTHING, 0.0

    @property
    def loads(self) -> float:
        """Seconds that a batch took to load, by the steps so far."""
        steps = [step for steps in self._steps.values() for step in steps] or [s for _, s in self._warming]
        return statistics.median(step.load.wall for step in steps)

    def _warming_optimizer(self) -> list[float]:
        """Return the optimizer steps of the first batches: there may be no other before many are accumulated."""
        return [step.optimizer for _, step in self._warming if step.optimizer] or [0.0]

    @property
    def is_enough(self) -> bool:
        """Whether the steps so far are enough for an estimate: they agree, or more of them would not help."""
        steps = max(self._steps.values(), key=len, default=())
        if len(steps) < STEPS:
            return False
        return len(steps) >= MOST_STEPS or spread([step.computing for step in steps]) <= AGREEMENT

    def share(self, last: int = SHARE_STEPS) -> float:
        """Return the share of its processor time that the last steps got."""
        latest = [step.took for steps in self._steps.values() for step in list(steps)[-last:]]
        return Reading(0.0, sum(took.cpu for took in latest), sum(took.waited for took in latest)).share

    def forget(self) -> None:
        """Forget the steps so far: what comes now takes another time."""
        self._steps.clear()
        self._optimizer.clear()
        self._forgot = True

    def pace(self) -> Pace | None:
        """Return what is known so far; None before the second step."""
        timed: Mapping[str, Sequence[TimedStep]] = self._steps
        if not timed and len(self._warming) > 1 and not self._forgot:  # a training of few batches
            mode, step = self._warming[-1]
            timed = {mode: [step]}
        if not timed:
            return None
        modes = {mode: self._mode(steps) for mode, steps in timed.items()}
        if self.other is not None and len(modes) == 1:
            ((mode, known),) = modes.items()
            unseen = "plain" if mode == "mosaic" else "mosaic"
            modes[unseen] = known.model_copy(
                update={"batch": max(1e-6, known.batch + self.other), "steps": 0}
            )
        return Pace.measured(
            ready=round(self.ready, 4),
            batches=self.batches,
            mosaic=modes.get("mosaic"),
            plain=modes.get("plain"),
            decoding=round(self.decoding, 5),
            optimizer=round(statistics.median(self._optimizer or self._warming_optimizer()), 5),
            validation=round(usual(self.validation), 6) if self.validation else None,
            save=round(usual(self.save) + usual(self.between or [BOOKKEEPING]), 4) if self.save else None,
            final=self.final,
            slowness=round(self.slowness, 2),
            share=round(self.share() * self.part, 4),
        )

    def _mode(self, steps: Sequence[TimedStep]) -> ModePace:
        later = [step for step in steps if not step.is_new]
        if len(later) < MANY:
            later = list(steps)
        seconds = [step.seconds(self.again) for step in later]
        return ModePace(batch=round(usual(seconds), 5), spread=round(spread(seconds), 4), steps=len(seconds))


def usual(values: Sequence[float]) -> float:
    """Return the usual one of some times: their median, or, of many, their mean, in which an outlier counts less."""
    counted = _without_outliers(values)
    return statistics.median(counted) if len(values) < MANY else statistics.fmean(counted)


def _without_outliers(values: Sequence[float]) -> list[float]:
    """Return the values, none above so many medians; of two, the lesser one says what is usual."""
    most = OUTLIER * statistics.median_low(values)
    return [min(value, most) for value in values]


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation relative to the median; of many by their quartiles, so that outliers do not count."""
    middle = max(statistics.median(values), 1e-9)
    if len(values) < MANY:
        return statistics.stdev(_without_outliers(values)) / middle if len(values) > 1 else 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 1.349 / middle
