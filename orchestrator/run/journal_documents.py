"""Documents of the journal: format, errors, reading and creating one."""

import json
from typing import TypeVar

from pydantic import ValidationError

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.errors import ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job.wire import Wire, faults_text

T = TypeVar("T", bound=Wire)

FORMAT = 1
"""The newest format of a document that this version understands."""


class JournalError(OffloadError):
    """The journal has no such run, or a document of it is damaged."""


class NewerJournalError(JournalError):
    """A document has a format that only a newer version understands."""


def sequence_of(run: str) -> int:
    """Return the number at the end of a run's id."""
    return int(run.rsplit("-", 1)[1])


def _is_newer(body: bytes) -> bool:
    """Whether a document has a newer format than this version."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    number = document.get("format", 1) if isinstance(document, dict) else 1
    return isinstance(number, int) and number > FORMAT


def to_json(document: Wire) -> bytes:
    """Return a document as the journal stores it."""
    return document.model_dump_json(indent=1, by_alias=True).encode() + b"\n"


class Documents:
    """Reads and creates the JSON documents of one store; each is written once."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._known: dict[str, tuple[str, Wire]] = {}

    def create(self, key: str, document: Wire) -> bool:
        """Write a document; False where there is another one."""
        try:
            self.store.create(key, to_json(document))
        except ObjectExistsError:
            return False
        return True

    def read(self, kind: type[T], key: str) -> T | None:
        """Return a document, None where there is none. Raises JournalError for a damaged or a newer one."""
        try:
            body, _ = self.store.read(key)
        except ObjectMissingError:
            return None
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            where = f"{self.store.url}: {key}"
            if _is_newer(body):
                raise NewerJournalError(
                    f"{where} was written by a newer version of gpu-offload: use that version, or a newer one"
                ) from error
            raise JournalError(f"{where} is not a readable {kind.__name__} ({faults_text(error)})") from error

    def read_changed(self, kind: type[T], key: str, etag: str) -> T | None:
        """Read a document, unless this etag of it was read before."""
        known = self._known.get(key)
        if known is not None and known[0] == etag and isinstance(known[1], kind):
            return known[1]
        document = self.read(kind, key)
        if document is not None:
            # What was read can be newer than the listing that gave the etag; it is then read once more.
            self._known[key] = etag, document
        return document
