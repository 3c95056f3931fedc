"""A training's forward pass in bfloat16, where the processor multiplies in it.

What Ultralytics does on a GPU by default (`amp`): convolutions take and give numbers of 16 bits, and the backward
pass follows. Weights, gradients of weights, the optimizer, the average, the loss and every validation stay in single
precision. bfloat16 has single precision's range, so no loss needs scaling.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from ultralytics.nn.tasks import BaseModel


def covers(model: torch.nn.Module) -> bool:
    """Whether a model's forward pass is the one that `bfloat16` changes; a few architectures have their own."""
    return isinstance(model, BaseModel) and type(model).predict is BaseModel.predict


@contextlib.contextmanager
def bfloat16() -> Iterator[None]:
    """Let every model that trains in this process do so in mixed precision; put back afterwards.

    The class's method is replaced, not the model's: what is copied, averaged and saved stays as it was. A model
    that validates, or whose gradients nobody wants, computes as ever.
    """
    plain = BaseModel.predict

    def predict(self: BaseModel, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return plain(self, *args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16):
            output = plain(self, *args, **kwargs)
        return single(output)

    BaseModel.predict = predict
    try:
        yield
    finally:
        BaseModel.predict = plain


def single(value: Any) -> Any:
    """Return a model's output in single precision, however it is nested."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, dict):
        return {name: single(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(single, value))
    return value
