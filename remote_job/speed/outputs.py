"""The tensors in a model's output, however it is nested."""

from typing import Any

import torch


def tensors(value: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors of an output, in their order."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return []


def single(value: Any) -> Any:
    """Return an output in single precision, nested as it was."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, dict):
        return {name: single(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(single, value))
    return value
