"""A training's forward pass in bfloat16, where the processor multiplies in it.

What Ultralytics does on a GPU by default (`amp`): convolutions take and give numbers of 16 bits, and the backward
pass follows. Weights, the optimizer, the average, the loss and every validation stay in single precision, and so do
the layers whose output is the model's. bfloat16 has single precision's range, so no loss needs scaling.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import BaseModel

from gpu_offload.remote_job.speed.outputs import single

OUTPUTS = (nn.Conv2d, nn.Linear)
"""Layers that give a model's output where they have a bias: before a normalisation none needs one.

A class's score is a logit near -10 when a training begins, where bfloat16 resolves steps of 0.06: which anchors
learn from an object is decided by scores that must not be rounded to that.
"""


def covers(model: torch.nn.Module) -> bool:
    """Whether a model's forward pass is the one that `bfloat16` changes; a few architectures have their own."""
    return isinstance(model, BaseModel) and type(model).predict is BaseModel.predict


@contextlib.contextmanager
def bfloat16() -> Iterator[None]:
    """Let every model that trains in this process do so in mixed precision; put back afterwards.

    The class's method is replaced, not the model's: what is copied, averaged and saved stays as it was. A model
    that validates, or that needs no gradients, computes as before.
    """
    predict = BaseModel.predict
    forwards = [layer.forward for layer in OUTPUTS]

    def mixed(self: BaseModel, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return predict(self, *args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16):
            output = predict(self, *args, **kwargs)
        return single(output)

    BaseModel.predict = mixed
    for layer, forward in zip(OUTPUTS, forwards, strict=True):
        layer.forward = exact_with_bias(forward)
    try:
        yield
    finally:
        BaseModel.predict = predict
        for layer, forward in zip(OUTPUTS, forwards, strict=True):
            layer.forward = forward


def exact_with_bias(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a layer's forward pass that computes in single precision where the layer has a bias."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if self.bias is None or not torch.is_autocast_enabled("cpu"):
            return plain(self, x)
        with torch.autocast("cpu", enabled=False):
            return plain(self, x.float())  # the layer's own weights are in single precision all the time

    return forward
