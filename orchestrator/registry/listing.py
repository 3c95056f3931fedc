"""Published versions for people and programs: the list, a version's provenance, an alias's history."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import one_line
from gpu_offload.orchestrator.output.metrics import named as named_metrics
from gpu_offload.orchestrator.output.table import for_terminal, terminal_width, text_table, wrapped
from gpu_offload.orchestrator.output.units import human_bytes, human_cost, human_duration, human_number, utc
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.card import facts
from gpu_offload.orchestrator.registry.download import find, resolve
from gpu_offload.orchestrator.registry.index import entry_of, versions
from gpu_offload.orchestrator.registry.manifest import (
    STABLE,
    Alias,
    IndexEntry,
    Manifest,
    Move,
    RegistryError,
    model_key,
)

SHORT = 8
"""Digits of a version or commit in a list; commands accept the beginning of a version."""

SHOWN = 50
"""Newest versions in a list; those that an alias means are always shown."""

MAIN_METRICS = 2
"""Metrics of a version that a list shows."""

SHOWN_FACTS = (
    "version", "yanked", "published", "model", "classes", "images", "epochs", "image size", "batch", "seed", "settings",
    "parent", "repository", "commit", "data", "training key", "started from", "run", "trained on", "metrics", "file",
    "address",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """The published versions, newest first, and the aliases."""

    versions: tuple[IndexEntry, ...]
    aliases: dict[str, str]

    @property
    def stable(self) -> str | None:
        """The version that `stable` means."""
        return self.aliases.get(STABLE)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "stable": self.stable,
            "aliases": self.aliases,
            "versions": [v.model_dump(mode="json") for v in self.versions],
        }

    def text(self) -> str:
        """Return a table for 80 columns; the JSON has the rest."""
        if not self.versions:
            return "no model is published yet; `offload train` makes one"
        meant = set(self.aliases.values())
        shown = [e for n, e in enumerate(self.versions) if n < SHOWN or e.version in meant]
        quality = [named_metrics(entry.metrics) for entry in shown]
        names = list(dict.fromkeys(name for one in quality for name in list(one)[:MAIN_METRICS]))
        rows: list[tuple[str, ...]] = [
            ("number", "version", "", "published (UTC)", "cost", *names, "commit"),
            *(
                (
                    entry.semver or "",
                    entry.version[:SHORT],
                    self._state(entry),
                    when(entry.created_at),
                    "" if entry.cost_usd is None else human_cost(entry.cost_usd, entry.where or ""),
                    *(f"{human_number(one[name])}" if name in one else "" for name in names),
                    (entry.commit or "")[:SHORT],
                )
                for entry, one in zip(shown, quality, strict=True)
            ),
        ]
        table = text_table(rows, width=terminal_width())
        if table.count("\n") >= len(rows):  # rows were broken: without the time of day they may fit
            head, *body = rows
            days = [(*row[:3], row[3].partition(" ")[0], *row[4:]) for row in body]
            table = text_table([(*head[:3], "published", *head[4:]), *days], width=terminal_width())
        more = len(self.versions) - len(shown)
        return f"{table}\nand {more:,} older versions: offload models --json" if more else table

    def _state(self, entry: IndexEntry) -> str:
        names = [name for name, version in sorted(self.aliases.items()) if version == entry.version]
        return ", ".join(
            [*names, *(["yanked"] if entry.yanked else []), *(["deleted"] if entry.deleted else [])]
        )


def listing(store: ObjectStore) -> Listing:
    """List the published versions. Raises StoreError, RegistryError."""
    meant = {name: alias.version for name, alias in aliases.all_aliases(store).items()}
    return Listing(tuple(reversed(versions(store))), meant)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Everything that the registry knows about one version."""

    manifest: Manifest
    entry: IndexEntry | None
    moves: dict[str, tuple[Move, ...]]
    """The moves of each alias to this version."""
    url: str | None

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object: the manifest, with number, yank, aliases and address."""
        entry = self.entry
        return self.manifest.model_dump(mode="json") | {
            "semver": entry.semver if entry else None,
            "yanked": entry.yanked.model_dump(mode="json") if entry and entry.yanked else None,
            "moves": {name: [m.model_dump(mode="json") for m in moves] for name, moves in self.moves.items()},
            "url": self.url,
        }

    def text(self) -> str:
        """Return it for a person."""
        m, entry = self.manifest, self.entry
        known = facts(m, entry)
        found = known | {
            "yanked": f"{when(entry.yanked.at)} by {entry.yanked.by}: {entry.yanked.why}"
            if entry and entry.yanked
            else "",
            "published": when(m.created_at),
            "model": f"{m.base_model}, {m.task}",
            "settings": known.get("hyperparameters", ""),
            "run": m.run,
            "trained on": f"{m.where}, {human_duration(m.seconds.actual)}, {human_cost(m.cost_usd, m.where)}",
            "metrics": "  ".join(f"{k} {human_number(v, 4)}" for k, v in named_metrics(m.metrics).items()),
            "file": f"{human_bytes(m.model.size)}, sha256 {m.model.sha256}",
            "address": self.url or "",
        }
        lines = [(name, found[name]) for name in SHOWN_FACTS if found.get(name)]
        lines += [(name, text) for name, text in known.items() if name.startswith("as ")]
        lines += [(f"not {name}", why) for name, why in m.failed_exports.items()]
        lines += [(name, moved(move)) for name, moves in self.moves.items() for move in moves]
        widest, width = max(len(name) for name, _ in lines), terminal_width()
        return "\n".join(
            wrapped(value, width=width, indent=f"{name:{widest}}  ", hanging=" " * (widest + 2))
            for name, value in lines
        )


def provenance(store: ObjectStore, wanted: str, address: Callable[[str], str | None]) -> Provenance:
    """Return what the registry knows about a version. `address` returns the public address of a key.

    Raises StoreError, RegistryError.
    """
    manifest = resolve(store, wanted)
    moves = {
        name: tuple(m for m in alias.moves if m.version == manifest.version)
        for name, alias in aliases.all_aliases(store).items()
        if alias.has_meant(manifest.version)
    }
    entry = entry_of(versions(store), manifest.version)
    return Provenance(manifest, entry, moves, address(model_key(manifest.version, manifest.model.name)))


@dataclass(frozen=True, slots=True)
class History:
    """The moves of an alias, oldest first; with `at`, only what it meant then."""

    alias: Alias
    at: float | None = None

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves asked for."""
        if self.at is None:
            return self.alias.moves
        found = self.alias.at(self.at)
        return () if found is None else (found,)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {"alias": self.alias.name, "moves": [m.model_dump(mode="json") for m in self.moves]}

    def text(self) -> str:
        """Return a line for each move, broken where the terminal is narrower."""
        if not self.moves:
            return f"{self.alias.name} did not exist yet"
        return for_terminal("\n".join(moved(move) for move in self.moves))


def history(store: ObjectStore, name: str, at: float | None = None) -> History:
    """Return an alias's history. Raises RegistryError where there is no such alias."""
    alias = aliases.alias_of(store, name)
    if alias is None:
        raise RegistryError(
            f"no alias {name!r} in {store.url}; there are: {', '.join(aliases.names(store)) or 'none'}"
        )
    return History(alias, at)


def moved(move: Move) -> str:
    """Return a move in a line."""
    share = f" for {100 * move.rollout:g}%" if move.rollout < 1 else ""
    who = f" by {move.by}" if move.by else ""
    return one_line(f"{when(move.at)}  {move.semver or move.version}{share}  {move.cause}{who}: {move.why}")


def when(at: float) -> str:
    """Return a time for people, in UTC."""
    return utc(at, "%Y-%m-%d %H:%M")


def named(store: ObjectStore, wanted: str) -> IndexEntry:
    """Return the entry of a wanted version; see `find`. Raises RegistryError if there is none."""
    entry = find(store, wanted)
    if entry is None:
        resolve(store, wanted)  # raises with the versions that exist, unless only the index lacks this one
        raise RegistryError(
            f"{wanted} is not in the list of {store.url}; `offload train` of it completes that"
        )
    return entry
