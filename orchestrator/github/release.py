"""Keep what a folder store holds where the folder is thrown away: in a release of the repository.

A hosted runner's disk is gone with its job. So a training reads what was published before from the release, packs
what is new, and hands it to a job that may write to the repository and runs no training.
"""

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gpu_offload.infra.github.release import GitHubRelease
from gpu_offload.infra.store.errors import CorruptObjectError, ObjectChangedError
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.web import asset_name
from gpu_offload.orchestrator.estimate.history import KEPT, KeptTimings
from gpu_offload.orchestrator.github import claims
from gpu_offload.orchestrator.github.cached_store import unfinished_key
from gpu_offload.orchestrator.github.run_archive import check as check_archive
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry.alias import actor, overtaken
from gpu_offload.orchestrator.registry.index import entry_of
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
from gpu_offload.orchestrator.report.picture import LARGEST_PICTURE, PNG
from gpu_offload.orchestrator.run.record import RUN_KEY_LENGTH, RUN_PREFIX
from gpu_offload.remote_job.files.regular_file import read as read_bytes
from gpu_offload.remote_job.result import PREDICTIONS
from gpu_offload.remote_job.wire import Wire

T = TypeVar("T", bound=Wire)

TRIES = 5
"""Attempts to write the index or an alias while another job writes it at the same time."""

DOCUMENT = 1 << 20
"""Bytes that a packed document may have."""

ALIASES = (alias_key(CANDIDATE), alias_key(STABLE))


def keep(
    release: GitHubRelease,
    folder: Path,
    note: Callable[[str], None],
    training_key: str,
    now: float | None = None,
) -> Manifest | None:
    """Bring what a training packed into the release; harmless to repeat. Returns the version, None for unfinished runs.

    What the training says is a claim. Only files of the training that the plan named count. The index and the aliases
    are written here, from what is verified; of the training's own only how it is counted and what it was found good for
    is taken, and no time is later than now. A version is never written twice; its manifest comes after its model, the
    list after the manifest, and the aliases last.

    Args:
        release: Where it is kept.
        folder: What was packed.
        note: Called with what was done.
        training_key: The training's, as the plan's job computed it, which runs no training.
        now: Unix seconds; None for the clock's.

    Raises:
        StoreError: GitHub refused or did not answer.
        CorruptObjectError: A file is not what it must be.
        RegistryError: The manifest belongs to another training.
    """
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
    manifest = _published(release, version)
    if manifest is None:
        manifest, files = _verified(folder, manifest_name, training_key)
        picture = _picture(folder / asset_name(model_key(version, PREDICTIONS)))
        _upload(release, [*([picture] if picture else []), *files, folder / manifest_name])
        note(f"kept version {version}")
    _merge(release, INDEX_KEY, Index, lambda theirs: claims.listed(theirs, manifest, index, now))
    with contextlib.suppress(RegistryError):  # they are no reason to lose a model
        if times := _claim(KeptTimings, folder, KEPT):
            _merge(release, KEPT, KeptTimings, lambda ours: claims.timed(ours, times, training_key, now))
    for key, alias in claimed.items():
        _move(release, key, alias, version, now)
    if unfinished in (there := release.assets()):
        release.delete(there[unfinished])
    return manifest


def standing(release: GitHubRelease, version: str) -> tuple[str, bool]:
    """Return the name of a version in the release, its number or its digits, and whether `stable` means it."""
    entry = entry_of((_kept(Index, release, INDEX_KEY) or Index()).versions, version)
    stable = _kept(Alias, release, alias_key(STABLE))
    name = entry.semver if entry and entry.semver else version
    return name, stable is not None and stable.version == version


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
        if file.name in there:
            release.delete(there[file.name])
        release.upload(file.name, file)


def _published(release: GitHubRelease, version: str) -> Manifest | None:
    return _kept(Manifest, release, model_key(version, "manifest.json"))


def _plain(path: Path) -> Path:
    """Return the path of a packed file. Raises CorruptObjectError where it is a link, a pipe or a folder."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CorruptObjectError(f"{path.name} is not a plain file")
    return path


def _merge(release: GitHubRelease, key: str, kind: type[T], merged: Callable[[T], T]) -> None:
    """Add to a document of the release, which may not be there yet."""

    def missing() -> T | None:
        theirs = _kept(kind, release, key) or kind()
        both = merged(theirs)
        return both if both != theirs else None

    _settle(release, key, missing)


def _move(release: GitHubRelease, key: str, claimed: Alias, version: str, now: float) -> None:
    """Add to an alias's history that it means a version, where the training claims it for that version.

    Where `stable` was rolled back while it trained, it is a candidate.
    """
    index = _kept(Index, release, INDEX_KEY) or Index()
    entry = entry_of(index.versions, version)
    move = claims.claimed_move(claimed, entry, now, actor()) if entry is not None else None
    if move is None:
        return
    name, rollback = key.removeprefix("aliases/").removesuffix(".json"), None

    def wanted() -> Alias | None:
        nonlocal rollback
        theirs = _kept(Alias, release, key)
        rollback = claims.missed(theirs, claimed, version) if name == STABLE else None
        both = claims.moved(theirs, move, index, name, now) if rollback is None else theirs
        return both if both != theirs else None

    _settle(release, key, wanted)
    if rollback is not None:
        held = move.model_copy(update={"cause": "rollback", "why": overtaken(rollback), "evidence": None})
        candidate = claimed.model_copy(update={"name": CANDIDATE, "history": (held,)})
        _move(release, alias_key(CANDIDATE), candidate, version, now)


def _settle(release: GitHubRelease, key: str, wanted: Callable[[], Wire | None]) -> None:
    """Write a document until a read shows that it stayed, since a release has no conditional write.

    `wanted` reads the release; it returns what has to be written, None once nothing has. Raises ObjectChangedError.
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
    return None if asset is None else parse(kind, asset.name, release.read(asset))


def _replaced(release: GitHubRelease, key: str, document: Wire) -> None:
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        path = Path(scratch) / asset_name(key)
        path.write_bytes(to_json(document))
        release.replace(path.name, path)
