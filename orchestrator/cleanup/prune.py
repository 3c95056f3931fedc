"""Deletes what a store no longer needs, or lists it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_offload.dataset.unpacking import CorruptArchiveError
from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.errors import ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectInfo, ObjectStore
from gpu_offload.orchestrator.backends.staging import dataset_keys
from gpu_offload.orchestrator.cleanup.retention import (
    GB,
    Deletable,
    Needs,
    Retention,
    candidates,
    listed_dataset,
    publication_times,
    why_kept,
)
from gpu_offload.orchestrator.cleanup.usage import tier_of, usage
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.table import terminal_width, text_table, wrapped
from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.index import manifest_of, versions
from gpu_offload.orchestrator.registry.listing import when
from gpu_offload.orchestrator.registry.revert import delete_files
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import RUN_KEY_LENGTH
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import RetentionSettings
from gpu_offload.remote_job.staged_dataset import SHARDS, dataset_key, read_staged

SHOWN = 10
"""Versions whose reason to stay the text shows."""

FALLBACKS = 2
"""Number of versions kept before the one that an alias points at, to roll back to."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be."""

    candidates: tuple[Deletable, ...]
    dry_run: bool
    total: int
    """Bytes of the store before."""
    kept: dict[str, str]
    """Why each version stays, by its number, the newest first."""

    @property
    def freed(self) -> int:
        """Bytes of the candidates."""
        return sum(candidate.bytes for candidate in self.candidates)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "dry_run": self.dry_run,
            "bytes": self.total,
            "freed": self.freed,
            "kept": self.kept,
            "deleted": [
                {"kind": c.kind, "name": c.name, "bytes": c.bytes, "at": c.at, "why": c.why}
                for c in self.candidates
            ],
        }

    def text(self) -> str:
        """Return the result as text."""
        shown = list(self.kept.items())[:SHOWN]
        names: dict[str, list[str]] = {}
        for name, why in shown:
            names.setdefault(why, []).append(name)
        width = terminal_width()
        kept = [wrapped(f"kept {', '.join(n)}: {why}", width=width, hanging="  ") for why, n in names.items()]
        if more := len(self.kept) - len(shown):
            kept.append(f"and {more:,} older ones are kept: offload prune --json")
        if not self.candidates:
            return "\n".join([*kept, f"nothing to delete; the store holds {human_bytes(self.total)}"])
        rows = [("what", "name", "size", "of (UTC)", "why")]
        rows += [(c.kind, c.name, human_bytes(c.bytes), when(c.at), c.why) for c in self.candidates]
        what = (
            f"would free {human_bytes(self.freed)} of {human_bytes(self.total)}; `--delete` does it"
            if self.dry_run
            else f"freed {human_bytes(self.freed)} of {human_bytes(self.total)}"
        )
        return "\n".join([*kept, text_table(rows, width=width), what])


def prune(
    store: ObjectStore, policy: Retention, *, delete: bool = False, clock: Callable[[], float] | None = None
) -> Pruned:
    """Delete versions, checkpoints of published runs and staged datasets that nothing needs.

    Never a version that an alias points at or would fall back to; never a file of an open run.

    Raises:
        StoreError: The store cannot be listed, or refuses; what was deleted until then is gone as a whole.
    """
    # Listed before the journal is read: a run that begins in between has nothing in the list.
    objects = list(store.list(""))
    staged = _staged(store, objects)
    needs, ended = _needs(store, staged)
    entries = versions(store)
    now = (clock or clock_of(store))()  # a store that answers has taught its clock
    found = candidates(objects, entries, needs, ended, policy, now, staged)
    going = {candidate.name for candidate in found}
    reasons = why_kept(entries, needs, policy, now, publication_times(objects, entries))
    kept = {
        e.semver or e.version: ", ".join(reasons[e.version])
        or "the store is small enough without deleting it"
        for e in reversed(entries)
        if e.version in reasons and e.version not in going
    }
    if delete:
        for candidate in found:
            _delete(store, candidate)
    return Pruned(tuple(found), not delete, sum(info.size for info in objects), kept)


def _staged(store: ObjectStore, objects: Iterable[ObjectInfo]) -> dict[str, tuple[str, ...]]:
    """Return the keys of the shards of each staged dataset, by its fingerprint; none of a list that is damaged."""
    names = [name for info in objects if (name := listed_dataset(info.key)) is not None]
    return {name: _shards(store, dataset_key(name)) or () for name in names}


def _shards(store: ObjectStore, key: str) -> tuple[str, ...] | None:
    """Return the keys of the shards of a list; None where there is none that can be read."""
    try:
        return tuple(shard.key for shard in read_staged(store, key).shards)
    except (ObjectMissingError, CorruptArchiveError):
        return None


def _needs(store: ObjectStore, staged: Mapping[str, Sequence[str]]) -> tuple[Needs, dict[str, float]]:
    journal = Journal(store)
    shards: set[str] | None = set()
    # An earlier run of a training that is published has nothing to resume, either.
    published = {entry.version[:RUN_KEY_LENGTH] for entry in versions(store) if not entry.deleted}
    runs, fingerprints, needed, ended = set(), set(), set(), {}
    for run in journal.run_ids():
        outcome = journal.outcome(run)
        if outcome is None:
            record = journal.run(run)
            runs |= {run, *([record.resumes] if record.resumes else [])}
            fingerprints.add(record.fingerprint)
            own = _shards(store, dataset_keys(record)[1])
            if shards is not None and own is not None:
                shards |= set(own)
            elif not staged.get(record.fingerprint) and any(
                c.offer.where != "cpu" for c in record.candidates
            ):
                shards = None  # its dataset is being staged, perhaps of any shard that is there
            needed |= {record.version, *([record.origin.version] if record.origin else [])}
        elif outcome.status == "published" or run[:RUN_KEY_LENGTH] in published:
            ended[run] = outcome.at
    for alias in aliases.all_aliases(store).values():
        usable = [m.version for m in reversed(alias.moves) if m.version not in alias.yanked]
        needed |= {alias.version, *list(dict.fromkeys(usable))[: FALLBACKS + 1]}
    kept = None if shards is None else frozenset(shards)
    return Needs(frozenset(filter(None, needed)), frozenset(runs), frozenset(fingerprints), kept), ended


def _delete(store: ObjectStore, candidate: Deletable) -> None:
    if candidate.kind == "version":
        manifest = manifest_of(store, candidate.name)
        if manifest is not None:
            # An alias can have moved to it since the listing.
            if any(alias.version == candidate.name for alias in aliases.all_aliases(store).values()):
                return
            delete_files(store, manifest)
            return
        for key in candidate.keys:
            store.delete(key)
        return
    if candidate.kind == "dataset":
        for key in sorted(candidate.keys, key=lambda key: key.startswith(SHARDS)):  # a list before its shards
            store.delete(key)
        return
    for part in ("checkpoint", "result"):
        infos = sorted(store.list(f"runs/{candidate.name}/{part}/"), key=lambda i: "manifest" not in i.key)
        for info in infos:
            store.delete(info.key)


def after_publication(store: ObjectStore, settings: Settings, console: Console) -> tuple[str, ...]:
    """Delete what the configuration does not keep; return warnings for the job's summary, also if the store refuses."""
    warnings: list[str] = []
    try:
        if settings.retention.mode != "off":
            delete = settings.retention.mode == "delete"
            done = prune(store, policy_of(settings.retention), delete=delete)
            if done.candidates:
                verb = "deleted" if delete else "would delete"
                names = ", ".join(f"{c.kind} {c.name}" for c in done.candidates)
                console.note(f"retention {verb} {human_bytes(done.freed)}: {names}")
        free = tier_of(settings.store_url, settings.store.endpoint_url)
        # Only a limit is worth the listing of a whole store.
        held = usage(store.list("") if free.storage else (), free, model=0, users=0, updates=0)
        if found := held.warnings():
            remedy = "`offload prune` says what may go, and `[retention]` lets it go by itself"
            warnings += [f"the store holds {human_bytes(held.storage)}: {text}; {remedy}" for text in found]
    except OffloadError as error:
        # The model is published: nothing that the store holds beside it may fail the command now.
        warnings.append(f"retention: {error}")
    for warning in warnings:
        console.warning(warning)
    return tuple(warnings)


def policy_of(settings: RetentionSettings) -> Retention:
    """Return what the configuration keeps."""
    below = None if settings.below_gb is None else round(settings.below_gb * GB)
    return Retention(keep=settings.keep, days=settings.days, below=below)
