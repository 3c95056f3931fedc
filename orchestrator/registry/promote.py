"""Acts of a person on published versions: promote, yank, roll back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.index import entry_of, mark_yanked, versions
from gpu_offload.orchestrator.registry.listing import named
from gpu_offload.orchestrator.registry.manifest import STABLE, Alias, Cause, IndexEntry, RegistryError, Yank
from gpu_offload.orchestrator.registry.semver import parse, reaches, version_text


@dataclass(frozen=True, slots=True)
class Moved:
    """The outcome of an act: its version, and what the aliases mean now."""

    done: str
    entry: IndexEntry
    aliases: dict[str, str | None]
    """By name; None if an alias is left without a version that may be used."""
    changed: bool
    numbers: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "done": self.done,
            "version": self.entry.version,
            "semver": self.entry.semver,
            "aliases": self.aliases,
            "changed": self.changed,
        }

    def text(self) -> str:
        """Return it for a person."""
        name = version_text(self.entry.version, self.entry.semver)
        numbers = {self.entry.version: name} | {v: f"{number} ({v})" for v, number in self.numbers.items()}
        lines = [f"{name} {self.done}" if self.changed else f"{name} was {self.done} already"]
        for alias, version in self.aliases.items():
            lines.append(
                f"{alias} means {numbers.get(version, version)}"
                if version
                else f"{alias} has no version left that may be used: applications keep what they have, or have none. "
                f"Promote one"
            )
        return "\n".join(lines)


def promote(
    store: ObjectStore, wanted: str, *, why: str, rollout: float = 1.0, minimum: str | None = None
) -> Moved:
    """Move `stable` to a version, for a share `rollout` of installations. Raises RegistryError: it may not be used."""
    if minimum is not None and parse(minimum) is None:
        raise RegistryError(f"{minimum!r} is no version: write for example 1.2.0")
    entry = named(store, wanted)
    changed = aliases.move(
        store,
        STABLE,
        entry.version,
        cause="promote",
        why=why,
        rollout=rollout,
        minimum=minimum.removeprefix("v") if minimum else None,
    )
    done = "promoted" if rollout == 1.0 else f"promoted for {100 * rollout:g}% of installations"
    return Moved(done, entry, {STABLE: entry.version}, changed)


def yank(
    store: ObjectStore,
    wanted: str,
    *,
    why: str,
    undo: bool = False,
    reverted: bool = False,
    cause: Cause = "yank",
) -> Moved:
    """Withdraw a version, so that applications leave it and every alias goes to the version before; or undo that.

    Its files stay for applications that pinned exactly this version. `reverted`: its data was reverted. `cause`: for the
    history of the aliases that leave it. It can be killed at any instant, and repeated.

    Raises:
        RegistryError: There is no such version.
    """
    # Not by `named`, which follows no alias to a yanked version: that version can be yanked once more.
    alias = aliases.alias_of(store, wanted)
    listed = versions(store)
    entry = entry_of(listed, alias.version) if alias else named(store, wanted)
    if entry is None:
        raise RegistryError(f"{wanted} points at a version that is not listed in {store.url}")
    numbers = {known.version: known.semver for known in listed if known.semver}
    found = aliases.all_aliases(store).items()
    before = {name: None if a.version in a.yanked else a.version for name, a in found}
    yanked = None if undo else Yank(at=clock_of(store)(), by=aliases.actor(), why=why, reverted=reverted)
    # The index first: it refuses any move to the version from here on, and a move that was faster is undone below.
    mark_yanked(store, entry.version, yanked)
    reason = f"{entry.semver} is yanked: {why}"
    after = {name: aliases.leave_yanked(store, name, reason, cause) for name in before}
    moved = {name: version for name, version in after.items() if version != before[name]}
    done = "restored" if undo else "yanked"
    return Moved(done, entry, moved, (entry.yanked is None) != undo, numbers)


def take_back(
    store: ObjectStore, to: str, reverted: Sequence[str], *, why: str, commit: str | None = None
) -> Moved:
    """Move `stable` to a version whose data is back, and yank the reverted ones, of which the first is stable now.

    The history names `commit`, which took the data back: a training that began before it does not become `stable`. This
    holds without reverted versions, too, where `stable` means `to` already. Can be repeated. Raises AliasMovedError,
    RegistryError.
    """
    entry = named(store, to)
    stable = aliases.alias_of(store, STABLE)
    before = stable.version if stable is not None else None
    is_there = before == entry.version
    # Another job found the reverted versions, and `stable` may have moved since.
    if reverted and before not in {entry.version, reverted[0]}:
        raise aliases.AliasMovedError(
            f"{STABLE} has moved meanwhile; look at `offload models`, and decide again"
        )
    changed = False
    if not is_there or (commit and stable and all(move.commit != commit for move in stable.moves)):
        rollout = stable.rollout if stable is not None and is_there else 1.0
        changed = aliases.move(
            store,
            STABLE,
            entry.version,
            cause="rollback",
            why=why,
            rollout=rollout,
            expected=stable,
            commit=commit,
            stays=True,
        )
    for version in reverted:
        yank(store, version, why=why, reverted=True)
    return Moved("stable again", entry, {STABLE: entry.version}, changed)


def rollback(store: ObjectStore, to: str | None = None, *, why: str) -> Moved:
    """Withdraw what `stable` means, and let it mean the version before, or `to`; see `Alias.rollback_since`.

    With `to` it can be repeated after it was killed. Raises RegistryError: there is no such version, or none before;
    AliasMovedError: `stable` moved meanwhile.
    """
    stable = aliases.alias_of(store, STABLE)
    if stable is None:
        raise RegistryError(f"no alias {STABLE!r} in {store.url}; there is nothing to roll back")
    left = stable.version
    if not to:
        _check_has_before(store, stable)
    elif (target := named(store, to)).version != left:
        # Moved before the yank, because the move may refuse: yanked, deleted, or below the lowest version.
        aliases.move(store, STABLE, target.version, cause="rollback", why=why, expected=stable)
    else:
        before, last = (stable.moves[0], *stable.moves)[-2:]
        if (last.cause, last.why) != ("rollback", why) or before.version == left:
            return Moved("stable", target, {STABLE: left}, changed=False)
        left = before.version  # this rollback moved it, and may have been killed before the yank
    done = yank(store, left, why=why, cause="rollback")
    now = aliases.alias_of(store, STABLE)
    return Moved(
        "withdrawn",
        done.entry,
        {STABLE: now.version if now else None},
        changed=done.changed or left == stable.version,
        numbers=done.numbers,
    )


def _check_has_before(store: ObjectStore, stable: Alias) -> None:
    """Raise RegistryError if `stable` never meant another version that may still be used."""
    usable = {e.version for e in versions(store) if e.is_usable and reaches(e.semver, stable.minimum)}
    if all(move.version == stable.version or move.version not in usable for move in stable.moves):
        name = stable.semver or stable.version
        raise RegistryError(
            f"stable means {name}, and no version before it may be used: name one with --to, or withdraw {name} without a "
            f"successor with `offload yank {name} --why WHY`"
        )
