"""Console output: every message has a kind, rendered for a terminal or for a log."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, TextIO, cast

from gpu_offload.remote_job.result import ProgressEvent

Kind = Literal["stage", "note", "detail", "warning", "error"]

_UNSAFE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return untrusted text without control and direction characters: it can neither move a cursor nor hide."""
    return _UNSAFE.sub("", text)


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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """Renders messages as lines. Safe for any terminal and any log; `verbose` shows details too."""

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        self.stream = cast("TextIO", _Lasting(stream or sys.stderr))
        self.verbose = verbose

    def stage(self, text: str) -> None:
        """Announce a part of the work."""
        self.say("stage", text)

    def note(self, text: str) -> None:
        """Tell what a reader would want to know."""
        self.say("note", text)

    def detail(self, text: str) -> None:
        """Tell what matters when something is looked into."""
        self.say("detail", text)

    def warning(self, text: str) -> None:
        """Tell what may be wrong."""
        self.say("warning", text)

    def error(self, text: str) -> None:
        """Tell what failed, where, and what to do."""
        self.say("error", text)

    def say(self, kind: Kind, text: str) -> None:
        """Render one message."""
        if kind == "detail" and not self.verbose:
            return
        prefix = {
            "stage": "==> ",
            "note": "    ",
            "detail": "    ",
            "warning": "warning: ",
            "error": "error: ",
        }
        for line in plain(text).splitlines():
            self.stream.write(prefix[kind] + line + "\n")
        self.stream.flush()

    @contextlib.contextmanager
    def training(self, likely_seconds: float | None) -> Iterator[Callable[[ProgressEvent], None]]:
        """Show a training's progress for as long as the context lasts; `likely_seconds` is the estimate."""
        del likely_seconds
        yield self._line_of

    def _line_of(self, event: ProgressEvent) -> None:
        if event.event == "epoch":
            self.note(epoch_line(event))
        elif event.event == "stage" and event.stage:
            self.detail(f"{event.stage}: {event.seconds or 0:.1f} s")
        elif event.event == "interrupted" and event.message:
            self.warning(event.message)


def epoch_line(event: ProgressEvent, *, width: int = 76) -> str:
    """Return an epoch's loss and as many metrics as fit on a line, the main ones first."""
    line = f"epoch {event.epoch}/{event.epochs}  {event.seconds or 0:.1f} s"
    losses = [value for name, value in (event.losses or {}).items() if not name.startswith("val/")]
    parts = [f"loss {sum(losses):.3f}"] if losses else []
    shown = {k: v for k, v in (event.metrics or {}).items() if not k.startswith(HIDDEN)}
    several = len({name[-3:] for name in shown if PART.search(name)}) > 1
    names = sorted(shown, key=lambda name: "mAP" not in name)
    parts += [f"{metric_label(name, part=several)} {shown[name]:.3f}" for name in names]
    for part in parts:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


HIDDEN = ("lr/", "val/", "fitness")
PART = re.compile(r"\((B|M|P)\)$")
PARTS = {"B": "box", "M": "mask", "P": "pose"}
"""What a metric of Ultralytics is about, by the letter at the end of its name."""


def metric_label(name: str, *, part: bool) -> str:
    """Return a metric's short name: `metrics/mAP50(M)` is `mask mAP50` if `part`, else `mAP50`."""
    short = PART.sub("", name.rsplit("/", 1)[-1])
    letter = PART.search(name)
    return f"{PARTS[letter[1]]} {short}" if part and letter else short


class TerminalConsole(Console):
    """Renders with a live progress bar."""

    @contextlib.contextmanager
    def training(self, likely_seconds: float | None) -> Iterator[Callable[[ProgressEvent], None]]:
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
        with Progress(*columns, console=rich, transient=True) as bar:
            left = f"about {likely_seconds:.0f} s" if likely_seconds else ""
            task = bar.add_task("preparing", total=None, left=left)
            clock = TimeLeft(likely_seconds)

            def show(event: ProgressEvent) -> None:
                if event.event == "epoch":
                    bar.console.print("    " + epoch_line(event), highlight=False, markup=False)
                elif event.event == "interrupted" and event.message:
                    bar.console.print(f"warning: {plain(event.message)}", highlight=False, markup=False)
                done = clock.update(event)
                if done is not None:
                    bar.update(
                        task,
                        total=1.0,
                        completed=done,
                        description=f"epoch {event.epoch}/{event.epochs}",
                        left=clock.text(),
                    )

            yield show


class TimeLeft:
    """How far a training is and how long it still takes: the estimate first, then what the epochs took."""

    def __init__(self, likely_seconds: float | None) -> None:
        self._likely = likely_seconds
        self._first: float | None = None
        self._start_share = 0.0
        self._share = 0.0
        self._now = 0.0

    def update(self, event: ProgressEvent) -> float | None:
        """Take an event in; return the share that is done, 0 to 1, None when the event says nothing of it."""
        if event.event not in {"batch", "epoch"} or not event.epoch or not event.epochs:
            return None
        whole = event.epoch if event.event == "epoch" else event.epoch - 1
        part = (event.batch or 0) / event.batches if event.event == "batch" and event.batches else 0.0
        self._share, self._now = min(1.0, (whole + part) / event.epochs), event.time
        if self._first is None:
            self._first, self._start_share = event.time, self._share
        return self._share

    def text(self) -> str:
        """Return the time left, in words."""
        seconds = self.seconds()
        if seconds is None:
            return ""
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"

    def seconds(self) -> float | None:
        """Return the seconds left, None while nothing is known."""
        if self._first is None:
            return self._likely
        elapsed, done = self._now - self._first, self._share - self._start_share
        measured = elapsed / done * (1 - self._share) if done > 0 else None
        if self._likely is None or measured is None:
            return measured if self._likely is None else self._likely * (1 - self._share)
        # The estimate counts like a tenth of the training that was seen; soon the training speaks for itself.
        trust = done / (done + 0.1)
        return trust * measured + (1 - trust) * self._likely * (1 - self._share)
