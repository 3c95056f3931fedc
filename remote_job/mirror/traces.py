"""Uploads heartbeat, progress and log as they change."""

import json
import os

from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.mirror.target import Target

TRACES = ("progress.jsonl", "heartbeat.json", "log.txt")
TRACE_BYTES = 64 << 20
ENDED = {"finished", "failed", "interrupted"}
"""States of a heartbeat that no other follows."""


class TraceUploads:
    """Remembers what was sent, so that unchanged files are not sent again."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sent: dict[str, tuple[int, int]] = {}

    def send(self, *, last: bool = False) -> None:
        """Send what has changed. Raises StoreError.

        A heartbeat that says the training has ended is sent only with `last`: its reader may terminate this
        machine at once, together with a checkpoint that is still being uploaded.
        """
        target = self._target
        for name in TRACES:
            try:
                with regular_file.opened(target.output, name) as descriptor:
                    stat = os.fstat(descriptor)
                    mark = (stat.st_size, stat.st_mtime_ns)
                    if self._sent.get(name) == mark:
                        continue
                # Read at once: a file that grows while it is streamed has no length to announce.
                body = regular_file.read(target.output, name, limit=TRACE_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                target.warn_once(str(error))
                continue
            if name == "heartbeat.json" and not last and _has_ended(body):
                continue
            target.store.put(f"{target.attempt}/{name}", body)
            self._sent[name] = mark


def _has_ended(heartbeat: bytes) -> bool:
    try:
        return json.loads(heartbeat)["state"] in ENDED
    except (ValueError, KeyError, TypeError):
        return False
