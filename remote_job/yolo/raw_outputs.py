"""Runs a model and returns its raw outputs, in single precision on the processor."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Outputs = Callable[[Array], Sequence[Array]]
"""A model: from one image, shaped (1, 3, side, side) with values 0 to 1, to its raw outputs."""


def outputs_of(model: Any) -> Outputs:
    """Return what runs a model of Ultralytics', which stays as it is."""
    import torch

    from gpu_offload.remote_job.speed.outputs import tensors

    network = copy.deepcopy(model).float().eval()

    def outputs(array: Array) -> list[Array]:
        with torch.no_grad():
            found = network(torch.from_numpy(array))
        # Beside the result a head returns what it was made from, which an export leaves out.
        return [t.numpy() for t in tensors(found[0] if isinstance(found, list | tuple) else found)]

    return outputs
