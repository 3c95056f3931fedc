"""A store in memory, and the same as one driver of a crash case reaches it."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from crash_scenario import MANIFEST_KEY, sha_of

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreUnreachableError,
)
from gpu_offload.infra.store.protocol import ObjectInfo

if TYPE_CHECKING:
    from crash_driver import Actor
if TYPE_CHECKING:
    from crash_world import World


class MemoryStore:
    """An object store in memory, as `infra.store.protocol` describes it; the instances use it directly."""

    url = "memory:"

    def __init__(self, world: "World") -> None:
        self.world = world
        self.objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self.written = Counter()
        self._etags = itertools.count(1)

    def read(self, key: str) -> tuple[bytes, str]:
        try:
            body, info = self.objects[key]
        except KeyError:
            raise ObjectMissingError(key) from None
        return body, info.etag

    def stat(self, key: str) -> ObjectInfo | None:
        found = self.objects.get(key)
        return found[1] if found else None

    def put(self, key: str, body: bytes) -> str:
        etag = f"e{next(self._etags)}"
        if key == MANIFEST_KEY and any(m.lives(self.world.now) for m in self.world.machines):
            self.world.rented_while_publishing = True
        self.objects[key] = (
            body,
            ObjectInfo(key, len(body), etag, datetime.fromtimestamp(self.world.now, UTC)),
        )
        self.written[key] += 1
        return etag

    def create(self, key: str, body: bytes) -> str:
        if key in self.objects:
            if self.objects[key][0] == body:
                return self.objects[key][1].etag
            raise ObjectExistsError(key)
        return self.put(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        if key not in self.objects:
            raise ObjectChangedError(key)
        found, info = self.objects[key]
        if info.etag != etag:
            if found == body:
                return info.etag
            raise ObjectChangedError(key)
        return self.put(key, body)

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        body = path.read_bytes()
        (self.create if create else self.put)(key, body)
        found = self.stat(key)
        assert found is not None
        return found

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        body, _ = self.read(key)
        if (size is not None and len(body) != size) or (sha256 is not None and sha_of(body) != sha256):
            raise CorruptObjectError(key)
        path.write_bytes(body)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for key in sorted(k for k in self.objects if k.startswith(prefix)):
            if (found := self.stat(key)) is not None:
                yield found

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def public_url(self, key: str) -> str | None:
        del key
        return None


class DriverStore:
    """The store as one driver reaches it: every write is an effect, and so is a file that is written here."""

    EFFECTS = frozenset({"put", "create", "replace", "upload", "delete", "download"})

    def __init__(self, actor: "Actor") -> None:
        self._actor, self._store = actor, actor.world.store
        self.url = self._store.url

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._store, name)

        def call(*args: object, **more: object) -> object:
            if name not in self.EFFECTS:
                self._actor.check()
                return method(*args, **more)
            return self._actor.effect(
                f"{name} {args[0]}", lambda: method(*args, **more), lost=StoreUnreachableError, seconds=0.1
            )

        return call
