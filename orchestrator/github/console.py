"""The console of a workflow's log: a group for each stage, annotations for warnings and errors, other text inert."""

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator
from typing import TextIO

from gpu_offload.orchestrator.github.annotations import TITLE, Annotation
from gpu_offload.orchestrator.github.runner import command
from gpu_offload.orchestrator.output.console import Console, Kind, brief, plain
from gpu_offload.orchestrator.output.epoch import Revise, unrevised
from gpu_offload.remote_job.result import ProgressEvent

MOST_ANNOTATIONS = 8
"""GitHub shows ten annotations of a kind for a step; further warnings are plain lines."""


class GitHubConsole(Console):
    """Renders messages for a workflow's log.

    Between two of our messages, workflow commands are stopped with a secret token, because a training or another
    process may print to the same stream. Indenting its lines would not help: the runner accepts a command after spaces.
    """

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        super().__init__(stream, verbose=verbose)
        self._token = secrets.token_hex(16)
        self._stopped = False
        self._in_group = False
        self._annotations = 0

    def say(self, kind: Kind, text: str) -> None:
        """Render one message."""
        if kind == "detail" and not self.verbose:
            return
        text = brief(text)
        if kind == "stage":
            self._group(text)
        elif kind in {"warning", "error"} and (self._annotations < MOST_ANNOTATIONS or kind == "error"):
            self._annotations += 1
            self._command(command(kind, text, title=TITLE))
        else:
            self._stop()
            prefix = "" if kind in {"note", "detail"} else f"{kind}: "
            for line in text.splitlines():
                self.stream.write(f"    {prefix}{inert(line)}\n")
        self.stream.flush()

    def text(self, text: str) -> None:
        """Write a text such as a receipt, outside of the groups."""
        self.end_group()
        self._stop()
        for line in plain(text).splitlines():
            self.stream.write(f"{inert(line)}\n")
        self.stream.flush()

    def notice(self, text: str) -> None:
        """Annotate the run with its result."""
        self.end_group()
        self._command(command("notice", plain(text), title=TITLE))
        self.stream.flush()

    def annotate(self, annotation: Annotation) -> None:
        """Show a message at its place in the changed files."""
        self.end_group()
        self._command(annotation.command())
        self.stream.flush()

    def end_group(self) -> None:
        """End the stage that is open."""
        if self._in_group:
            self._command(command("endgroup"))
            self._in_group = False

    def close(self) -> None:
        """End the group, and let the runner obey again."""
        self.end_group()
        self._resume()
        self.stream.flush()

    @contextlib.contextmanager
    def training(
        self, likely_seconds: float | None, revise: Revise = unrevised
    ) -> Iterator[Callable[[ProgressEvent], None]]:
        """Show a line for each epoch. The training prints to the same stream, so commands are off before it starts."""
        self._stop()
        with super().training(likely_seconds, revise) as show:
            yield show

    def _group(self, title: str) -> None:
        # Groups do not nest.
        self._command(*([command("endgroup")] if self._in_group else []), command("group", title))
        self._in_group = True

    def _command(self, *lines: str) -> None:
        self._resume()
        for line in lines:
            self.stream.write(line + "\n")
        self._stop()

    def _stop(self) -> None:
        if not self._stopped:
            self.stream.write(command("stop-commands", self._token) + "\n")
            self._stopped = True

    def _resume(self) -> None:
        if self._stopped:
            self.stream.write(f"::{self._token}::\n")
            self._stopped = False


def inert_text(text: str) -> str:
    """Return a text without a line that is a command."""
    return "".join(map(inert, text.splitlines(keepends=True)))


def inert(line: str) -> str:
    """Return a line that is no command in either form that runners accept, `::name::` and `##[name]`."""
    return re.sub(r"^(\s*):(?=:)", r"\1: ", line).replace("##[", "## [")
