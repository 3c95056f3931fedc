"""What a training takes after its last epoch, measured where it was ready after `READY_S`; a slower start is a slower end."""

from gpu_offload.dataset.task import Task

TRIAL_MIN_STEPS = 200
"""Optimizer iterations below which a trial of the fast switches costs more than a wrong guess."""
READY_S = 3.6
"""Seconds from the process's start to the first batch, on the machine that the others were measured on (2 cores, Zen 5)."""
ENDING_S = 0.5
"""The final validation's set-up, pictures of predictions, staging the result."""
PLOTS_S = {Task.DETECT: 1.5, Task.SEGMENT: 2.3, Task.POSE: 2.3, Task.CLASSIFY: 1.2}
"""Ultralytics' plots: curves for each kind of box, mask or keypoint."""
EXPORT_S, EXPORT_PARAMETER_S = 0.8, 1e-7
"""Each format that the model is written in, and by the parameter. Both for one detector: 1.5 s on that machine, 5 on another."""
PUBLISHING_S = 1.4
"""From the last event of the process to the published model and the end of the command, on a CPU."""
SAVE_S = 9e-8
"""A checkpoint, by the parameter: weights, average, two moments, and the best model."""
LEAST, MOST = 0.6, 4.0
"""Bounds of how much slower another machine is taken to be: a start also grows with the number of images."""


def slowness(ready: float) -> float:
    """Return how much slower a machine is than the one that was measured, by the seconds until it was ready."""
    return min(MOST, max(LEAST, ready / READY_S)) if ready > 0 else 1.0


def ending(task: Task, *, plots: bool, ready: float, exports: int = 0, parameters: int = 0) -> float:
    """Return the seconds of the end beside the final validation, without publishing."""
    drawn = PLOTS_S.get(task, PLOTS_S[Task.DETECT]) if plots else 0.0
    exported = exports * (EXPORT_S + EXPORT_PARAMETER_S * parameters)
    return slowness(ready) * (ENDING_S + drawn + exported)
