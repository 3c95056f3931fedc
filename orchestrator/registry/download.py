"""Downloads a published model and verifies it."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from gpu_offload.infra.store.errors import CorruptObjectError, ObjectMissingError, StoreUnreachableError
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.web import WebStore
from gpu_offload.orchestrator.output.console import one_line
from gpu_offload.orchestrator.registry import attestation
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.index import (
    checked_manifest,
    entry_for,
    entry_of,
    manifest_of,
    versions,
)
from gpu_offload.orchestrator.registry.manifest import (
    CANDIDATE,
    STABLE,
    IndexEntry,
    Manifest,
    RegistryError,
    model_key,
)
from gpu_offload.orchestrator.registry.semver import line_of, promotion_hint, version_text
from gpu_offload.orchestrator.registry.semver import parse as numbers
from gpu_offload.orchestrator.settings.types import ExportFormat
from gpu_offload.remote_job.result import Artifact

if TYPE_CHECKING:
    from gpu_offload.client.model_client import Progress


def resolve(store: ObjectStore, wanted: str) -> Manifest:
    """Return the manifest of a wanted version; see `find`.

    Raises RegistryError: none or more than one version is meant, or an alias means a yanked version.
    """
    entry = find(store, wanted) if _is_name(wanted) else None
    version = entry.version if entry is not None else wanted
    found = manifest_of(store, version) if _is_name(version) else None
    if found is None and entry is not None:
        gone = "whose files were deleted; train it again" if entry.deleted else "which is not published"
        raise RegistryError(f"{wanted} means {version}, {gone}")
    if found is None and wanted == STABLE and (held := alias_of(store, CANDIDATE)) is not None:
        number, why = held.semver or held.version, held.moves[-1].why
        raise RegistryError(
            f"no version in {store.url} is stable yet. {number} stays a candidate: {why}. "
            f"`--version candidate` pulls it, {promotion_hint(number)}"
        )
    if found is None:
        known = ", ".join(version_text(e.version, e.semver) for e in versions(store)[-5:])
        if not known:
            raise RegistryError(
                f"no model is published in {store.url} yet: run `offload train`, or correct store.url"
            )
        raise RegistryError(f"no version or alias {wanted!r} in {store.url} (the newest versions: {known})")
    if entry is not None and entry.sha256 != found.model.sha256:
        raise RegistryError(_differs(wanted, entry.sha256, found.version, found.model.sha256))
    return found


def find(store: ObjectStore, wanted: str) -> IndexEntry | None:
    """Return the entry of an alias, a number, the beginning of one, or a version's digits or their beginning.

    Of a line of numbers (1, 1.4, v1) the highest that may be used is meant. A tag of GTO's (model@v1.4.0) is read as
    its number.

    Raises:
        RegistryError: more than one version is meant, or an alias means one that is yanked or not listed.
    """
    entries = versions(store)
    alias = alias_of(store, wanted) if _is_name(wanted) else None
    if alias is not None:
        entry = entry_of(entries, alias.version)
        if entry is None:
            # A publish was killed before the index, or a person removed the version from a release.
            found = manifest_of(store, alias.version)
            if found is None:
                raise RegistryError(f"the alias {wanted} points at {alias.version}, which is not published")
            return entry_for(found)
        # The two documents are written one after the other; if one of them was forged, they differ.
        if entry.sha256 != alias.sha256:
            raise RegistryError(_differs(wanted, alias.sha256, entry.version, entry.sha256))
        if entry.yanked is not None:
            raise RegistryError(
                f"the alias {wanted} points at {version_text(entry.version, entry.semver)}, which is yanked ({entry.yanked.why}), and there is no "
                "version before it; ask for one by its number, or promote one"
            )
        return entry
    wanted = wanted.rpartition("@")[2]
    matches = [e for e in entries if e.version.startswith(wanted)] if wanted else []
    line = line_of(wanted)
    if line is not None:
        in_line = [e for e in entries if (numbers(e.semver or "") or ())[: len(line)] == line]
        usable = [e for e in in_line if e.is_usable or len(line) == 3]
        if usable and matches:
            raise RegistryError(
                f"{wanted} is ambiguous: write v{wanted}, or more digits of {matches[0].version}"
            )
        if usable:
            return max(usable, key=lambda e: numbers(e.semver or "") or ())
    if len(matches) > 1:
        raise RegistryError(f"{wanted} is ambiguous: {', '.join(e.version for e in matches)}")
    return matches[0] if matches else None


def _differs(wanted: str, meant: str, version: str, found: str) -> str:
    return (
        f"{wanted} means a model with sha256 {one_line(meant)[:64]}, and version {version} has {one_line(found)[:64]}: one of the "
        "documents was replaced; nothing was downloaded"
    )


def pull(
    store: ObjectStore,
    wanted: str,
    destination: Path,
    *,
    export: str | None = None,
    progress: "Progress | None" = None,
    signer: str | None = None,
) -> tuple[Manifest, Path, bool]:
    """Download a version, verified, and rename it into place; return manifest, file and whether it was downloaded.

    A download from a web address resumes, also one of an earlier command. `destination` is a file, or a folder that
    receives the model under its own name; `export` is a format such as `onnx`, None for the model's own; `signer` is
    the repository whose workflow must have attested the manifest. Raises RegistryError: no such version or format;
    CorruptObjectError; AttestationError.
    """
    manifest = resolve(store, wanted)
    if signer is not None:
        manifest = _attested(store, manifest.version, signer)
    model = file_of(manifest, export)
    # A destination without a suffix is a folder, which need not exist yet.
    target = destination / model.name if destination.is_dir() or not destination.suffix else destination
    if _matches(target, model):
        return manifest, target, False
    target.parent.mkdir(parents=True, exist_ok=True)
    _fetch(store, manifest, model, target, progress)
    return manifest, target, True


def _attested(store: ObjectStore, version: str, signer: str) -> Manifest:
    """Return a version's manifest if the signer's workflow attested it. It holds every file's sha256."""
    body, _ = store.read(model_key(version, "manifest.json"))
    with tempfile.TemporaryDirectory(prefix="offload-") as folder:
        path = Path(folder) / "manifest.json"
        path.write_bytes(body)
        attestation.verify(path, signer)
    return checked_manifest(store, version, body)


def _fetch(
    store: ObjectStore, manifest: Manifest, model: Artifact, target: Path, progress: "Progress | None"
) -> None:
    key = model_key(manifest.version, model.name)
    try:
        if isinstance(store, WebStore):
            _transfer(store, key, target, model, progress)
        else:
            store.download(key, target, size=model.size, sha256=model.sha256)
    except (CorruptObjectError, ObjectMissingError) as error:
        who = "ask its publisher to run" if isinstance(store, WebStore) else "run"
        raise type(error)(
            f"{error}. The published file is damaged: {who} `offload train --repair` in the project, which puts it back"
        ) from error


def format_of(destination: Path) -> str | None:
    """Return the export that a destination's suffix asks for; None for a folder and the model's own format."""
    suffix = destination.suffix.removeprefix(".")
    return suffix if suffix in get_args(ExportFormat) else None


def file_of(manifest: Manifest, export: str | None) -> Artifact:
    """Return the file of a version in a format. Raises RegistryError."""
    if export is None or manifest.model.name == f"model.{export}":
        return manifest.model
    found = next((each.file for each in manifest.exports if each.format == export), None)
    if found is None:
        why = manifest.failed_exports.get(export)
        there = ", ".join((manifest.model.name, *(each.format for each in manifest.exports)))
        reason = f": {one_line(why)}" if why else f" (only as {there})"
        raise RegistryError(
            f"version {manifest.version} is not published as {one_line(export)}{reason}; registry.exports says in which "
            "formats the next version is"
        )
    return found


def _transfer(store: WebStore, key: str, target: Path, model: Artifact, progress: "Progress | None") -> None:
    """Download by the application's client, which resumes; one command at a time for a folder."""
    from gpu_offload.client.model_client import DamagedError, TransferError, Web

    address = store.public_url(key)
    try:
        with _locked(target.parent):
            if not _matches(target, model):
                Web().download(address, target, size=model.size, sha256=model.sha256, progress=progress)
    except DamagedError as error:
        raise CorruptObjectError(str(error)) from error
    except TransferError as error:
        kind = ObjectMissingError if error.status in {404, 410} else StoreUnreachableError
        raise kind(f"{error}; run the command again to continue") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The folder, because the file itself is replaced.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _matches(path: Path, artifact: Artifact) -> bool:
    return path.is_file() and path.stat().st_size == artifact.size and sha256_of(path) == artifact.sha256


def _is_name(text: str) -> bool:
    return bool(text) and all(c.isalnum() or c in "-_.@" for c in text) and not text.startswith(".")
