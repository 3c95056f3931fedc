"""What a training takes after its last epoch, in seconds as measured on a Zen 5 with two cores."""

from gpu_offload.dataset.task import Task

TRIAL_MIN_STEPS = 200
"""Optimizer iterations below which a trial of the fast switches costs more than a wrong guess."""
ENDING_S = 0.42
"""The final validation's set-up, pictures of predictions, staging the result."""
PLOTS_S = {Task.DETECT: 1.25, Task.SEGMENT: 1.9, Task.POSE: 1.9, Task.CLASSIFY: 0.66}
"""Ultralytics' plots: curves for each kind of box, mask or keypoint."""
EXPORT_S, EXPORT_PARAMETER_S = 0.18, 3.3e-8
"""Each format that the model is written in, and by the parameter."""
ONE_CORE = 1.5
"""What a single core makes of the end, where nothing is drawn or written beside it."""
PUBLISHING_S, PUBLISHING_PARAMETER_S = 0.3, 4e-8
"""From the last event of the process to the published model and the end of the command, on a CPU; and by the parameter."""
SAVE_S = 5e-8
"""A checkpoint, by the parameter: weights, average, two moments, and the best model; until one was written."""
COPY_S = 2.5e-8
"""What copying a checkpoint to the store takes from the next epoch, by the parameter; until epochs show it."""
PICTURED, COMPARED = 6, 8
"""Held-out pictures that the end draws predictions on, and those that it compares an export on."""


def ending(
    task: Task, *, plots: bool, cores: int, slowness: float = 1.0, exports: int = 0, parameters: int = 0
) -> float:
    """Return the seconds of the end beside the final validation, without publishing.

    `slowness` is how much longer this machine runs Python than the one that was measured.
    """
    drawn = PLOTS_S.get(task, PLOTS_S[Task.DETECT]) if plots else 0.0
    exported = exports * (EXPORT_S + EXPORT_PARAMETER_S * parameters)
    return slowness * (ENDING_S + drawn + exported) * (ONE_CORE if cores == 1 else 1.0)


def reread(held_out: int, exports: int) -> int:
    """Return how many pictures the end decodes: for predictions, for drawing them, and for comparing exports."""
    return 2 * min(held_out, PICTURED) + (min(held_out, COMPARED) if exports else 0)


def publishing(parameters: int) -> float:
    """Return the seconds from the training's last event to the end of the command, on a CPU."""
    return PUBLISHING_S + PUBLISHING_PARAMETER_S * parameters
