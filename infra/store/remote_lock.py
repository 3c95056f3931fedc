"""The lock of a store without compare-and-swap: the folder `.lock` below its root, which one writer makes.

SFTP and POSIX file systems make a folder once; a service that lets two have the same name (Google Drive) is for one
writer at a time. A lock that does not change for `LOCK_S` is one of a writer that died, and is taken over.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gpu_offload.infra.store.remote_connection import RemoteConnection

LOCK_S = 60.0
"""Seconds of waiting after which a lock that has not changed counts as left behind; a write holds it for a rename."""

POLL_S = 0.05

_threads: dict[str, threading.Lock] = defaultdict(threading.Lock)
"""One lock for the writers of this process, by the store's address."""


class RemoteLock:
    """The lock of one store. Another writer's is taken over once it has not changed for `patience_s` seconds."""

    def __init__(self, connection: RemoteConnection, patience_s: float = LOCK_S) -> None:
        self.patience_s = patience_s
        self._connection = connection
        self._path = f"{connection.root}/.lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises OSError where the server makes none for `patience_s` seconds, with no other in the way."""
        # Threads of one process would otherwise wait for each other by polling the server.
        with _threads[self._connection.url]:
            self._take()
            try:
                yield
            finally:
                with suppress(OSError):
                    self._connection.files.rmdir(self._path)

    def _take(self) -> None:
        seen, since = None, time.monotonic()
        while True:
            try:
                self._connection.files.mkdir(self._path, create_parents=False)
            except OSError:
                # SFTP says no more than that it failed: a lock is in the way, or the disk is full.
                now = self._age_mark()
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self.patience_s:
                    if now is None:
                        raise
                    with suppress(OSError):
                        self._connection.files.rmdir(self._path)
                    since = time.monotonic()
                time.sleep(POLL_S)
            else:
                return

    def _age_mark(self) -> object:
        """Return what changes when another writer takes the lock, None where it was just given back."""
        try:
            info = self._connection.files.info(self._path)
        except FileNotFoundError:
            return None
        # A service without times: a lock is then taken over after `patience_s`, also from one that still works.
        return info.get("mtime") or info.get("created") or "locked"
