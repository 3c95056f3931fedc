"""What a training takes after its last epoch, as measured on one machine; a slower start is a slower end."""

import math

from gpu_offload.dataset.task import Task

TRIAL_MIN_STEPS = 200
"""Optimizer iterations below which a trial of the fast switches costs more than a wrong guess."""
READY_S = 1.8
"""Seconds from the process's start to the first batch on that machine (2 cores, Zen 5)."""
ENDING_S = 0.5
"""The final validation's set-up, pictures of predictions, staging the result."""
PLOTS_S = {Task.DETECT: 1.5, Task.SEGMENT: 2.3, Task.POSE: 2.3, Task.CLASSIFY: 0.8}
"""Ultralytics' plots: curves for each kind of box, mask or keypoint."""
EXPORT_S, EXPORT_PARAMETER_S = 0.22, 4e-8
"""Each format that the model is written in, and by the parameter."""
ONE_CORE = 1.5
"""What a single core makes of the end, where nothing is drawn or written beside it."""
PUBLISHING_S, PUBLISHING_PARAMETER_S = 0.3, 4e-8
"""From the last event of the process to the published model and the end of the command, on a CPU; and by the parameter."""
SAVE_S = 7e-8
"""A checkpoint, by the parameter: weights, average, two moments, and the best model; until one was written."""
COPY_S = 2.5e-8
"""What copying a checkpoint to the store takes from the next epoch, by the parameter; until epochs show it."""
PICTURED, COMPARED = 6, 8
"""Held-out pictures that the end draws predictions on, and those that it compares an export on."""
LEAST, MOST = 0.7, 3.0
"""Bounds of how much slower another machine is taken to be."""


def slowness(ready: float) -> float:
    """Return how much slower the end is than on the machine that was measured, by the seconds until this one was ready.

    The root, because a start varies by a third on one machine (cold files) while the end does not.
    """
    return min(MOST, max(LEAST, math.sqrt(ready / READY_S))) if ready > 0 else 1.0


def ending(
    task: Task, *, plots: bool, cores: int, ready: float = 0.0, exports: int = 0, parameters: int = 0
) -> float:
    """Return the seconds of the end beside the final validation, without publishing.

    `ready` are the seconds of this start, without trial, compiler and scan of the images; 0 where they are unknown.
    """
    drawn = PLOTS_S.get(task, PLOTS_S[Task.DETECT]) if plots else 0.0
    exported = exports * (EXPORT_S + EXPORT_PARAMETER_S * parameters)
    return slowness(ready) * (ENDING_S + drawn + exported) * (ONE_CORE if cores == 1 else 1.0)


def reread(held_out: int, exports: int) -> int:
    """Return how many pictures the end decodes: for predictions, for drawing them, and for comparing exports."""
    return 2 * min(held_out, PICTURED) + (min(held_out, COMPARED) if exports else 0)


def publishing(parameters: int) -> float:
    """Return the seconds from the training's last event to the end of the command, on a CPU."""
    return PUBLISHING_S + PUBLISHING_PARAMETER_S * parameters
