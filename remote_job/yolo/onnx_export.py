"""A model as ONNX, by Ultralytics' exporter and onnxruntime."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_offload.remote_job.yolo.raw_outputs import Array, Outputs

LEFT_OUT = ("date", "description", "args")
"""Metadata that depends on the machine and the moment; without it the same training yields the same bytes."""


def write(network: Any, target: Path, image_size: int) -> None:
    """Write a model for single images of one size, in single precision; Ultralytics writes beside the file that it is from."""
    import onnx

    with warnings.catch_warnings():
        # PyTorch's about its older converter, which is the one that Ultralytics uses.
        warnings.simplefilter("ignore")
        made = network.export(format="onnx", imgsz=image_size, simplify=False, device="cpu", verbose=False)
    graph = onnx.load(made)
    kept = [prop for prop in graph.metadata_props if prop.key not in LEFT_OUT]
    del graph.metadata_props[:]
    graph.metadata_props.extend(sorted(kept, key=lambda prop: prop.key))
    onnx.checker.check_model(graph)
    onnx.save(graph, target)


def load(path: Path, _network: Any) -> Outputs:
    """Return what runs the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that wait sleep: other cores draw meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def outputs(array: Array) -> Sequence[Array]:
        found: Sequence[Array] = session.run(None, {given.name: array})
        return found

    return outputs
