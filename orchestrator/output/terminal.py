"""Console output in a terminal: lines that break between words, and a live progress bar."""

import contextlib
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gpu_offload.orchestrator.output.console import Console, one_line
from gpu_offload.orchestrator.output.epoch import Revise, TimeLeft, closing_stage, epoch_line, unrevised
from gpu_offload.orchestrator.output.table import terminal_width
from gpu_offload.remote_job.result import ProgressEvent

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


CLEAR_LINE = "\r\x1b[K"


class TerminalConsole(Console):
    """Renders with a live progress bar."""

    _bar: "RichConsole | None" = None
    """While a bar is shown: lines go above it."""
    _progress: str = ""
    """The line at the bottom that changes; the next message takes its place."""

    def progress(self, name: str, text: str) -> None:
        """Show it in the last line."""
        self._progress = one_line(f"    {name}: {text}")[: terminal_width() - 1]
        self.stream.write(f"{CLEAR_LINE}{self._progress}")
        self.stream.flush()

    def _write(self, prefix: str, line: str) -> None:
        text = textwrap.fill(
            line,
            terminal_width(),
            initial_indent=prefix,
            subsequent_indent=" " * len(prefix),
            break_long_words=False,
            break_on_hyphens=False,
        )
        if self._bar is None:
            self.stream.write(f"{CLEAR_LINE if self._progress else ''}{text}\n")
            self._progress = ""
        else:
            self._bar.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @contextlib.contextmanager
    def training(
        self, likely_seconds: float | None, revise: Revise = unrevised
    ) -> Iterator[Callable[[ProgressEvent], None]]:
        """Show a bar over all batches, with the time left."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        rich = RichConsole(file=self.stream)
        columns = (
            TextColumn("    {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        # The bar goes at the end; the lines above it stay.
        with Progress(*columns, console=rich, transient=True) as bar:
            left = f"about {likely_seconds:.0f} s" if likely_seconds else ""
            task = bar.add_task("preparing", total=None, left=left)
            clock = TimeLeft(likely_seconds)
            self._bar = bar.console

            def show(event: ProgressEvent) -> None:
                if event.event == "epoch":
                    self.note(epoch_line(event, width=terminal_width() - 4))
                elif event.event == "interrupted" and event.message:
                    self.warning(event.message)
                done = clock.update(event)
                revised = revise(event)
                if revised is not None:
                    clock.revise(revised.seconds)
                    if revised.text:
                        self.note(revised.text)
                if done is not None:
                    # A finished bar stops its clock, and validation and export are still to come.
                    bar.update(
                        task,
                        total=1.0,
                        completed=min(done, 0.999),
                        description=f"epoch {event.epoch}/{event.epochs}",
                        left=clock.text(),
                    )
                if (closing := closing_stage(event)) is not None:
                    bar.update(task, description=closing, left="")

            try:
                yield show
            finally:
                self._bar = None
