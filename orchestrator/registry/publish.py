"""The model registry: versions that are written once, aliases that move, an index that lists them.

models/<version>/model.<suffix>  written first; the training chose the suffix; exports have others
models/<version>/manifest.json   written after it: a version is visible from here on, and complete
index.json                       every version, newest last; moved by compare-and-swap
aliases/<name>.json              which version the name means; moves last, by compare-and-swap
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.infra.store.errors import ObjectExistsError, StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.alias import AliasMovedError, alias_of
from gpu_offload.orchestrator.registry.card import card
from gpu_offload.orchestrator.registry.index import (
    entry_of,
    list_version,
    manifest_of,
    mark_deleted,
    mark_yanked,
    versions,
)
from gpu_offload.orchestrator.registry.manifest import (
    CANDIDATE,
    CARD,
    STABLE,
    Alias,
    IndexEntry,
    Manifest,
    Move,
    RegistryError,
    model_key,
    to_json,
)
from gpu_offload.orchestrator.registry.semver import Bump
from gpu_offload.orchestrator.registry.swap import TRIES

__all__ = ["Rules", "Verdict", "alias_of", "complete", "manifest_of", "publish", "versions", "why_candidate"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a new version becomes `stable`, with the reason and the figures."""

    promoted: bool
    why: str
    evidence: dict[str, Any] | None = None


def accept(_new: Manifest, _stable: Manifest | None) -> Verdict:
    """Promote every published version."""
    return Verdict(promoted=True, why="published")


@dataclass(frozen=True, slots=True)
class Rules:
    """How a registry treats a new version.

    `judge` gets the new version and the one that `stable` means; `bump` overrides how the new one is numbered. Without
    `moves_aliases` a version is only listed, as one of many that a sweep compares.
    """

    judge: Callable[[Manifest, Manifest | None], Verdict] = accept
    bump: Bump | None = None
    moves_aliases: bool = True
    knows: Callable[[str], bool] = lambda _: False
    """Whether a commit is an ancestor of the one that asks for the version; see `Alias.rollback_since`."""
    commit: str | None = None
    """The commit that the history of `stable` names if it moves back to a version that was `stable` before."""


DEFAULT = Rules()


def publish(
    store: ObjectStore,
    manifest: Manifest,
    model: Path,
    *,
    note: Callable[[str], None],
    rules: Rules = DEFAULT,
) -> Manifest:
    """Publish a verified model with the exports beside it. It can be killed at any instant, and repeated.

    The second of two publishers returns what the first one published. The alias moves last: `stable`, or `candidate` if
    the rules do not promote the version.

    Raises:
        StoreError: The store refused; nothing incomplete is visible.
    """
    # Read before the manifest, so that a publisher who lists the version meanwhile is not taken for a deletion.
    listed = entry_of(versions(store), manifest.version)
    there = manifest_of(store, manifest.version)
    if there is None:
        if listed is not None:
            mark_deleted(store, manifest.version)
        stable = alias_of(store, STABLE)
        if manifest.parent is None and stable is not None:
            manifest = manifest.model_copy(update={"parent": stable.version})
        _write_file(store, manifest, manifest.model.name, model, note)
        for export in manifest.exports:
            name = export.file.name
            _write_file(store, manifest, name, model.with_name(name), note)
        try:
            # From here on the version is visible, so that its files must be complete.
            store.create(model_key(manifest.version, "manifest.json"), to_json(manifest))
            there = manifest
        except ObjectExistsError:
            there = manifest_of(store, manifest.version)
            if there is None:
                raise
    complete(store, there, now=there.created_at, rules=rules)
    return there


def complete(
    store: ObjectStore,
    manifest: Manifest,
    *,
    again: bool = False,
    now: float | None = None,
    rules: Rules = DEFAULT,
) -> bool:
    """List a published version and move `stable` to it if it is good enough; return whether `stable` moved.

    This completes a publish that was killed after its manifest. `stable` then stays where a later publish moved it,
    unless this version is wanted `again`, as after a revert. A version that was `stable` before is not judged again; a
    candidate or a yanked version stays one. A version whose training began before a rollback that its commit does not
    contain is a candidate until a commit that contains it, or a person, asks for the version.
    """
    entry = list_version(store, manifest, rules.bump)
    _write_card(store, manifest, entry)
    if not _may_be_used(store, entry, again=again) or not rules.moves_aliases:
        return False
    for _ in range(TRIES):
        stable = alias_of(store, STABLE)
        known = stable is not None and stable.has_meant(manifest.version)
        rollback = None if known else _missed(stable, manifest, rules)
        if stable is not None:
            if stable.version == manifest.version:
                return False
            if not again and rollback is None and stable.moved_at > manifest.created_at:
                return False
        if known:
            verdict = Verdict(promoted=True, why="its training is what the repository asks for again")
        else:
            held = _candidacy(alias_of(store, CANDIDATE), manifest.version)
            if held is not None and (rollback is not None or not again or held.cause != "rollback"):
                return False
            if rollback is not None:
                verdict = Verdict(promoted=False, why=aliases.overtaken(rollback))
            else:
                rival = stable if stable is not None and stable.version not in stable.yanked else None
                verdict = rules.judge(manifest, manifest_of(store, rival.version) if rival else None)
        try:
            aliases.move(
                store,
                STABLE if verdict.promoted else CANDIDATE,
                manifest.version,
                cause="rollback" if known or rollback else "publish",
                why=verdict.why,
                evidence=verdict.evidence,
                expected=stable if verdict.promoted else aliases.ANY,
                commit=rules.commit if known else None,
                now=now,
            )
        except AliasMovedError:
            continue  # another version became stable meanwhile: judge against that one
        return verdict.promoted
    raise RegistryError(f"{store.url}: {STABLE} kept moving under {TRIES} tries; run the command again")


def _may_be_used(store: ObjectStore, entry: IndexEntry, *, again: bool) -> bool:
    """Whether a wanted version may be used. One that was yanked because its data was reverted may be used again."""
    if (
        entry.deleted
    ):  # until all aliases have its new files, so that a killed publish is completed by the next one
        aliases.renew(store, entry.version)
        mark_deleted(store, entry.version, deleted=False)
    if entry.yanked is None:
        return True
    if not entry.yanked.reverted or not (again or entry.deleted):
        return False
    mark_yanked(store, entry.version, None)
    return True


def why_candidate(store: ObjectStore, version: str) -> str | None:
    """Return why a version is a candidate only; None if it is not, or was promoted since."""
    candidate, stable = alias_of(store, CANDIDATE), alias_of(store, STABLE)
    if candidate is None or (stable is not None and stable.has_meant(version)):
        return None
    held = _candidacy(candidate, version)
    return held.why if held is not None else None


def _candidacy(candidate: Alias | None, version: str) -> Move | None:
    """Return the last move by which a version became the candidate."""
    moves = reversed(candidate.moves) if candidate is not None else ()
    return next((move for move in moves if move.version == version), None)


def _missed(stable: Alias | None, manifest: Manifest, rules: Rules) -> Move | None:
    """Return the rollback that happened while a version trained and that its commit does not contain."""
    if stable is None or manifest.began_at is None:
        return None
    return stable.rollback_since(manifest.began_at, rules.knows)


def _write_card(store: ObjectStore, manifest: Manifest, entry: IndexEntry) -> None:
    key = model_key(manifest.version, CARD)
    if store.stat(key) is None:
        # An older policy allows models and no card; a version is complete without it.
        with suppress(ObjectExistsError, StoreDeniedError):
            store.create(key, card(manifest, entry).encode())


def _write_file(
    store: ObjectStore, manifest: Manifest, name: str, path: Path, note: Callable[[str], None]
) -> None:
    key = model_key(manifest.version, name)
    try:
        store.upload(key, path, create=True)
    except ObjectExistsError:
        # A publish was killed before its manifest, and the result of its run was lost. No reader sees this model, and
        # no manifest can ever fit it, because two trainings give different bytes.
        if manifest_of(store, manifest.version) is None:
            note(f"replacing {key}, which an unfinished publish left without a manifest")
            try:
                store.upload(key, path)
            except StoreDeniedError as error:
                raise RegistryError(
                    f"{key} was left by an unfinished publish, and the store refuses to replace it. No reader "
                    f"sees it: delete it as the bucket's owner and run the command again ({error})"
                ) from error
