"""Compare-and-swap of a document in a store."""

import random
import time
from collections.abc import Callable

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
)
from gpu_offload.infra.store.protocol import ObjectStore

TRIES = 60
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
"""Before another try; each a random share of its length, so that many that collide part."""


def swap(store: ObjectStore, key: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
    """Change a document by compare-and-swap, and return what is there then.

    `change` gets the document, None where there is none, and returns the new one, or None when there is nothing to
    change. It is called again, with what is there by then, when another writer came first.

    Raises:
        StoreError: Others kept coming first.
    """
    for attempt in range(TRIES):
        try:
            body, etag = store.read(key)
        except ObjectMissingError:
            body, etag = None, None
        new = change(body)
        if new is None or new == body:
            return body
        try:
            if etag is None:
                store.create(key, new)
            else:
                store.replace(key, new, etag)
        except (ObjectChangedError, ObjectExistsError):
            time.sleep(random.random() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))  # noqa: S311 - no secret
            continue
        return new
    raise StoreError(f"{store.url}: {key} kept changing under {TRIES} tries; run the command again")
