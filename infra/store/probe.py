"""Probes what a store supports: conditional writes, public reads."""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from gpu_offload.infra import http
from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError, StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.s3 import S3Store


@dataclass(frozen=True, slots=True)
class Conditional:
    """Results of a probe. `faults` and `weaknesses` are sentences; `public` is an HTTP status, None if not asked."""

    faults: tuple[str, ...]
    """What keeps several machines from using the store."""
    weaknesses: tuple[str, ...]
    """What harms only two machines that publish the same version at the same time."""
    public: int | None


def probe_store(store: ObjectStore, *, public: bool = False) -> Conditional:
    """Create a test object, list it, create and replace it again, check whether it is public, and delete it.

    Args:
        store: Any store that can be written to.
        public: Whether to ask, without credentials, for the object at its web address.

    Raises:
        StoreError: It cannot be written, or not removed.
    """
    # A key that the launcher's policy lets it write, replace and delete.
    key = f"runs/doctor-{secrets.token_hex(6)}/checkpoint/probe.json"
    etag = store.create(key, b"1")
    faults: list[str] = []
    weaknesses: list[str] = []
    status = None
    try:
        if store.read(key)[0] != b"1":
            faults.append("it gave back other bytes than were written")
        if not any(info.key == key for info in store.list(key.removesuffix("probe.json"))):
            faults.append("it does not list an object that was just written: no run could be found")
        with suppress(ObjectExistsError):
            store.create(key, b"2")
            faults.append("it ignores If-None-Match: two runs could overwrite one another's journal")
        faults += _replacing(store, key, etag)
        if isinstance(store, S3Store) and not store.completes_conditionally(key):
            weaknesses.append(
                "it ignores If-None-Match where an upload in parts completes: two that publish the same version "
                "at once could overwrite one another's model"
            )
        url = store.public_url(key) if public else None
        if url is not None:
            status = anonymous(url)
    finally:  # also after a fault of the store: a probe leaves nothing
        store.delete(key)
    return Conditional(tuple(faults), tuple(weaknesses), status)


def _replacing(store: ObjectStore, key: str, etag: str) -> list[str]:
    """Replace an object twice by its etag, which is right the first time only; return the faults."""
    try:
        if store.replace(key, b"3", etag) == etag:
            return ["an object's etag does not change with its content"]
    except ObjectChangedError:
        return ["it refuses If-Match with the etag that an object has: no alias could move"]
    try:
        store.replace(key, b"4", etag)
    except ObjectChangedError:
        return []
    return ["it ignores If-Match: two that publish at once could undo one another"]


def anonymous(url: str) -> int:
    """Return the HTTP status of a request without credentials; 0 without an answer."""
    try:
        with http.ask(url, headers={"Range": "bytes=0-0"}, timeout=15) as reply:
            return int(reply.status)
    except http.StatusError as error:
        return error.status
    except http.HttpError:
        return 0


def first_published(store: ObjectStore) -> str | None:
    """Return the key of an object that should be public; None where nothing is published yet."""
    try:
        return next((info.key for info in store.list("models/")), None)
    except StoreError:
        return None
