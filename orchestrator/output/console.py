"""Console output: every message has a kind, rendered for a terminal or for a log."""

import contextlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TextIO, cast

from gpu_offload.orchestrator.output.epoch import Revise, epoch_line, unrevised
from gpu_offload.remote_job.result import ProgressEvent

Kind = Literal["stage", "note", "detail", "warning", "error"]

PREFIX: dict[Kind, str] = {
    "stage": "==> ",
    "note": "    ",
    "detail": "    ",
    "warning": "warning: ",
    "error": "error: ",
}
LOG_WIDTH = 110
SILENCE_S = 60.0
"""After so long without a complete epoch, a log says which batch a training is at."""

PROGRESS_S = 30.0
"""A log says how far one of several trainings is at most so often."""

LONGEST_LINE = 2_000
"""Characters; a longer line is no text for people, but a document that a message quotes."""

MOST_LINES = 200
"""Of a message."""

_UNSAFE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
_END_OF_LINE = re.compile(rf"(?<=[^\n]{{{LONGEST_LINE}}})[^\n]+")


def plain(text: str) -> str:
    """Return untrusted text without control and direction characters, which could move the cursor or hide text.

    A line is cut after `LONGEST_LINE` characters.
    """
    return _END_OF_LINE.sub(" ...", _UNSAFE.sub("", text))


def one_line(text: str) -> str:
    """Return untrusted text as `plain` does, in one line."""
    return plain(text.replace("\n", " "))


def brief(text: str) -> str:
    """Return a message that may quote a document: as `plain` does, at most `MOST_LINES`."""
    lines = plain(text).split("\n", MOST_LINES)
    return "\n".join([*lines[:MOST_LINES], *(["..."] if len(lines) > MOST_LINES else [])])


def enumerated(head: str, faults: Sequence[object]) -> str:
    """Return a message with one fault behind its head, or with several on a line each."""
    if len(faults) == 1:
        return f"{head}: {faults[0]}"
    return "\n".join([f"{head}:", *(f"  - {fault}" for fault in faults)])


class _Lasting:
    """A stream that drops what cannot be written: a closed terminal, or a full disk under a log, ends no run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    # rich asks the stream for its encoding and whether it is a terminal.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """Renders messages as lines. Safe for any terminal and any log; `verbose` shows details too."""

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        self.stream = cast("TextIO", _Lasting(stream or sys.stderr))
        self.verbose = verbose
        self._spoke_at: float | None = None
        """Time of the last event that was printed, by the training's clock."""
        self._told_at: dict[str, float] = {}
        """When the progress of a training was printed last, by its name."""

    def stage(self, text: str) -> None:
        """Announce a part of the work."""
        self.say("stage", text)

    def note(self, text: str) -> None:
        """Print what most readers want to know."""
        self.say("note", text)

    def detail(self, text: str) -> None:
        """Print what helps to investigate a problem."""
        self.say("detail", text)

    def warning(self, text: str) -> None:
        """Print what may be wrong."""
        self.say("warning", text)

    def error(self, text: str) -> None:
        """Print what failed, where, and what to do."""
        self.say("error", text)

    def say(self, kind: Kind, text: str) -> None:
        """Render one message."""
        if kind == "detail" and not self.verbose:
            return
        for line in brief(text).splitlines():
            self._write(PREFIX[kind], line)
        self.stream.flush()

    def _write(self, prefix: str, line: str) -> None:
        self.stream.write(f"{prefix}{line}\n")

    def progress(self, name: str, text: str) -> None:
        """Print the progress of one of several trainings, at intervals; a terminal shows it in one line that changes."""
        now = time.monotonic()
        if now - self._told_at.get(name, -math.inf) >= PROGRESS_S:
            self._told_at[name] = now
            self.note(f"{name}: {text}")

    @contextlib.contextmanager
    def training(
        self, likely_seconds: float | None, revise: Revise = unrevised
    ) -> Iterator[Callable[[ProgressEvent], None]]:
        """Show a training's progress within the context; `revise` returns what an event says about the time left."""
        # For the bar of a terminal, which a log has not.
        del likely_seconds
        self._spoke_at = None

        def show(event: ProgressEvent) -> None:
            self._line_of(event)
            revised = revise(event)
            if revised is not None and revised.text:
                self.note(revised.text)

        yield show

    def _line_of(self, event: ProgressEvent) -> None:
        if event.event == "epoch":
            self._spoke_at = event.time
            self.note(epoch_line(event, width=LOG_WIDTH))
        elif event.event == "batch":
            self._spoke_at = event.time if self._spoke_at is None else self._spoke_at
            if event.time - self._spoke_at >= SILENCE_S:
                self._spoke_at = event.time
                self.note(f"epoch {event.epoch}/{event.epochs}  batch {event.batch}/{event.batches}")
        elif event.event == "stage" and event.stage:
            self.detail(f"{event.stage}: {event.seconds or 0:.1f} s")
        elif event.event == "interrupted" and event.message:
            self.warning(event.message)
