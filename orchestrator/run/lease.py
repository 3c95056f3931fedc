"""The lease of a driver on a run, by which other drivers see whether this process lives."""

import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.record import RUN_PREFIX
from gpu_offload.remote_job.progress import boot_id as own_boot_id
from gpu_offload.remote_job.wire import Wire

LEASE_S = 150.0
"""A driver that has not renewed for this long counts as dead, unless its process can be checked."""

RENEW_S = 60.0
"""Two renewals may fail before the lease expires."""


def _started(pid: int) -> str | None:
    """Return the kernel's start time of a process, None where there is no such process, "" where unknown."""
    try:
        # The command's name, in parentheses, can hold spaces; the start time is the 20th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""


class LeaseRecord(Wire):
    """The lease of a driver. Safety never depends on it: it keeps two drivers from doing the same work twice."""

    holder: str
    host: str
    boot_id: str
    pid: int = Field(ge=0, lt=2**31)
    started: str
    """When the process started, by its kernel: process numbers are reused."""
    renewed_at: float
    released: bool = False


def read_lease(body: bytes) -> LeaseRecord | None:
    """Return a lease; None for an unreadable one, which counts as expired: its driver renews it or loses it."""
    try:
        return LeaseRecord.model_validate_json(body)
    except ValidationError:
        return None


def holder_text(name: str) -> str:
    """Return who a driver is, in words: `process 4711 on this machine`."""
    host, _, rest = name.partition(":")
    pid, _, _token = rest.partition(":")
    if not pid:
        return name
    return f"process {pid} on {'this machine' if host == socket.gethostname() else host}"


@dataclass
class Lease:
    """This process as a driver of runs, or of what else is below `folder`. `clock` gives Unix seconds."""

    clock: Callable[[], float] = time.time
    folder: str = RUN_PREFIX
    host: str = field(default_factory=socket.gethostname)
    boot_id: str = field(default_factory=own_boot_id)
    pid: int = field(default_factory=os.getpid)
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _held: dict[str, tuple[float, str]] = field(default_factory=dict, repr=False)
    """By run: when our lease was renewed last, and its etag; it saves reading what we wrote ourselves."""

    @property
    def name(self) -> str:
        """How journal and messages call this driver."""
        return f"{self.host}:{self.pid}:{self.token}"

    def lease(self, *, released: bool = False) -> LeaseRecord:
        """Return a lease of now."""
        return LeaseRecord(
            holder=self.name,
            host=self.host,
            boot_id=self.boot_id,
            pid=self.pid,
            started=_started(self.pid) or "",
            renewed_at=self.clock(),
            released=released,
        )

    def is_live(self, lease: LeaseRecord) -> bool:
        """Whether the holder of a lease can still be at work."""
        if lease.released:
            return False
        # On this machine the kernel knows whether the holder lives, so that a restart need not wait.
        if lease.host == self.host and lease.boot_id == self.boot_id:
            started = _started(lease.pid)
            if started is None or (started and lease.started and started != lease.started):
                return False
        # Also by the absolute difference: a lease from the future would otherwise never expire.
        return abs(self.clock() - lease.renewed_at) < LEASE_S

    def _key(self, name: str) -> str:
        return f"{self.folder}{name}/driver.json"

    def live_driver(self, store: ObjectStore, run: str) -> str | None:
        """Return the name of the driver that is at work on a run, None where there is none; takes no lease."""
        try:
            body, _ = store.read(self._key(run))
        except ObjectMissingError:
            return None
        held = read_lease(body)
        return held.holder if held is not None and self.is_live(held) else None

    def claim(self, store: ObjectStore, run: str) -> str | None:
        """Take or renew the lease on a run; return the name of the live driver that has it instead."""
        renewed_at, mine = self._held.get(run, (0.0, ""))
        if mine and self.clock() - renewed_at < RENEW_S:
            return None
        if mine and self._write(store, run, mine) is None:
            return None
        # The object is not what we wrote: another driver's, or it was deleted.
        try:
            body, etag = store.read(self._key(run))
        except ObjectMissingError:
            return self._write(store, run, None)
        held = read_lease(body)
        if held is not None and held.holder != self.name and self.is_live(held):
            return held.holder
        return self._write(store, run, etag)

    def _write(self, store: ObjectStore, run: str, etag: str | None) -> str | None:
        lease, key = self.lease(), self._key(run)
        body = lease.model_dump_json().encode()
        self._held.pop(run, None)
        try:
            etag = store.create(key, body) if etag is None else store.replace(key, body, etag)
        except (ObjectExistsError, ObjectChangedError):
            return self.live_driver(store, run) or "another driver"
        self._held[run] = lease.renewed_at, etag
        return None

    def release(self, store: ObjectStore, run: str) -> None:
        """Release the lease, so that the next driver need not wait for its end."""
        key = self._key(run)
        self._held.pop(run, None)
        try:
            body, etag = store.read(key)
            held = read_lease(body)
            if held is not None and held.holder == self.name:
                store.replace(key, self.lease(released=True).model_dump_json().encode(), etag)
        except (ObjectMissingError, ObjectChangedError):
            return
