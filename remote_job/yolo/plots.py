"""Ultralytics' plots of a whole training, drawn at its end by processes beside it where there is a core for them."""

import contextlib
import functools
import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

DRAWING_S = 60.0
"""After so many seconds a process that still draws is given up, and its plots are drawn by this one."""

Draw = Callable[[], object]


class Plots:
    """Collects plots until they can be drawn while the training does something else.

    A process that draws is forked, so it has matplotlib to itself and everything to draw at hand. On a single core
    nothing is gained by one, and polars, which reads `results.csv`, waits forever where its threads were not forked along.
    """

    def __init__(self, *, beside: bool) -> None:
        self._beside = beside
        self._due: list[Draw] = []
        self._drawing: list[tuple[BaseProcess, list[Draw]]] = []

    def later(self, draw: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Remember a plot; what it shows must not change any more."""
        self._due.append(functools.partial(draw, *arguments, **options))

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Remember the curves and the confusion matrices of a validation in place of drawing them."""
        from ultralytics.utils import metrics

        plots = [
            (metrics, "plot_pr_curve"),
            (metrics, "plot_mc_curve"),
            (metrics.ConfusionMatrix, "plot"),
        ]
        with contextlib.ExitStack() as stack:
            for owner, name in plots:
                draw = getattr(owner, name)
                stack.callback(setattr, owner, name, draw)
                setattr(owner, name, self._remembering(draw))
            yield

    def _remembering(self, draw: Callable[..., object]) -> Callable[..., None]:
        def remember(*arguments: Any, **options: Any) -> None:
            self.later(draw, *arguments, **options)

        return remember

    def start(self) -> None:
        """Draw what was remembered."""
        due, self._due = self._due, []
        # Once polars is imported, its threads are missing in a forked process, and reading `results.csv` would hang there.
        if not self._beside or "polars" in sys.modules:
            _draw(due)
        elif due:
            process = multiprocessing.get_context("fork").Process(
                target=_draw_alone, args=(due,), daemon=True
            )
            try:
                with warnings.catch_warnings():
                    # Its threads are not there afterwards: it computes in one, and uses no lock that another could hold.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    process.start()
            except OSError:  # too little memory, or too many processes
                _draw(due)
            else:
                self._drawing.append((process, due))

    @property
    def running(self) -> int:
        """How many processes draw."""
        return sum(process.is_alive() for process, _ in self._drawing)

    def finish(self) -> None:
        """Wait until all are drawn, those by Ultralytics' own threads included."""
        self.start()
        while self._drawing:
            process, due = self._drawing.pop()
            process.join(DRAWING_S)
            if process.exitcode != 0:
                process.kill()
                _draw(due)
        # Ultralytics draws batches in threads that it does not wait for; the files are staged next.
        for thread in threading.enumerate():
            target = getattr(thread, "_target", None)
            if getattr(target, "__module__", "").startswith("ultralytics."):
                thread.join()


def _draw(due: list[Draw]) -> None:
    """Draw here; a picture is no reason for a trained model to be lost."""
    for draw in due:
        try:
            draw()
        except Exception as error:  # noqa: BLE001 - matplotlib raises anything
            print(f"a plot is missing: {type(error).__name__}: {error}")  # noqa: T201 - to the log


def _draw_alone(due: list[Draw]) -> None:
    """Draw in a forked process, where OpenMP's threads are missing and signals are not the training's."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(1)
    for draw in due:
        draw()  # what fails is drawn again by the training
