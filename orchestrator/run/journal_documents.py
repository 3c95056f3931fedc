"""Documents of the journal: format, errors, keys."""

import json

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.result import Heartbeat
from gpu_offload.remote_job.wire import Wire

FORMAT = 1
"""The newest format of a document that this version understands."""


class JournalError(OffloadError):
    """The journal has no such run, or a document of it is damaged."""


class NewerJournalError(JournalError):
    """A document has a format that only a newer version understands."""


def sequence_of(run: str) -> int:
    """Return the number at the end of a run's id."""
    return int(run.rsplit("-", 1)[1])


def is_newer(body: bytes) -> bool:
    """Whether a document names a format above ours."""
    try:
        document = json.loads(body)
    except ValueError:
        return False
    number = document.get("format", 1) if isinstance(document, dict) else 1
    return isinstance(number, int) and number > FORMAT


def sign_of_life(run: str, attempt: int, at: float) -> Heartbeat:
    """Return what an unreadable heartbeat says: that its training was alive when it was written."""
    return Heartbeat(
        run=run, attempt=attempt, time=at, pid=0, host="", boot_id="", epochs_completed=0, epochs=0,
        state="training",
    )  # fmt: skip


def to_json(document: Wire) -> bytes:
    """Return a document as the journal stores it."""
    return document.model_dump_json(indent=1, by_alias=True).encode() + b"\n"
