"""Decides from a store's listing what can be deleted."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.registry.manifest import IndexEntry

Kind = Literal["version", "run", "dataset"]
DAY_S = 86_400.0
GB = 10**9


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept regardless of age: None means no such limit."""

    keep: int = 5
    """The newest versions that are kept."""
    days: float = 30.0
    """Versions, finished runs and staged datasets younger than this are kept."""
    below: int | None = None
    """Limit of the store in bytes: only enough is deleted to bring the store below it."""


@dataclass(frozen=True, slots=True)
class Deletable:
    """An object or a group of objects that can be deleted."""

    kind: Kind
    name: str
    bytes: int
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What must stay: versions that an alias points at or would fall back to, and files of open runs."""

    versions: frozenset[str]
    runs: frozenset[str]
    fingerprints: frozenset[str]


def candidates(
    objects: Iterable[ObjectInfo],
    entries: Sequence[IndexEntry],
    needs: Needs,
    ended: Mapping[str, float],
    policy: Retention,
    now: float,
) -> list[Deletable]:
    """Return what can be deleted, the oldest first.

    `ended` is when each run of a published training ended (Unix seconds); other runs keep their checkpoints.
    """
    objects = list(objects)
    sizes: dict[tuple[Kind, str], int] = defaultdict(int)
    newest: dict[tuple[Kind, str], float] = {}
    for info in objects:
        if (owner := owner_of(info.key)) is not None:
            sizes[owner] += info.size
            newest[owner] = max(newest.get(owner, 0.0), info.modified.timestamp())
    why = {
        "version": _old_versions(entries, needs, policy, now),
        "run": {
            run: (at, "checkpoint and staged result of a published training") for run, at in ended.items()
        },
        "dataset": {
            name: (at, "staged for an instance; packed again when one needs it")
            for (kind, name), at in newest.items()
            if kind == "dataset" and name not in needs.fingerprints
        },
    }
    for run in needs.runs:
        why["run"].pop(run, None)
    found = [
        Deletable(kind, name, size, *why[kind][name])
        for (kind, name), size in sizes.items()
        if name in why[kind] and now - why[kind][name][0] >= policy.days * DAY_S
    ]
    found.sort(key=lambda candidate: (candidate.at, candidate.name))
    if policy.below is None:
        return found
    total, chosen = sum(info.size for info in objects), []
    for candidate in found:
        if total <= policy.below:
            break
        chosen.append(candidate)
        total -= candidate.bytes
    return chosen


def why_kept(
    entries: Sequence[IndexEntry], needs: Needs, policy: Retention, now: float
) -> dict[str, tuple[str, ...]]:
    """Return the reasons for which each version stays, regardless of the store's size; none where nothing needs it."""
    good = sorted((e for e in entries if e.is_usable), key=lambda e: e.created_at)
    newest = {entry.version for entry in good[-policy.keep :]}
    return {
        entry.version: tuple(
            reason
            for reason, holds in (
                (
                    "needed by an alias, by a rollback or by an open run",
                    entry.version in needs.versions,
                ),
                (f"among the newest {policy.keep}", entry.version in newest),
                (f"younger than {policy.days:g} days", now - entry.created_at < policy.days * DAY_S),
            )
            if holds
        )
        for entry in entries
        if not entry.deleted
    }


def _old_versions(
    entries: Sequence[IndexEntry], needs: Needs, policy: Retention, now: float
) -> dict[str, tuple[float, str]]:
    """Return the publication time of each version that nothing needs, and the reason to delete it."""
    kept = why_kept(entries, needs, policy, now)
    beyond = f"not among the newest {policy.keep}, and no alias needs it"
    return {
        entry.version: (
            entry.created_at,
            f"{(now - entry.created_at) / DAY_S:.0f} days old, {'yanked' if entry.yanked else beyond}",
        )
        for entry in entries
        if not kept.get(entry.version)
    }


def owner_of(key: str) -> tuple[Kind, str] | None:
    """Return the deletable group that an object belongs to; None for what always stays."""
    first, _, rest = key.partition("/")
    name, slash, below = rest.partition("/")
    if first == "models" and slash:
        return "version", name
    if first == "runs" and below.partition("/")[0] in {"checkpoint", "result"}:
        return "run", name
    if first == "datasets" and key.endswith(".tar"):
        return "dataset", rest.removesuffix(".tar")
    return None
