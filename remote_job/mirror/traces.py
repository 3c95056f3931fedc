"""Uploads heartbeat, progress and log as they change."""

import json
import os

from pydantic import ValidationError

from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.mirror.target import RunFolder
from gpu_offload.remote_job.result import Heartbeat

TRACES = ("progress.jsonl", "heartbeat.json", "log.txt")
TRACE_BYTES = 64 << 20
ENDED = {"finished", "failed", "interrupted"}
"""States of a heartbeat that no other follows."""


class TraceUploads:
    """Remembers what was sent, so that unchanged files are not sent again."""

    def __init__(self, target: RunFolder) -> None:
        self._target = target
        self._failure: str | None = None
        self._sent: dict[str, tuple[int, int]] = {}

    def report_failure(self, message: str) -> None:
        """Send a failed heartbeat in place of the local one, unless that gives a reason itself."""
        self._failure = message

    def send(self, *, last: bool = False) -> None:
        """Send what has changed. Raises StoreError.

        A heartbeat of an ended training is sent only with `last`: its reader may terminate this machine at once, together
        with a checkpoint that is still being uploaded.
        """
        target = self._target
        for name in TRACES:
            try:
                with regular_file.opened(target.output, name) as descriptor:
                    stat = os.fstat(descriptor)
                    mark = (stat.st_size, stat.st_mtime_ns)
                    if self._sent.get(name) == mark and (self._failure is None or name != "heartbeat.json"):
                        continue
                # Read at once: a file that grows while it is streamed has no length to announce.
                body = regular_file.read(target.output, name, limit=TRACE_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                target.warn_once(str(error))
                continue
            if name == "heartbeat.json":
                if not last and _has_ended(body):
                    continue
                if self._failure is not None:
                    body = _failed(body, self._failure)
            target.store.put(f"{target.attempt}/{name}", body)
            self._sent[name] = mark


def _failed(heartbeat: bytes, message: str) -> bytes:
    try:
        beat = Heartbeat.model_validate_json(heartbeat)
    except ValidationError:
        return heartbeat
    if beat.state == "failed":
        return heartbeat
    return beat.model_copy(update={"state": "failed", "message": message}).model_dump_json().encode()


def _has_ended(heartbeat: bytes) -> bool:
    try:
        return json.loads(heartbeat)["state"] in ENDED
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
