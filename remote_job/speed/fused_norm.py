"""Ultralytics' `Conv` block through the fused kernel, for as long as a training runs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from ultralytics.nn.modules.conv import Conv

CHANNELS_LAST = torch.channels_last
LANES = 64
"""Floats a row should have at least to fill the vector units, four of 512 bits."""

ACTIVATIONS = {nn.SiLU: 1, nn.Identity: 0}
"""Activations that the kernel knows, by its number for them."""

TYPES = {torch.float32: "float", torch.bfloat16: "bfloat16"}
"""Values that the kernel knows, by its name for them."""


def rows_at_once(channels: int, rows: int) -> int:
    """Return how many rows of few channels the kernel takes as one; a divisor of `rows`."""
    together = 1
    while channels * together < LANES and rows % (2 * together) == 0:
        together *= 2
    return together


class BatchNormActivation(torch.autograd.Function):  # type: ignore[misc]
    """Batch normalisation by the batch's own statistics, then the activation; N x C x H x W, channels last.

    Updates the running statistics as `torch.nn.BatchNorm2d` does. Sums are of higher precision than torch's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        momentum: float,
        epsilon: float,
        activation: int,
    ) -> torch.Tensor:
        """Normalise and activate."""
        n, channels, height, width = x.shape
        rows, threads = n * height * width, torch.get_num_threads()
        together = rows_at_once(channels, rows)
        out = torch.empty_like(x)
        saved = torch.empty(4 * channels, dtype=torch.float32)
        # Two sums a thread in double and in single precision, then base, scale and shift: see the C source.
        work = torch.empty(channels * together * (3 * threads + 2), dtype=torch.float64)
        shape, parameters = (rows, channels, together, threads), (weight, bias, mean, variance)
        _call(
            kernel, "bn_act_forward", x, out, *shape, *parameters, momentum, epsilon, activation, saved, work
        )
        ctx.kernel, ctx.activation = kernel, activation
        ctx.save_for_backward(x, saved)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the input, the weight and the bias."""
        (gradient,) = gradients
        x, saved = ctx.saved_tensors
        n, channels, height, width = x.shape
        rows, threads = n * height * width, torch.get_num_threads()
        # The gradient of a concatenation is a slice of wider rows; the kernel takes their distance.
        stride = gradient.stride(3)
        if stride < channels or gradient.stride() != (height * width * stride, 1, width * stride, stride):
            gradient, stride = torch.empty_like(x).copy_(gradient), channels
        together = rows_at_once(channels, rows) if stride == channels else 1
        work = torch.empty(channels * together * (3 * threads + 3), dtype=torch.float64)
        of_weight, of_bias, of_input = torch.empty(channels), torch.empty(channels), torch.empty_like(x)
        shape, results = (rows, channels, together, threads), (of_weight, of_bias)
        _call(
            ctx.kernel,
            "bn_act_backward",
            x,
            gradient,
            stride,
            of_input,
            *shape,
            ctx.activation,
            saved,
            *results,
            work,
        )
        return None, of_input, of_weight, of_bias, None, None, None, None, None


def infer(kernel: Any, x: torch.Tensor, norm: nn.BatchNorm2d, activation: int) -> torch.Tensor:
    """Normalise by the running statistics and activate, in place."""
    n, channels, height, width = x.shape
    rows = n * height * width
    together = rows_at_once(channels, rows)
    buffer = torch.empty(2 * channels * together)
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018 - in `suits`
    shape = (rows, channels, together, torch.get_num_threads())
    parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    _call(kernel, "bn_act_infer", x, x, *shape, *parameters, norm.eps, activation, buffer)
    return x


def _call(kernel: Any, name: str, x: torch.Tensor, *arguments: torch.Tensor | float) -> None:
    """Call the kernel's function for values of the type of `x`; tensors are passed by their addresses."""
    given = (each.data_ptr() if isinstance(each, torch.Tensor) else each for each in (x, *arguments))
    getattr(kernel, f"{name}_{TYPES[x.dtype]}")(*given)


def suits(x: torch.Tensor, norm: nn.Module, activation: nn.Module) -> bool:
    """Whether the kernel computes what these modules would."""
    return (
        type(activation) in ACTIVATIONS
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and x.device.type == "cpu"
        and x.dtype in TYPES
        and norm.weight.dtype == torch.float32
        and x.dim() == 4
        and x.shape[0] * x.shape[2] * x.shape[3] > 1
        and x.is_contiguous(memory_format=CHANNELS_LAST)
        # A single column or a single channel is laid out channels last whatever its strides say.
        and x.stride(1) == 1
        and x.stride(3) == x.shape[1]
    )


@contextlib.contextmanager
def fused(kernel: Any) -> Iterator[None]:
    """Send every `Conv` of this process through the kernel; everything is put back afterwards.

    The class's method is replaced, not the modules: what is copied, averaged and saved stays as it was.
    """
    plain = Conv.forward

    def forward(self: Conv, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        norm, activation = self.bn, self.act
        if suits(x, norm, activation):
            number = ACTIVATIONS[type(activation)]
            if norm.training:
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.add_(1)
                parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
                return BatchNormActivation.apply(kernel, x, *parameters, norm.momentum, norm.eps, number)
            # In place: nothing else may hold the convolution's output, which a subclass might keep.
            if not torch.is_grad_enabled() and type(self.conv) is nn.Conv2d:
                return infer(kernel, x, norm, number)
        return activation(norm(x))

    Conv.forward = forward
    try:
        yield
    finally:
        Conv.forward = plain
