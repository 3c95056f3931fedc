"""A training's pace, as it reports it."""

from gpu_offload.remote_job.wire import Count, Seconds, Wire


class ModePace(Wire):
    """What a batch takes in one mode: with mosaic augmentation, or without."""

    batch: Seconds
    """Seconds to load, propagate forward and back, once its pictures are cached; the optimizer's come on top."""
    spread: Seconds = 0.0
    """Standard deviation of the batches, relative."""
    steps: Count = 0
    """How many batches that rests on; 0 where it was derived from the other mode."""


class Pace(Wire):
    """How fast a training is, as its own steps and epochs show; seconds unless said otherwise.

    A training by the user's own code knows no more than `epoch`.
    """

    ready: Seconds = 0.0
    """From the process's start to the first batch."""
    batches: Count = 0
    """Of an epoch."""
    mosaic: ModePace | None = None
    plain: ModePace | None = None
    decoding: Seconds = 0.0
    """What a batch of the first epoch takes more than a later one."""
    optimizer: Seconds = 0.0
    """An optimizer step."""
    validation: Seconds | None = None
    """Of an image, loading included."""
    save: Seconds | None = None
    """Checkpoint and bookkeeping of an epoch."""
    final: Seconds = 0.0
    """The end, beside the final validation."""
    epoch: Seconds | None = None
    """A whole epoch."""
    spread: Seconds = 0.0
    """Standard deviation of whole epochs, relative."""
    slowness: Seconds = 1.0
    """How much longer Python takes here than on the machine that the constants of the end come from."""
    share: Seconds = 1.0
    """Of the processor time that it could have used, what it got: 1 on a quiet machine."""
