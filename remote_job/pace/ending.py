"""What a training takes after its last epoch, as measured on one machine; a slower start is a slower end."""

import math

from gpu_offload.dataset.task import Task

TRIAL_MIN_STEPS = 200
"""Optimizer iterations below which a trial of the fast switches costs more than a wrong guess."""
READY_S, LABELS_S = 2.7, 0.9
"""Seconds from the process's start to the first batch on that machine (2 cores, Zen 5), and of a plot of the labels."""
ENDING_S = 0.5
"""The final validation's set-up, pictures of predictions, staging the result."""
PLOTS_S = {Task.DETECT: 1.5, Task.SEGMENT: 2.3, Task.POSE: 2.3, Task.CLASSIFY: 1.2}
"""Ultralytics' plots: curves for each kind of box, mask or keypoint."""
EXPORT_S, EXPORT_PARAMETER_S = 0.8, 1e-7
"""Each format that the model is written in, and by the parameter. Both for one detector: 1.5 s on that machine, 5 on another."""
PUBLISHING_S = 1.4
"""From the last event of the process to the published model and the end of the command, on a CPU."""
SAVE_S = 7e-8
"""A checkpoint, by the parameter: weights, average, two moments, and the best model; until one was written."""
LEAST, MOST = 0.7, 3.0
"""Bounds of how much slower another machine is taken to be."""


def slowness(ready: float, usual: float) -> float:
    """Return how much slower the end is than on the machine that was measured, which was ready after `usual` seconds.

    The root, because a start varies by a third on one machine (cold files) while the end does not.
    """
    return min(MOST, max(LEAST, math.sqrt(ready / usual))) if ready > 0 else 1.0


def ending(
    task: Task,
    *,
    plots: bool,
    validate: bool = True,
    ready: float = 0.0,
    exports: int = 0,
    parameters: int = 0,
) -> float:
    """Return the seconds of the end beside the final validation, without publishing.

    `ready` are the seconds of this start, without trial, compiler and scan of the images; 0 where they are unknown.
    """
    # Without validation in each epoch, the only one, after the last epoch, draws its plots, too.
    drawn = PLOTS_S.get(task, PLOTS_S[Task.DETECT]) * (1 if validate else 2) if plots else 0.0
    exported = exports * (EXPORT_S + EXPORT_PARAMETER_S * parameters)
    usual = READY_S + (LABELS_S if plots and task is not Task.CLASSIFY else 0.0)
    return slowness(ready, usual) * (ENDING_S + drawn + exported)
