"""A trainer's state as plain tensors and values, from which a training goes on as if it had never stopped.

Ultralytics' own checkpoints are pickled modules with half-precision weights: loading one runs what is in it,
and resuming from one changes the result. This one holds state dictionaries in full precision and nothing but
tensors, numbers, strings, lists and dictionaries, so that torch's restricted loader reads it.
"""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_offload.errors import OffloadError

FORMAT = 1


class UnreadableStateError(OffloadError):
    """The file is not a training state of ours."""


def dumps(state: dict[str, Any]) -> memoryview:
    """Serialise a state; tensors are moved to the CPU."""
    buffer = io.BytesIO()
    torch.save(_plain(state), buffer)
    return buffer.getbuffer()


def load(path: Path) -> dict[str, Any]:
    """Read a state without executing anything in it. Raises UnreadableStateError."""
    try:
        # weights_only: a checkpoint may come from a store that others write to.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UnreadableStateError(
            f"{path}: is not a training state that can be read safely ({type(error).__name__}); nothing in it was run"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UnreadableStateError(f"{path}: is not a training state of format {FORMAT}")
    return state


def _plain(value: Any) -> Any:
    """Return the same value without NumPy scalars, subclasses of dict and tensors on devices."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value


def random_state() -> dict[str, Any]:
    """Return where every random generator of this process stands."""
    version, keys, gauss = random.getstate()
    name, array, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the one that Ultralytics uses
    assert isinstance(name, str)  # noqa: S101 - for the type checker: legacy=False would return a dictionary
    return {
        "python": [version, list(keys), gauss],
        # torch's restricted loader reads no NumPy arrays, and torch's own uint32 is limited.
        "numpy": [name, torch.from_numpy(np.asarray(array).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every random generator of this process where `random_state` found it."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, array, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, array.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002 - as above
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def pending_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return gradients that wait for the optimizer: accumulation may cross the end of an epoch."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def set_gradients(model: torch.nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    """Give parameters the gradients that `pending_gradients` found."""
    for name, parameter in model.named_parameters():
        gradient = gradients.get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device, parameter.dtype)


def image_buffer(dataset: Any) -> list[int]:
    """Return which images a dataset keeps in memory for mosaics; their order decides which are drawn."""
    return list(getattr(dataset, "buffer", []))


def set_image_buffer(dataset: Any, indices: list[int]) -> None:
    """Load the images that `image_buffer` found."""
    if not hasattr(dataset, "buffer") or getattr(dataset, "cache", None) == "ram":
        return
    for index in set(dataset.buffer):
        dataset.ims[index] = None
    dataset.buffer = []
    limit, dataset.max_buffer_length = dataset.max_buffer_length, len(dataset.labels) + 1
    try:
        for index in indices:
            # An index stands twice in the buffer when its image was dropped and came back meanwhile.
            dataset.ims[index] = None
            dataset.load_image(index)
    finally:
        dataset.max_buffer_length = limit
    dataset.buffer = list(indices)
