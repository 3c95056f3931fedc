"""The log for people: all printed text goes to log.txt and to standard error; standard output stays clean."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Tee:
    """A text stream that writes to a file and to a console; a full disk or a closed console is no error."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, file: IO[str], console: IO[str]) -> None:
        self._file = file
        self._console = console

    def write(self, text: str) -> int:
        """Write to both."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the file is closed
            # A bar that redraws itself on a terminal would fill the file.
            if not text.startswith("\r"):
                self._file.write(text)
        with contextlib.suppress(OSError, ValueError):
            self._console.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush both."""
        for stream in (self._file, self._console):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()

    def isatty(self) -> bool:
        """Say whether the console is a terminal."""
        return self._console.isatty()

    def fileno(self) -> int:
        """Return the console's descriptor."""
        return self._console.fileno()


@contextlib.contextmanager
def to(path: Path) -> Iterator[Any]:
    """Send prints and log records to `path` and standard error, and put everything back afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="replace", buffering=1) as file:
        # Ultralytics' handler keeps the stream that was standard output when it was imported.
        tee = Tee(file, sys.stderr)
        streams = [
            (handler, handler.stream)
            for handler in logging.getLogger("ultralytics").handlers
            if isinstance(handler, logging.StreamHandler)
        ]
        with contextlib.redirect_stdout(tee), contextlib.redirect_stderr(tee):
            for handler, _ in streams:
                handler.stream = tee
            try:
                yield tee
            finally:
                for handler, stream in streams:
                    handler.stream = stream
