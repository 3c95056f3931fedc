"""A model's weights as safetensors: a file that holds numbers and names, and cannot run code when it is loaded."""

import copy
import json
from pathlib import Path
from typing import Any

from gpu_offload.remote_job.yolo.raw_outputs import Outputs, outputs_of


def write(network: Any, target: Path, image_size: int) -> None:
    """Write the weights as they are in the model's file, with task, class names and definition as JSON beside them."""
    from safetensors.torch import save_file

    about = {
        "task": network.task,
        "names": network.names,
        "imgsz": image_size,
        "stride": int(network.model.stride.max()),
        "definition": network.model.yaml,
    }
    # Weights that share memory are refused; and one member alone, because several have no certain order.
    weights = {name: tensor.detach().cpu().clone() for name, tensor in network.model.state_dict().items()}
    save_file(weights, target, {"model": json.dumps(about, sort_keys=True, default=str)})


def load(path: Path, network: Any) -> Outputs:
    """Return what runs the weights, in a network as the model's own file describes it."""
    from safetensors.torch import load_file

    other = copy.deepcopy(network.model)
    other.load_state_dict(load_file(path), strict=True)  # a weight too many or too few is an error
    return outputs_of(other)
