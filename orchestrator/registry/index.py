"""The index of all versions: their numbers and their yanks."""

import functools
import gc
from collections.abc import Callable, Iterable

from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.registry.manifest import (
    INDEX_KEY,
    Index,
    IndexEntry,
    Manifest,
    RegistryError,
    Yank,
    model_key,
    parse,
    to_json,
)
from gpu_offload.orchestrator.registry.semver import Bump, change_of, following
from gpu_offload.orchestrator.registry.swap import swap

LONG = 4 << 20
"""Bytes of an index with so many entries that garbage collection among them is slow."""


def manifest_of(store: ObjectStore, version: str) -> Manifest | None:
    """Return a version's manifest, None if the version is not published.

    Raises RegistryError: it cannot be read, belongs to another version, or has file names that are not ours.
    """
    key = model_key(version, "manifest.json")
    try:
        body, _ = store.read(key)
    except ObjectMissingError:
        return None
    return checked_manifest(store, version, body)


def checked_manifest(store: ObjectStore, version: str, body: bytes) -> Manifest:
    """Parse the manifest of a version; see `manifest_of`."""
    key = model_key(version, "manifest.json")
    manifest = parse(Manifest, key, body)
    if manifest.version != version or not manifest.has_plain_names:
        raise RegistryError(
            f"{key} in {store.url} is the manifest of version {plain(manifest.version)[:64]!r} and its files "
            f"{plain(', '.join(file.name for file in manifest.files))[:128]!r}: it was replaced; ask the publisher of that store"
        )
    return manifest


def versions(store: ObjectStore) -> tuple[IndexEntry, ...]:
    """Return the entries of all published versions, oldest first, each with its number."""
    try:
        body, _ = store.read(INDEX_KEY)
    except ObjectMissingError:
        return ()
    return _read(body)


def entry_of(entries: Iterable[IndexEntry], version: str) -> IndexEntry | None:
    """Return a version's entry, None if it is not listed."""
    return next((entry for entry in entries if entry.version == version), None)


def list_version(store: ObjectStore, manifest: Manifest, bump: Bump | None = None) -> IndexEntry:
    """Add a published version to the index, numbered by the rule or by `bump`; return its entry, old or new.

    A version that was deleted and trained again keeps its number and gets its new files.
    """
    # By version: the swap repeats this under contention, and manifests do not change.
    known: dict[str, Bump] = {}
    listed: list[IndexEntry] = []

    def add(body: bytes | None) -> bytes | None:
        entries = _read(body)
        # Cleared, because the swap repeats this after another writer.
        listed[:] = [entry for entry in entries if entry.version == manifest.version]
        if listed:
            old = listed[0]
            if not old.deleted:  # other files than the listed ones would be forged
                return None
            judged = {"yanked": old.yanked, "cleared_at": old.cleared_at, "deleted": True}
            listed[0] = entry_for(manifest, old.semver).model_copy(update=judged)
            return to_json(Index(versions=tuple(listed[0] if e is old else e for e in entries)))
        parent = entry_of(entries, manifest.parent or "") or (entries[-1] if entries else None)
        if bump is not None:
            change = bump
        elif parent is None:
            change = "major"
        else:
            if parent.version not in known:
                before = manifest_of(store, parent.version)
                known[parent.version] = change_of(manifest, before).bump if before else "minor"
            change = known[parent.version]
        taken = [entry.semver or "" for entry in entries]
        number = following(change, parent.semver if parent else None, taken)
        listed.append(entry_for(manifest, number))
        return to_json(Index(versions=(*entries, *listed)))

    swap(store, INDEX_KEY, add)
    return listed[0]


def mark_yanked(store: ObjectStore, version: str, yank: Yank | None) -> None:
    """Mark a version as yanked, or as no longer yanked. When it is repeated, the first mark stays."""

    def mark(entry: IndexEntry) -> IndexEntry:
        same = (entry.yanked is None) == (yank is None)
        cleared = entry.cleared_at if yank else clock_of(store)()
        return entry if same else entry.model_copy(update={"yanked": yank, "cleared_at": cleared})

    _change(store, version, mark)


def mark_deleted(store: ObjectStore, version: str, *, deleted: bool = True) -> None:
    """Mark a version's files as deleted, or as there again."""
    _change(store, version, lambda entry: entry.model_copy(update={"deleted": deleted}))


def _change(store: ObjectStore, version: str, change: Callable[[IndexEntry], IndexEntry]) -> None:
    def changed(body: bytes | None) -> bytes | None:
        if body is None:
            return None
        entries = tuple(change(e) if e.version == version else e for e in _read(body))
        return to_json(Index(versions=entries))

    swap(store, INDEX_KEY, changed)


def entry_for(manifest: Manifest, semver: str | None = None) -> IndexEntry:
    """Return the index entry of a version."""
    return IndexEntry(
        version=manifest.version,
        created_at=manifest.created_at,
        sha256=manifest.model.sha256,
        size=manifest.model.size,
        file=manifest.model.name,
        exports={export.format: export.file for export in manifest.exports},
        metrics=manifest.metrics,
        commit=manifest.commit,
        semver=semver,
        training_key=manifest.training_key,
        recipe=manifest.recipe,
        fingerprint=manifest.fingerprint,
        parent=manifest.parent,
        where=manifest.where,
        cost_usd=manifest.cost_usd,
    )


def numbered(entries: Iterable[IndexEntry]) -> tuple[IndexEntry, ...]:
    """Return entries with numbers. Every reader counts an old entry without one as a minor change."""
    found: list[IndexEntry] = []
    entries = tuple(entries)
    taken = [entry.semver for entry in entries if entry.semver]
    for entry in entries:
        if entry.semver is None:
            last = found[-1].semver if found else None
            number = following("minor", last, taken)
            taken.append(number)
            found.append(entry.model_copy(update={"semver": number}))
        else:
            found.append(entry)
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _read(body: bytes | None) -> tuple[IndexEntry, ...]:
    """Parse an index. The cache helps because a command reads the same one, of up to 100,000 entries, several times."""
    if body is None:
        return ()
    collects = gc.isenabled()
    gc.disable()  # none of the many new objects is garbage, and looking for it would take most of the time
    try:
        return numbered(parse(Index, INDEX_KEY, body).versions)
    finally:
        if len(body) > LONG:
            gc.freeze()  # later collections skip them, too
        if collects:
            gc.enable()
