"""The model registry: versions that are written once, aliases that move, an index that lists them.

models/<version>/model.<suffix>  written first; the training chose the suffix
models/<version>/manifest.json   written after it: a version is visible from here on, and complete
index.json                       every version, newest last; moved by compare-and-swap
aliases/<name>.json              which version the name means; moves last, by compare-and-swap
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreDeniedError,
    StoreError,
)
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry.manifest import (
    INDEX_KEY,
    STABLE,
    Alias,
    Index,
    IndexEntry,
    Manifest,
    RegistryError,
    alias_key,
    model_key,
    parse,
    to_json,
)

CAS_TRIES = 20


def manifest_of(store: ObjectStore, version: str) -> Manifest | None:
    """Return a version's manifest, None where the version is not published. Raises RegistryError if unreadable."""
    key = model_key(version, "manifest.json")
    try:
        body, _ = store.read(key)
    except ObjectMissingError:
        return None
    return parse(Manifest, key, body)


def alias_of(store: ObjectStore, name: str) -> Alias | None:
    """Return what an alias means, None where there is no such alias."""
    key = alias_key(name)
    try:
        body, _ = store.read(key)
    except ObjectMissingError:
        return None
    return parse(Alias, key, body)


def versions(store: ObjectStore) -> tuple[IndexEntry, ...]:
    """Return every published version, oldest first."""
    try:
        body, _ = store.read(INDEX_KEY)
    except ObjectMissingError:
        return ()
    return parse(Index, INDEX_KEY, body).versions


def publish(store: ObjectStore, manifest: Manifest, model: Path, *, note: Callable[[str], None]) -> Manifest:
    """Publish a verified model; harmless to repeat, and to be killed in at any instant.

    Whoever comes second finds the version and returns what is published. The alias `stable` moves last.

    Raises:
        StoreError: the store refused; nothing incomplete is visible.
    """
    there = manifest_of(store, manifest.version)
    if there is None:
        _write_model(store, manifest, model, note)
        try:
            store.create(model_key(manifest.version, "manifest.json"), to_json(manifest))
            there = manifest
        except ObjectExistsError:
            there = manifest_of(store, manifest.version)
            if there is None:
                raise
    complete(store, there, now=there.created_at)
    return there


def complete(
    store: ObjectStore, manifest: Manifest, *, again: bool = False, now: float | None = None
) -> bool:
    """List a published version and let `stable` mean it; return whether `stable` moved.

    A publish that was killed after its manifest is completed by this. Then `stable` stays where a later
    publish moved it, unless `again` says that this version is wanted now, as after a revert.
    """
    _list_version(store, manifest)
    alias = alias_of(store, STABLE)
    if alias is not None and alias.version != manifest.version:
        if not again and alias.moved_at > manifest.created_at:
            return False
    elif alias is not None:
        return False
    move_alias(store, STABLE, manifest, now=time.time() if now is None else now)
    return True


def _write_model(store: ObjectStore, manifest: Manifest, model: Path, note: Callable[[str], None]) -> None:
    key = model_key(manifest.version, manifest.model.name)
    try:
        store.upload(key, model, create=True)
    except ObjectExistsError:
        # A publish that was killed before its manifest, by a run whose result then got lost: nobody sees
        # this model, nothing refers to it, and no manifest can be written for it any more.
        if manifest_of(store, manifest.version) is None:
            note(f"replacing {key}, which an unfinished publish left without a manifest")
            try:
                store.upload(key, model)
            except StoreDeniedError as error:
                raise RegistryError(
                    f"{key} was left by an unfinished publish, and the store lets nobody replace it. Nobody sees "
                    f"it: delete it as the bucket's owner and run the command again ({error})"
                ) from error


def _list_version(store: ObjectStore, manifest: Manifest) -> None:
    entry = IndexEntry(
        version=manifest.version,
        created_at=manifest.created_at,
        sha256=manifest.model.sha256,
        size=manifest.model.size,
        metrics=manifest.metrics,
        commit=manifest.commit,
    )

    def add(body: bytes | None) -> bytes | None:
        index = Index() if body is None else parse(Index, INDEX_KEY, body)
        if any(e.version == entry.version for e in index.versions):
            return None
        return to_json(Index(versions=(*index.versions, entry)))

    _swap(store, INDEX_KEY, add)


def move_alias(store: ObjectStore, name: str, manifest: Manifest, *, now: float) -> None:
    """Let an alias mean a version; `now` in Unix seconds."""
    key = alias_key(name)

    def move(body: bytes | None) -> bytes | None:
        if body is not None and parse(Alias, key, body).version == manifest.version:
            return None
        alias = Alias(name=name, version=manifest.version, sha256=manifest.model.sha256, moved_at=now)
        return to_json(alias)

    _swap(store, key, move)


def _swap(store: ObjectStore, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Change a document by compare-and-swap; `change` returns None when there is nothing to change."""
    for _ in range(CAS_TRIES):
        try:
            body, etag = store.read(key)
        except ObjectMissingError:
            body, etag = None, None
        new = change(body)
        if new is None:
            return
        try:
            if etag is None:
                store.create(key, new)
            else:
                store.replace(key, new, etag)
        except (ObjectChangedError, ObjectExistsError):
            continue
        return
    raise StoreError(f"{store.url}: {key} kept changing under {CAS_TRIES} tries; run the command again")


def unpublished_models(store: ObjectStore) -> Iterator[str]:
    """Yield versions that have a model but no manifest: publishes that were killed, invisible to readers."""
    files: dict[str, set[str]] = {}
    for info in store.list("models/"):
        _, version, name = info.key.split("/", 2)
        files.setdefault(version, set()).add(name)
    yield from (v for v, names in sorted(files.items()) if "manifest.json" not in names)
