"""Decides what can be deleted, from a store's listing alone."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.registry.manifest import IndexEntry
from gpu_offload.remote_job.staged_dataset import SHARDS, dataset_key

Kind = Literal["version", "run", "dataset"]
UNLISTED: Final[tuple[Kind, str]] = ("dataset", "unfinished")
"""Shards that no staged dataset lists."""

DAY_S = 86_400.0
GB = 10**9


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept regardless of age: None means no such limit."""

    keep: int = 5
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
    keys: tuple[str, ...] = ()
    """Of its objects."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What must stay: versions that an alias points at or would fall back to, and files of open runs.

    Attributes:
        versions: Of the registry.
        runs: Whose checkpoints and results stay.
        fingerprints: Whose staged datasets stay.
        shards: Keys of shards that stay whatever becomes of the datasets that list them; None for all.
    """

    versions: frozenset[str]
    runs: frozenset[str]
    fingerprints: frozenset[str]
    shards: frozenset[str] | None = frozenset()


def candidates(
    objects: Iterable[ObjectInfo],
    entries: Sequence[IndexEntry],
    needs: Needs,
    ended: Mapping[str, float],
    policy: Retention,
    now: float,
    shards: Mapping[str, Collection[str]] | None = None,
) -> list[Deletable]:
    """Return what can be deleted, the oldest first.

    `ended` is when each run of a published training ended (Unix seconds); other runs keep their checkpoints. `shards`
    are the keys of the shards of each staged dataset, by its fingerprint.
    """
    objects = list(objects)
    published = publication_times(objects, entries)
    owners = shard_owners(objects, shards or {}, needs)
    sizes: dict[tuple[Kind, str], int] = defaultdict(int)
    keys: dict[tuple[Kind, str], list[str]] = defaultdict(list)
    newest: dict[tuple[Kind, str], float] = {}
    for info in objects:
        if (owner := owner_of(info.key) or owners.get(info.key)) is not None:
            sizes[owner] += info.size
            keys[owner].append(info.key)
            if owner == UNLISTED or info.key not in owners:  # a list is younger than its shards
                newest[owner] = max(newest.get(owner, 0.0), info.modified.timestamp())
    why = {
        "version": _old_versions(entries, needs, policy, now, published)
        | _incomplete(keys, newest, entries, needs),
        "run": {
            run: (at, "checkpoint and staged result of a published training") for run, at in ended.items()
        },
        "dataset": {
            name: (
                at,
                "of datasets whose staging was not completed"
                if (kind, name) == UNLISTED
                else "staged for an instance; packed again when one needs it",
            )
            for (kind, name), at in newest.items()
            if kind == "dataset" and name not in needs.fingerprints
        },
    }
    for run in needs.runs:
        why["run"].pop(run, None)
    found = [
        Deletable(kind, name, size, *why[kind][name], tuple(keys[kind, name]))
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


def publication_times(objects: Iterable[ObjectInfo], entries: Iterable[IndexEntry]) -> dict[str, float]:
    """Return when each version was written, in Unix seconds by the store's clock: a publisher's clock can be wrong, and
    a version that was deleted can be published again.
    """
    written = {entry.version: entry.created_at for entry in entries}
    stored: dict[str, float] = {}
    for info in objects:
        kind, name = owner_of(info.key) or (None, "")
        if kind == "version":
            stored[name] = max(stored.get(name, 0.0), info.modified.timestamp())
    return written | stored


def why_kept(
    entries: Sequence[IndexEntry], needs: Needs, policy: Retention, now: float, published: Mapping[str, float]
) -> dict[str, tuple[str, ...]]:
    """Return the reasons for which each version stays, regardless of the store's size; none where nothing needs it."""
    good = sorted((e for e in entries if e.is_usable), key=lambda e: published[e.version])
    newest = {entry.version for entry in good[-policy.keep :]}
    return {
        entry.version: tuple(
            reason
            for reason, holds in (
                ("needed by an alias, by a rollback or by an open run", entry.version in needs.versions),
                (f"among the newest {policy.keep}", entry.version in newest),
                (f"younger than {policy.days:g} days", now - published[entry.version] < policy.days * DAY_S),
            )
            if holds
        )
        for entry in entries
        if not entry.deleted
    }


def _old_versions(
    entries: Sequence[IndexEntry], needs: Needs, policy: Retention, now: float, published: Mapping[str, float]
) -> dict[str, tuple[float, str]]:
    """Return the publication time of each version that nothing needs, and the reason to delete it."""
    kept = why_kept(entries, needs, policy, now, published)
    beyond = f"not among the newest {policy.keep}, and no alias needs it"
    return {
        entry.version: (
            published[entry.version],
            f"{(now - published[entry.version]) / DAY_S:.0f} days old, {'yanked' if entry.yanked else beyond}",
        )
        for entry in entries
        if not entry.deleted and not kept[entry.version]
    }


def _incomplete(
    keys: Mapping[tuple[Kind, str], Sequence[str]],
    newest: Mapping[tuple[Kind, str], float],
    entries: Iterable[IndexEntry],
    needs: Needs,
) -> dict[str, tuple[float, str]]:
    """Return what no reader sees: files of versions without a manifest, since a publication or a deletion was killed."""
    there = {entry.version for entry in entries if not entry.deleted} | needs.versions
    return {
        name: (newest[kind, name], "of a version that was not published, or not deleted, to the end")
        for (kind, name), found in keys.items()
        if kind == "version" and name not in there and f"models/{name}/manifest.json" not in found
    }


def owner_of(key: str) -> tuple[Kind, str] | None:
    """Return the deletable group that an object belongs to; None for what always stays."""
    first, _, rest = key.partition("/")
    name, slash, below = rest.partition("/")
    if first == "models" and slash:
        return "version", name
    if first == "runs" and below.partition("/")[0] in {"checkpoint", "result"}:
        return "run", name
    if first == "datasets" and not slash and name.endswith((".tar", ".json")):
        return "dataset", name.partition(".")[0]
    return None


def listed_dataset(key: str) -> str | None:
    """Return the fingerprint whose list of shards has this key."""
    folder, _, name = key.rpartition("/")
    fingerprint = name.removesuffix(".json")
    return (
        fingerprint
        if folder == "datasets" and dataset_key(fingerprint) == key and "." not in fingerprint
        else None
    )


def shard_owners(
    objects: Iterable[ObjectInfo], shards: Mapping[str, Collection[str]], needs: Needs
) -> dict[str, tuple[Kind, str]]:
    """Return the staged dataset with which each shard goes: the one of those that share it that is deleted last.

    A shard that must stay has none. One that no dataset lists is of `UNLISTED`.
    """
    objects = list(objects)
    staged = {info.key: info.modified for info in objects}
    last_first = sorted(shards, key=lambda f: (f in needs.fingerprints, staged[dataset_key(f)], f))
    owners: dict[str, tuple[Kind, str]] = {key: ("dataset", f) for f in last_first for key in shards[f]}
    return {
        info.key: owners.get(info.key, UNLISTED)
        for info in objects
        if info.key.startswith(SHARDS) and needs.shards is not None and info.key not in needs.shards
    }
