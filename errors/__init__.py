"""The base class of all errors of gpu-offload, with exit code and remedy."""

from typing import Any, ClassVar

EXIT_FAILED, EXIT_USAGE, EXIT_RESUMABLE = 1, 2, 75
"""Exit codes beside 0: failed, wrong usage or settings, interrupted and resumable (`EX_TEMPFAIL` of sysexits.h)."""


class OffloadError(Exception):
    """An error whose message is written for people: a command prints it without a traceback.

    Attributes:
        exit_code: What the process exits with.
        remedy: What to do about it; empty where the message says so itself.
    """

    exit_code: ClassVar[int] = EXIT_FAILED
    remedy: str = ""

    def json(self) -> dict[str, Any]:
        """Return the error as `--json` prints it: without `remedy` where the message says what to do."""
        facts = {"type": type(self).__name__, "message": str(self)}
        return facts | ({"remedy": self.remedy} if self.remedy else {})


class UsageError(OffloadError):
    """What was asked for, or its settings, cannot be; nothing was begun."""

    exit_code = EXIT_USAGE


class ResumableError(OffloadError):
    """It was interrupted, and the same command carries on."""

    exit_code = EXIT_RESUMABLE
