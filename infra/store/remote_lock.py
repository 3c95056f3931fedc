"""The lock of a store without compare-and-swap: the folder `.lock` below its root, with one writer's file in it.

A writer moves its temporary file into the folder, and holds the lock while that is the only one there. From there the file
is renamed to its object, so that a writer whose lock was taken over, which removes the file, can write nothing any more.
This needs renames and listings that all writers see at once (SFTP, POSIX). A service with several folders of one name
(Google Drive) is for one writer at a time.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gpu_offload.infra.store.errors import StoreUnreachableError
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
    def held(self, temporary: str) -> Iterator[str]:
        """Hold the lock with a temporary file; yield where that is meanwhile. It is gone afterwards.

        Raises OSError where the server makes no lock for `patience_s` seconds, with no other in the way.
        """
        mine = f"{self._path}/{temporary.rpartition('/')[2]}"
        # Threads of one process would otherwise wait for each other by polling the server.
        with _threads[self._connection.url]:
            self._take(temporary, mine)
            try:
                yield mine
            finally:
                self._remove([mine])

    def rename(self, mine: str, path: str) -> None:
        """Rename the file with which the lock is held. Raises StoreUnreachableError if the lock was taken over."""
        try:
            self._connection.files.mv(mine, path)
        except FileNotFoundError as error:
            if mine in (self._holders() or ()):
                raise  # the object's folder is gone
            raise self._lost() from error

    def _take(self, temporary: str, mine: str) -> None:
        seen: list[str] | None = None
        since = time.monotonic()
        while True:
            try:
                return self._enter(temporary, mine)
            except OSError:
                # SFTP says no more than that it failed: a lock is in the way, or the disk is full.
                now = self._holders()
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self.patience_s:
                    if now is None:
                        raise
                    self._remove(now)
                    since = time.monotonic()
                time.sleep(POLL_S)

    def _enter(self, temporary: str, mine: str) -> None:
        """Make the lock, and be alone in it. Raises OSError."""
        files = self._connection.files
        files.mkdir(self._path, create_parents=False)
        try:
            files.mv(temporary, mine)
        except OSError:
            self._remove([])
            raise
        holders = self._holders() or []
        if mine not in holders:
            raise self._lost()
        if holders != [mine]:  # it looked left behind to another writer, who made it anew at the same moment
            files.mv(mine, temporary)
            self._remove([])
            raise FileExistsError(self._path)

    def _holders(self) -> list[str] | None:
        """Return the files of the writers that have the lock, or try to; None where there is no lock."""
        files = self._connection.files
        try:
            files.invalidate_cache(self._path)
            return sorted(files.ls(self._path, detail=False))
        except FileNotFoundError:
            return None

    def _remove(self, holders: list[str]) -> None:
        """Remove these writers' files, and the folder if no other writer's is in it."""
        for path in holders:
            with suppress(OSError):
                self._connection.files.rm_file(path)
        with suppress(OSError):
            self._connection.files.rmdir(self._path)

    def _lost(self) -> StoreUnreachableError:
        return StoreUnreachableError(
            f"{self._connection.url}: another writer took the lock over after {self.patience_s:.0f} s; run the command again"
        )
