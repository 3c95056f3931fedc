"""The model registry: versions that are written once, aliases that move, an index that lists them.

models/<version>/model.pt        written first
models/<version>/manifest.json   written after it: a version is visible from here on, and complete
index.json                       every version, newest last; moved by compare-and-swap
aliases/<name>.json              which version the name means; moves last, by compare-and-swap
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreDeniedError,
    StoreError,
)
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.interval import Interval
from gpu_offload.orchestrator.run import RunRecord, run_key
from gpu_offload.remote_job.result import Artifact, TrainingResult
from gpu_offload.remote_job.wire import Wire

STABLE = "stable"
INDEX_KEY = "index.json"
CAS_TRIES = 20

T = TypeVar("T", bound=Wire)


class ManifestEstimate(Wire):
    """What was estimated, and what it took, in seconds."""

    estimated: Interval
    actual: float


class Manifest(Wire):
    """Everything about a published version. Public, so it names no host and no account."""

    format: Literal[1] = 1
    version: str
    training_key: str
    fingerprint: str
    run: str
    commit: str | None = None
    repository: str | None = None
    created_at: float
    model: Artifact
    task: str
    base_model: str
    epochs: int
    epochs_completed: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] = Field(default_factory=dict)
    seconds: ManifestEstimate
    where: str
    cost_usd: float
    environment: dict[str, Any] = Field(default_factory=dict)


class IndexEntry(Wire):
    """A version as the index lists it."""

    version: str
    created_at: float
    sha256: str
    size: int
    metrics: dict[str, float]
    commit: str | None = None


class Index(Wire):
    """Every version, oldest first."""

    format: Literal[1] = 1
    versions: tuple[IndexEntry, ...] = ()


class Alias(Wire):
    """Which version a name means now."""

    format: Literal[1] = 1
    name: str
    version: str
    sha256: str
    moved_at: float


class RegistryError(Exception):
    """The registry does not hold what was asked for, or holds something that it should not."""


def model_key(version: str, name: str = "model.pt") -> str:
    """Return the store key of a version's file."""
    return f"models/{version}/{name}"


def alias_key(name: str) -> str:
    """Return the store key of an alias."""
    return f"aliases/{name}.json"


def manifest_of(store: ObjectStore, version: str) -> Manifest | None:
    """Return a version's manifest, None where the version is not published. Raises RegistryError if unreadable."""
    key = model_key(version, "manifest.json")
    try:
        body, _ = store.read(key)
    except ObjectMissingError:
        return None
    return _parsed(Manifest, key, body)


def alias_of(store: ObjectStore, name: str) -> Alias | None:
    """Return what an alias means, None where there is no such alias."""
    key = alias_key(name)
    try:
        body, _ = store.read(key)
    except ObjectMissingError:
        return None
    return _parsed(Alias, key, body)


def versions(store: ObjectStore) -> tuple[IndexEntry, ...]:
    """Return every published version, oldest first."""
    try:
        body, _ = store.read(INDEX_KEY)
    except ObjectMissingError:
        return ()
    return _parsed(Index, INDEX_KEY, body).versions


def resolve(store: ObjectStore, wanted: str) -> Manifest:
    """Return the manifest of an alias or of a version, given whole or by an unambiguous beginning.

    Raises:
        RegistryError: nothing, or more than one version, is meant.
    """
    alias = alias_of(store, wanted) if _is_name(wanted) else None
    if alias is not None:
        found = manifest_of(store, alias.version)
        if found is None:
            raise RegistryError(f"the alias {wanted} points at {alias.version}, which is not published")
        return found
    matches = [e.version for e in versions(store) if e.version.startswith(wanted)]
    if len(matches) > 1:
        raise RegistryError(f"{wanted} is ambiguous: {', '.join(matches)}")
    found = manifest_of(store, matches[0] if matches else wanted) if _is_name(wanted) else None
    if found is None:
        known = ", ".join(e.version for e in versions(store)[-5:]) or "none yet; run `offload train`"
        raise RegistryError(f"no version or alias {wanted!r} in {store.url} (the newest versions: {known})")
    return found


def verify_staged(store: ObjectStore, run: RunRecord, result: TrainingResult, scratch: Path) -> Path:
    """Read a staged model back whole and return where it lies in `scratch`.

    Raises:
        RegistryError: the result is not of this training, or did not complete its epochs.
        CorruptObjectError: size or sha256 differ.
        ObjectMissingError: the model is not there.
    """
    faults = []
    if result.training_key != run.training_key:
        faults.append(f"it is of the training {result.training_key[:16]}, not {run.training_key[:16]}")
    if result.epochs_completed < run.spec.epochs and not result.stopped_early:
        faults.append(f"it completed {result.epochs_completed} of {run.spec.epochs} epochs")
    if faults:
        raise RegistryError(f"the staged result of run {run.id} does not count: " + "; ".join(faults))
    target = scratch / "model.pt"
    store.download(
        run_key(run.id, f"result/{result.model.name}"),
        target,
        size=result.model.size,
        sha256=result.model.sha256,
    )
    return target


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
            store.create(model_key(manifest.version, "manifest.json"), _json(manifest))
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
    key = model_key(manifest.version)
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
        index = Index() if body is None else _parsed(Index, INDEX_KEY, body)
        if any(e.version == entry.version for e in index.versions):
            return None
        return _json(Index(versions=(*index.versions, entry)))

    _swap(store, INDEX_KEY, add)


def move_alias(store: ObjectStore, name: str, manifest: Manifest, *, now: float) -> None:
    """Let an alias mean a version; `now` in Unix seconds."""
    key = alias_key(name)

    def move(body: bytes | None) -> bytes | None:
        if body is not None and _parsed(Alias, key, body).version == manifest.version:
            return None
        alias = Alias(name=name, version=manifest.version, sha256=manifest.model.sha256, moved_at=now)
        return _json(alias)

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


def pull(store: ObjectStore, wanted: str, destination: Path) -> tuple[Manifest, Path, bool]:
    """Download a version, verified, and rename it into place.

    `destination` is a file, or a folder that receives `model.pt`. Returns the manifest, the file and whether
    it was downloaded (False: the file there already is this version, whole).

    Raises:
        RegistryError: no such version. CorruptObjectError: what came is not what was published.
    """
    manifest = resolve(store, wanted)
    target = destination / "model.pt" if destination.is_dir() or not destination.suffix else destination
    if _matches(target, manifest.model):
        return manifest, target, False
    target.parent.mkdir(parents=True, exist_ok=True)
    store.download(
        model_key(manifest.version), target, size=manifest.model.size, sha256=manifest.model.sha256
    )
    return manifest, target, True


def _matches(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256


def unpublished_models(store: ObjectStore) -> Iterator[str]:
    """Yield versions that have a model but no manifest: publishes that were killed, invisible to readers."""
    files: dict[str, set[str]] = {}
    for info in store.list("models/"):
        _, version, name = info.key.split("/", 2)
        files.setdefault(version, set()).add(name)
    yield from (v for v, names in sorted(files.items()) if "manifest.json" not in names)


def _is_name(text: str) -> bool:
    return bool(text) and all(c.isalnum() or c in "-_." for c in text) and not text.startswith(".")


def _json(document: Wire) -> bytes:
    return (json.dumps(document.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def _parsed(kind: type[T], key: str, body: bytes) -> T:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise RegistryError(
            f"{key} is not a {kind.__name__} that this version understands: {error}"
        ) from error
