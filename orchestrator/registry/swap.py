"""Compare-and-swap of a document in a store."""

from collections.abc import Callable

from gpu_offload.infra.retry import contended
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
)
from gpu_offload.infra.store.protocol import ObjectStore

TRIES = 60
"""Attempts, because twenty writers at once lose most of them."""


def swap(
    store: ObjectStore, key: str, change: Callable[[bytes | None], bytes | None], tries: int = TRIES
) -> bytes | None:
    """Change a document by compare-and-swap, and return what is there then.

    `change` gets the document, None if there is none, and returns the new one, or None if there is nothing to change. It
    is called again with the present document if another writer came first.

    Raises:
        StoreError: Others came first `tries` times in a row.
    """
    try:
        for attempt in contended((ObjectChangedError, ObjectExistsError), tries):
            with attempt:
                return _tried(store, key, change)
    except (ObjectChangedError, ObjectExistsError) as error:
        raise StoreError(
            f"{store.url}: others changed {key} {tries} times in a row; nothing is lost: run this again"
        ) from error
    raise AssertionError  # the loop returns or raises


def _tried(store: ObjectStore, key: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
    try:
        body, etag = store.read(key)
    except ObjectMissingError:
        body, etag = None, None
    new = change(body)
    # What is not written cannot make other writers try again.
    if new is None or new == body:
        return body
    if etag is None:
        store.create(key, new)
    else:
        store.replace(key, new, etag)
    return new
