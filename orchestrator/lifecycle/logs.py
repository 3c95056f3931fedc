"""Reads a training's log from the store as it grows."""

import time
from collections.abc import Iterator

from gpu_offload.infra.store.errors import ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import run_key

POLL_S = 5.0


def read_log(
    store: ObjectStore, run: str, *, attempt: int | None = None, follow: bool = False
) -> Iterator[str]:
    """Yield a run's log, safe for a terminal; with `follow` until the run is over. Raises JournalError: no such run."""
    journal = Journal(store)
    journal.run(run)
    shown, etag, current = 0, "", attempt
    while True:
        documents = journal.read(run)
        over = documents.outcome is not None
        newest = len(documents.attempts)
        if attempt is None and newest and newest != current:
            shown, etag, current = 0, "", newest
            yield f"--- attempt {newest}: {documents.attempts[-1].record.offer.name} ---\n"
        if current:
            key = run_key(run, f"attempts/{current}/log.txt")
            info = store.stat(key)
            if info is not None and info.etag != etag:
                try:
                    body, etag = store.read(key)[0], info.etag
                except ObjectMissingError:
                    body = b""
                # Up to the last whole line, unless nothing more can come.
                end = len(body) if over or not follow else body.rfind(b"\n") + 1
                if end > shown:
                    yield plain(body[shown:end].decode(errors="replace"))
                    shown = end
        if over or not follow:
            return
        time.sleep(POLL_S)
