"""Keeps the content of a folder store that is lost with its runner: in a release of the repository.

A training reads what was published before from the release, packs what is new, and hands it to a job that may write to
the repository and runs no training.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gpu_offload.infra.github.release import GitHubRelease
from gpu_offload.infra.github.release_store import ReleaseStore
from gpu_offload.infra.store.errors import CorruptObjectError
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.web import asset_name
from gpu_offload.orchestrator.estimate.history import KEPT, KeptTimings
from gpu_offload.orchestrator.github import claims
from gpu_offload.orchestrator.github.cached_store import unfinished_key
from gpu_offload.orchestrator.github.run_archive import check as check_archive
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry.alias import actor, overtaken
from gpu_offload.orchestrator.registry.index import entry_of, manifest_of, versions
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
    parse,
    to_json,
)
from gpu_offload.orchestrator.registry.swap import swap
from gpu_offload.orchestrator.report.picture import LARGEST_PICTURE, PNG
from gpu_offload.orchestrator.run.record import RUN_KEY_LENGTH, RUN_PREFIX
from gpu_offload.remote_job.files.regular_file import read as read_bytes
from gpu_offload.remote_job.result import PREDICTIONS
from gpu_offload.remote_job.wire import Wire

T = TypeVar("T", bound=Wire)

TRIES = 5
"""Attempts to write a document while another job writes it. Each takes ten requests of the 1,000 an hour that a job has:
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api."""

DOCUMENT = 1 << 20
"""Bytes that a packed document may have."""

ALIASES = (alias_key(CANDIDATE), alias_key(STABLE))


def keep(
    store: ReleaseStore,
    folder: Path,
    note: Callable[[str], None],
    training_key: str,
    now: float | None = None,
) -> Manifest | None:
    """Bring what a training packed into the release; harmless to repeat. Returns the version, None for unfinished runs.

    The training's documents are claims. Only files of the planned training count. The index and the aliases are written
    here, from what is verified; of the training's own documents only the kind of its number and its verdict are taken,
    and no time is later than now. A version is never written twice. Its manifest is written after its model, the index
    after the manifest, and the aliases last.

    Args:
        store: The release.
        folder: What was packed.
        note: Called with what was done.
        training_key: The key that the job `plan` computed, which runs no training.
        now: Unix seconds; None for the clock's.

    Raises:
        StoreError: GitHub refused or did not answer, or other jobs kept writing the same document.
        CorruptObjectError: A packed file is not plain, or does not match the manifest.
        RegistryError: The manifest belongs to another training.
    """
    release = store.release
    version, now = version_of(training_key), time.time() if now is None else now
    manifest_name = asset_name(model_key(version, "manifest.json"))
    ours = asset_name(model_key(version, ""))
    unfinished = asset_name(unfinished_key(training_key))
    packed = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    known = {unfinished, *map(asset_name, (INDEX_KEY, KEPT, *ALIASES))}
    if strange := [name for name in packed if not name.startswith(ours) and name not in known]:
        note(f"left out {len(strange)} file(s) that are not of the training {training_key[:12]}")
    if not packed & {manifest_name, unfinished}:
        note("nothing was packed: the training left nothing that has to be kept")
        return None
    if manifest_name not in packed:
        check_archive(_plain(folder / unfinished), only=f"{RUN_PREFIX}{training_key[:RUN_KEY_LENGTH]}-")
        release.repair()
        release.replace(unfinished, folder / unfinished)
        note(f"kept the unfinished runs in {unfinished}: the next training of the same carries on from them")
        return None
    index = _claim(Index, folder, INDEX_KEY) or Index()
    claimed = {key: alias for key in ALIASES if (alias := _claim(Alias, folder, key)) is not None}
    release.repair()
    manifest = manifest_of(store, version)
    if manifest is None:
        manifest, files = _verified(folder, manifest_name, training_key)
        picture = _picture(folder / asset_name(model_key(version, PREDICTIONS)))
        _upload(release, [*([picture] if picture else []), *files, folder / manifest_name])
        note(f"kept version {version}")
    _merge(store, INDEX_KEY, Index, lambda theirs: claims.listed(theirs, manifest, index, now))
    with contextlib.suppress(RegistryError):  # forged timings are no reason to lose a model
        if times := _claim(KeptTimings, folder, KEPT):
            _merge(store, KEPT, KeptTimings, lambda theirs: claims.timed(theirs, times, training_key, now))
    for key, alias in claimed.items():
        _move(store, key, alias, version, now)
    if unfinished in (there := release.assets()):
        release.delete(there[unfinished])
    return manifest


def _verified(folder: Path, name: str, training_key: str) -> tuple[Manifest, list[Path]]:
    """Return the packed manifest and its files, once all are what the planned training must have made."""
    manifest = parse(Manifest, name, read_bytes(folder, name, limit=DOCUMENT))
    if (manifest.version, manifest.training_key) != (version_of(training_key), training_key):
        raise RegistryError(
            f"{name} is of the training {plain(manifest.training_key)[:64]}, and {training_key} was planned"
        )
    files = [folder / asset_name(model_key(manifest.version, file.name)) for file in manifest.files]
    if not manifest.has_plain_names or not all(map(os.path.lexists, files)):
        named = ", ".join(file.name for file in manifest.files)
        raise CorruptObjectError(f"{name} names a model that was not packed: {plain(named)[:128]!r}")
    for path, file in zip(files, manifest.files, strict=True):
        size = _plain(path).stat().st_size
        if (size, sha256_of(path)) != (file.size, file.sha256):
            raise CorruptObjectError(f"{path.name} is not the file that {name} names")
    return manifest, files


def _claim(kind: type[T], folder: Path, key: str) -> T | None:
    try:
        return parse(kind, key, read_bytes(folder, asset_name(key), limit=DOCUMENT))
    except FileNotFoundError:
        return None


def _picture(path: Path) -> Path | None:
    """Return a packed picture, None where there is none that can be shown."""
    if not os.path.lexists(path) or _plain(path).stat().st_size > LARGEST_PICTURE:
        return None
    with path.open("rb") as file:
        return path if file.read(len(PNG)) == PNG else None


def _upload(release: GitHubRelease, files: Sequence[Path]) -> None:
    """Upload files in their order, each in place of one that an earlier job left."""
    there = release.assets()
    for file in files:
        # GitHub refuses a second file of the same name.
        if file.name in there:
            release.delete(there[file.name])
        release.upload(file.name, file)


def _plain(path: Path) -> Path:
    """Return the path of a packed file. Raises CorruptObjectError where it is a link, a pipe or a folder."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CorruptObjectError(f"{path.name} is not a plain file")
    return path


def _merge(store: ReleaseStore, key: str, kind: type[T], merged: Callable[[T], T]) -> None:
    """Merge into a document of the release, which may not exist yet."""

    def change(body: bytes | None) -> bytes | None:
        theirs = kind() if body is None else parse(kind, key, body)
        both = merged(theirs)
        return to_json(both) if both != theirs else None

    swap(store, key, change, TRIES)


def _move(store: ReleaseStore, key: str, claimed: Alias, version: str, now: float) -> None:
    """Move an alias to a version if the training claims it for that version.

    If `stable` was rolled back meanwhile, the version becomes a candidate.
    """
    entries = versions(store)
    entry = entry_of(entries, version)
    move = claims.claimed_move(claimed, entry, now, actor()) if entry is not None else None
    if move is None:
        return
    name, rollback = key.removeprefix("aliases/").removesuffix(".json"), None

    def change(body: bytes | None) -> bytes | None:
        nonlocal rollback
        theirs = None if body is None else parse(Alias, key, body)
        rollback = claims.missed(theirs, claimed, version) if name == STABLE else None
        if rollback is not None:
            return None
        both = claims.moved(theirs, move, entries, name, now)
        return to_json(both) if both != theirs else None

    swap(store, key, change, TRIES)
    if rollback is not None:
        held = move.model_copy(update={"cause": "rollback", "why": overtaken(rollback), "evidence": None})
        candidate = claimed.model_copy(update={"name": CANDIDATE, "history": (held,)})
        _move(store, alias_key(CANDIDATE), candidate, version, now)
