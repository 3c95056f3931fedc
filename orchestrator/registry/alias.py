"""Aliases: names that move from version to version by compare-and-swap and keep their history."""

import getpass
import os
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import ObjectMissingError, StoreReadOnlyError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.units import utc
from gpu_offload.orchestrator.registry.index import entry_of, versions
from gpu_offload.orchestrator.registry.manifest import (
    CANDIDATE,
    STABLE,
    Alias,
    Cause,
    IndexEntry,
    Move,
    RegistryError,
    alias_key,
    parse,
    to_json,
)
from gpu_offload.orchestrator.registry.semver import reaches
from gpu_offload.orchestrator.registry.swap import swap

ANY: Literal["*"] = "*"


class AliasMovedError(RegistryError):
    """An alias has moved since it was read for a decision."""


def alias_of(store: ObjectStore, name: str) -> Alias | None:
    """Return an alias, None if there is none of this name."""
    key = alias_key(name)
    try:
        body, _ = store.read(key)
    except ObjectMissingError:
        return None
    return parse(Alias, key, body)


def move(
    store: ObjectStore,
    name: str,
    version: str,
    *,
    cause: Cause,
    why: str,
    evidence: dict[str, Any] | None = None,
    rollout: float = 1.0,
    minimum: str | None = None,
    expected: Alias | Literal["*"] | None = ANY,
    commit: str | None = None,
    stays: bool = False,
    now: float | None = None,
) -> bool:
    """Move an alias to a listed version; return whether anything changed.

    Args:
        store: Where it is published.
        name: The alias.
        version: A version of the index that is not yanked.
        cause: The kind of act, for the history.
        why: The reason in words, for the history.
        evidence: The figures behind it.
        rollout: The share of installations that it is meant for.
        minimum: The lowest version that an installation may still use; None: as before.
        expected: The alias as the caller read it, None for an alias that must not exist; by default any.
        commit: The commit that took data back, for a rollback.
        stays: Whether a move to the version that the alias means already is recorded.
        now: Unix seconds; None: the clock.

    Raises:
        AliasMovedError: The alias is not the expected one.
        RegistryError: The version is not listed, yanked, deleted or below the minimum.
    """
    key, moved = alias_key(name), False

    def change(body: bytes | None) -> bytes | None:
        nonlocal moved
        moved = False
        alias = None if body is None else parse(Alias, key, body)
        # Read after the alias. A yank marks the index first, so that one that is missed here changes the alias later.
        entries = versions(store)
        entry = entry_of(entries, version)
        if entry is None:
            raise RegistryError(f"{version} is not published in {store.url}")
        if not entry.is_usable:
            why_not = (
                f"is yanked ({entry.yanked.why}): take that back first with `offload yank {entry.semver} --undo --why WHY`"
                if entry.yanked
                else "was deleted; train it again"
            )
            raise RegistryError(f"{entry.semver} ({version}) {why_not}")
        if expected != "*" and _last(expected) != _last(alias):
            raise AliasMovedError(f"{name} has moved meanwhile; look at `offload models`, and decide again")
        lowest = minimum or (alias.minimum if alias else None)
        wanted = (version, rollout, lowest)
        if alias is not None and (alias.version, alias.rollout, alias.minimum) == wanted and not stays:
            return None
        if not reaches(entry.semver, lowest):
            raise RegistryError(f"{entry.semver} is below {lowest}, the lowest version that may be used")
        moved = True
        last = alias.moves[-1].at if alias else 0.0
        step = Move(
            # The clocks of two machines differ, and a history must not run backwards.
            at=max(clock_of(store)() if now is None else now, last),
            **entry.names,
            rollout=rollout,
            cause=cause,
            by=actor(),
            why=why,
            evidence=evidence,
            commit=commit,
        )
        history = (*current(alias.moves if alias else (), entries), step)
        return to_json(written(name, history, yanks(entries), lowest, alias))

    swap(store, key, change)
    return moved


def _last(alias: Alias | None) -> tuple[int, float, str] | None:
    """Return what identifies a state of an alias."""
    return (len(alias.moves), alias.moves[-1].at, alias.version) if alias is not None else None


def overtaken(rollback: Move) -> str:
    """Return why a version is a candidate whose training missed a rollback."""
    at = utc(rollback.at, "%Y-%m-%d %H:%M")
    if rollback.commit is None:
        return f"stable was rolled back by hand on {at} UTC, while this trained: {rollback.why}"
    return (
        f"commit {rollback.commit[:9]} took data back on {at} UTC, while this trained, and the commit that it trained does "
        "not contain that one"
    )


def leave_yanked(
    store: ObjectStore, name: str, why: str, cause: Cause = "yank", now: float | None = None
) -> str | None:
    """Move an alias off yanked versions, to the last of its history that may be used; return what it means then.

    Applications refuse versions below the alias's minimum, so none of these is returned to.
    """
    key, left = alias_key(name), None

    def change(body: bytes | None) -> bytes | None:
        nonlocal left
        if body is None:
            return None
        alias = parse(Alias, key, body)
        entries = versions(store)
        bad = yanks(entries)
        good = {e.version for e in entries if e.is_usable and reaches(e.semver, alias.minimum)}
        history = current(alias.moves, entries)
        usable = [move for move in history if move.version in good]
        if not usable:
            left = None
            return to_json(written(name, history, bad, alias.minimum, alias))
        if alias.version in bad:
            last = usable[-1]
            at = max(clock_of(store)() if now is None else now, alias.moves[-1].at)
            act = {"at": at, "cause": cause, "by": actor(), "why": why}
            plain = {"rollout": 1.0, "evidence": None, "commit": None}
            history = (*history, last.model_copy(update=act | plain))
        left = history[-1].version
        return to_json(written(name, history, bad, alias.minimum, alias))

    swap(store, key, change)
    return left


def renew(store: ObjectStore, version: str) -> None:
    """Give all aliases the new files of a version that was deleted and trained again."""
    for name in all_aliases(store):
        swap(store, alias_key(name), partial(_renewed, store, version, alias_key(name)))


def _renewed(store: ObjectStore, version: str, key: str, body: bytes | None) -> bytes:
    alias, there = parse(Alias, key, body or b""), {"deleted": False}
    entries = tuple(e.model_copy(update=there) if e.version == version else e for e in versions(store))
    return to_json(written(alias.name, current(alias.moves, entries), yanks(entries), alias.minimum, alias))


def current(moves: Iterable[Move], entries: tuple[IndexEntry, ...]) -> tuple[Move, ...]:
    """Return moves with the numbers and files of the index, because applications go back to any version of a history."""
    names = {entry.version: entry.names for entry in entries}
    return tuple(move.model_copy(update=names.get(move.version)) for move in moves)


def written(
    name: str,
    history: tuple[Move, ...],
    yanked: dict[str, str],
    minimum: str | None,
    before: Alias | None = None,
) -> Alias:
    """Return an alias with a history whose last move says what it means, to replace the alias before."""
    last = history[-1]
    serial = before.serial if before is not None else 0
    alias = Alias(
        name=name,
        **last.names,
        moved_at=last.at,
        rollout=last.rollout,
        minimum=minimum,
        yanked=yanked,
        serial=serial,
        history=history,
    )
    return alias if alias == before else alias.model_copy(update={"serial": serial + 1})


def names(store: ObjectStore) -> tuple[str, ...]:
    """Return the names of all aliases; if the store cannot be listed, of those that the registry moves."""
    try:
        keys = [info.key for info in store.list("aliases/")]
    except StoreReadOnlyError:
        return (STABLE, CANDIDATE)
    return tuple(key.removeprefix("aliases/").removesuffix(".json") for key in keys if key.endswith(".json"))


def all_aliases(store: ObjectStore) -> dict[str, Alias]:
    """Return the aliases by name, of those that `names` returns."""
    return {name: alias for name in names(store) if (alias := alias_of(store, name)) is not None}


def yanks(entries: tuple[IndexEntry, ...]) -> dict[str, str]:
    """Return the versions that must not be used, with the reason of each."""
    return {
        entry.version: entry.yanked.why if entry.yanked else "its files were deleted"
        for entry in entries
        if not entry.is_usable
    }


def actor() -> str:
    """Return the name for a history that may be public: GitHub's actor, else this machine's user."""
    if name := os.environ.get("GITHUB_ACTOR"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return "unknown"
