"""Torch's compiler, left out of a training that compiles nothing: its import takes a second and more.

Eager code imports it only to be left alone by it, or to ask whether there is one; it computes the same without.
"""

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextlib.contextmanager
def left_out(*, compiles: bool = False) -> Iterator[None]:
    """Let optimizers, torchvision and the switch for determinism work without the compiler.

    What is replaced is put back afterwards. Without effect where the compiler is imported already, or the training compiles.
    """
    if compiles or COMPILER in sys.modules:
        yield
        return
    import_torchvision()
    import torch

    # torch's own function asks the compiler's configuration to be deterministic, too.
    def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
        torch.set_deterministic_debug_mode("default" if not mode else "warn" if warn_only else "error")

    replaced: list[tuple[Any, str, Any]] = [
        (torch, "use_deterministic_algorithms", use_deterministic_algorithms)
    ]
    for kind in _kinds(torch.optim.Optimizer):
        replaced += [(kind, name, plain) for name, plain in _plain_methods(kind)]
    with contextlib.ExitStack() as stack:
        for owner, name, value in replaced:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _kinds(kind: type) -> set[type]:
    """Return a class and all that are derived from it."""
    return {kind}.union(*map(_kinds, kind.__subclasses__()))


def _plain_methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield what an optimizer's methods are below `torch._disable_dynamo` and `_use_grad_for_differentiable`."""
    for name, method in vars(kind).items():
        code = getattr(method, "__code__", None)
        if code is None or not hasattr(method, "__wrapped__"):
            continue
        # The names are those of the wrappers' inner functions; other wrappers are left as they are.
        if code.co_name == "_use_grad":
            yield name, _with_its_gradients(method.__wrapped__)
        elif code.co_name == "inner" and code.co_filename.endswith("_compile.py"):
            yield name, method.__wrapped__


def _with_its_gradients(step: Callable[..., Any]) -> Callable[..., Any]:
    """Let an optimizer's step record gradients only if it is differentiable, as `_use_grad_for_differentiable` does."""
    import torch

    @functools.wraps(step)
    def stepping(self: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return stepping


class _Later(ModuleType):
    """Stands for a module of the compiler while torchvision is imported; what it lacks brings the module itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system and `inspect` ask every module for those
            raise AttributeError(name)
        _remove_placeholders()
        return getattr(_imported(self.__name__), name)


def import_torchvision() -> None:
    """Import torchvision without the compiler; its `roi_align` asks that, once it is called, what it supports."""
    _imported("torch")
    placeholders = _Later(COMPILER), _Later(UTILS)
    placeholders[1].__dict__["is_compile_supported"] = lambda device: _imported(UTILS).is_compile_supported(
        device
    )
    sys.modules.update({module.__name__: module for module in placeholders})
    try:
        _imported("torchvision")
    finally:
        _remove_placeholders()


def _remove_placeholders() -> None:
    for name in (COMPILER, UTILS):
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


def _imported(name: str) -> Any:
    return importlib.import_module(name)
