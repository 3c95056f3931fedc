"""Keep what a folder store holds where the folder is thrown away: in a release of the repository.

A hosted runner's disk is gone with its job. So a training reads what was published before from the release, packs
what is new, and hands it to a job that may write to the repository and runs no training.
"""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from gpu_offload.infra.github.release import GitHubRelease
from gpu_offload.infra.store.errors import CorruptObjectError, ObjectChangedError, ObjectMissingError
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.web import asset_name
from gpu_offload.orchestrator.github.cached_store import KeptFolder, pack, unfinished_key
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry import index, publish
from gpu_offload.orchestrator.registry.manifest import (
    CANDIDATE,
    INDEX_KEY,
    STABLE,
    Alias,
    Index,
    Manifest,
    RegistryError,
    alias_key,
    model_key,
)
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import RUN_KEY_LENGTH, RUN_PREFIX
from gpu_offload.remote_job.wire import Wire

T = TypeVar("T", bound=Wire)

TRIES = 5
"""Attempts to write the index or an alias while another job writes it at the same time."""

ALIASES = (alias_key(CANDIDATE), alias_key(STABLE))


@dataclass(frozen=True, slots=True)
class Packed:
    """What a training leaves to be kept: the version it published, or the unfinished runs that have a checkpoint."""

    version: str | None = None
    unfinished: int = 0
    moved: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that is not kept already."""
        return not (self.version or self.unfinished or self.moved)


def pack_for_keeping(store: KeptFolder, training_key: str, folder: Path) -> Packed:
    """Write what is new in a store into `folder`, each object under the name that it has in the release.

    Raises:
        StoreError: the store, or the place where it is kept, did not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = version_of(training_key)
    manifest = model_key(version, "manifest.json")
    kept = _text(store.kept, manifest)
    published = publish.manifest_of(store, version)
    if published is None:
        prefix = f"{RUN_PREFIX}{training_key[:RUN_KEY_LENGTH]}-"
        journal = Journal(store)
        count = sum(journal.checkpoint(run.id) is not None for run in journal.runs_of(training_key))
        if count:
            pack(store, prefix, folder / asset_name(unfinished_key(training_key)))
        return Packed(unfinished=count)
    keys = [INDEX_KEY, *ALIASES, manifest]
    if kept is None:
        keys.append(model_key(version, published.model.name))
    for key in keys:
        with suppress(ObjectMissingError):  # no version was good enough for `stable` yet, or each one was
            store.download(key, folder / asset_name(key))
    moved = any(_text(store.kept, key) != _text(store, key) for key in (INDEX_KEY, *ALIASES))
    return Packed(version if kept is None else None, moved=moved)


def _text(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.read(key)[0]
    except ObjectMissingError:
        return None


def keep(release: GitHubRelease, folder: Path, note: Callable[[str], None]) -> Manifest | None:
    """Bring what was packed into the release; harmless to repeat. Returns the version, None for unfinished runs.

    A version is never written twice; its manifest comes after its model, the list after the manifest, and what
    `stable` means last.

    Raises:
        StoreError: GitHub refused or did not answer.
        CorruptObjectError: the model is not what its manifest promises.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        note("nothing was packed: the training left nothing that has to be kept")
        return None
    release.mend()
    manifests = sorted(folder.glob("models-*-manifest.json"))
    if not manifests:
        for path in sorted(folder.glob("unfinished-*.tar")):
            release.replace(path.name, path)
            note(
                f"kept the unfinished runs in {path.name}: the next training of the same carries on from them"
            )
        return None
    manifest = _parsed(Manifest, manifests[0])
    name_of_model, name_of_manifest = (
        asset_name(model_key(manifest.version, name)) for name in (manifest.model.name, "manifest.json")
    )
    there = release.assets()
    if name_of_manifest not in there:
        model = folder / name_of_model
        if not model.is_file() or sha256_of(model) != manifest.model.sha256:
            raise CorruptObjectError(f"{model.name} is not the model that {manifests[0].name} names")
        if name_of_model in there:
            release.delete(there[name_of_model])
        release.upload(name_of_model, model)
        release.upload(name_of_manifest, manifests[0])
        note(f"kept version {manifest.version}")
    _list(release, _parsed(Index, folder / INDEX_KEY))
    for key in ALIASES:
        _move(release, key, folder / asset_name(key))
    unfinished = asset_name(unfinished_key(manifest.training_key))
    if unfinished in (there := release.assets()):
        release.delete(there[unfinished])
    return manifest


def _list(release: GitHubRelease, ours: Index) -> None:
    """Add our versions and yanks to the release's index."""

    def missing() -> Index | None:
        theirs = _kept(Index, release, INDEX_KEY) or Index()
        both = index.merged(theirs, ours)
        return both if both != theirs else None

    _settle(release, INDEX_KEY, missing)


def _move(release: GitHubRelease, key: str, packed: Path) -> None:
    """Add our moves to an alias's history: it means what the last of them says, ours or another job's."""
    if not packed.is_file():
        return
    ours = _parsed(Alias, packed)
    listed = (_kept(Index, release, INDEX_KEY) or Index()).versions

    def wanted() -> Alias | None:
        theirs = _kept(Alias, release, key)
        both = aliases.merged(theirs or ours, ours, listed)
        return both if both != theirs else None

    _settle(release, key, wanted)


def _settle(release: GitHubRelease, key: str, wanted: Callable[[], Wire | None]) -> None:
    """Write a document until a read shows that another job has not overwritten it: a release has no conditional write.

    Args:
        release: Where the document is.
        key: The document's.
        wanted: Reads the release; returns what has to be written, None once nothing has.

    Raises:
        ObjectChangedError: another job won every time.
    """
    for _ in range(TRIES):
        document = wanted()
        if document is None:
            return
        _replaced(release, key, document)
    if wanted() is not None:
        raise ObjectChangedError(
            f"another job overwrote {asset_name(key)} {TRIES} times in a row: run the job `keep` again; "
            "what it has uploaded so far stays"
        )


def _kept(kind: type[T], release: GitHubRelease, key: str) -> T | None:
    asset = release.assets().get(asset_name(key))
    if asset is None:
        return None
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        path = Path(scratch) / asset.name
        path.write_bytes(release.read(asset))
        return _parsed(kind, path)


def _replaced(release: GitHubRelease, key: str, document: Wire) -> None:
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        path = Path(scratch) / asset_name(key)
        path.write_text(json.dumps(document.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
        release.replace(path.name, path)


def _parsed(kind: type[T], path: Path) -> T:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RegistryError(
            f"{path.name} is no {kind.__name__} that this version understands: {error}"
        ) from error
