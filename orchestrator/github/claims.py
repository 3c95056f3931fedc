"""What is taken from a training's own index and aliases once its model is verified: its kind of number, its verdict.

Everything else is the release's own. Pure.
"""

import json
import math
import re
from collections.abc import Mapping

from gpu_offload.orchestrator.estimate.history import MOST_KEPT, KeptTimings, Timing
from gpu_offload.orchestrator.output.console import plain
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.index import entry_for, entry_of, numbered
from gpu_offload.orchestrator.registry.manifest import Alias, Index, IndexEntry, Manifest, Move
from gpu_offload.orchestrator.registry.semver import bump_between, following, reaches
from gpu_offload.orchestrator.run.record import RUN_KEY_LENGTH

WHY = 500
"""Characters of a reason."""
EVIDENCE = 16_384
"""Bytes of the figures behind it, as JSON."""
TIMING = 4_096
"""Bytes of one training's times, as JSON."""
LONGEST_S, FARTHEST = 30 * 86_400.0, 100.0
"""Seconds of a training at most, and the largest ratio of its actual to its predicted time."""


def not_later(claimed: float, now: float) -> float:
    """Return a claimed time (Unix seconds) where it is one of the past, else now."""
    # After a move in the future, no later publish would move the alias any more.
    return claimed if 0 <= claimed <= now else now


def listed(theirs: Index, manifest: Manifest, claimed: Index, now: float) -> Index:
    """Return the release's index with a verified version in it; every other entry stays as it is.

    Of the training's claim only the kind of its number counts (major, minor or patch); the number is the next free one.
    """
    entries = numbered(theirs.versions)
    if (there := entry_of(entries, manifest.version)) is not None:
        # A version whose files were deleted may have been trained again.
        new = there.model_copy(update=entry_for(manifest, there.semver).names)
        changed = Index(versions=tuple(new if each is there else each for each in entries))
        return changed if new != there else theirs
    parent = entry_of(entries, manifest.parent or "") or (entries[-1] if entries else None)
    claim = entry_of(claimed.versions, manifest.version)
    number = following(
        bump_between(claim.semver or "") if claim else "minor",
        parent.semver if parent else None,
        [entry.semver or "" for entry in entries],
    )
    entry = entry_for(manifest, number).model_copy(
        update={
            "created_at": not_later(manifest.created_at, now),
            "metrics": {name: value for name, value in manifest.metrics.items() if math.isfinite(value)},
            "cost_usd": manifest.cost_usd if math.isfinite(manifest.cost_usd) else None,
        }
    )
    return Index(versions=tuple(sorted((*entries, entry), key=lambda each: each.created_at)))


def claimed_move(claimed: Alias, entry: IndexEntry, now: float, by: str) -> Move | None:
    """Return the move by which an alias came to mean a version, in our words; None where it does not mean it."""
    claim = claimed.moves[-1]
    if claim.version != entry.version:
        return None
    return Move(
        at=not_later(claim.at, now),
        **entry.names,
        # The other causes are acts of a person.
        cause=claim.cause if claim.cause in {"publish", "rollback"} else "publish",
        by=by,
        why=plain(claim.why)[:WHY],
        evidence=_bounded(claim.evidence),
    )


def missed(theirs: Alias | None, claimed: Alias, version: str) -> Move | None:
    """Return the newest rollback in the release that the training, which claims the alias for a version, did not see."""
    if theirs is None or theirs.has_meant(version):
        return None
    seen = {(move.at, move.version) for move in claimed.moves}
    found = (move for move in reversed(theirs.moves) if move.cause == "rollback")
    return next((move for move in found if (move.at, move.version) not in seen), None)


def moved(theirs: Alias | None, move: Move, entries: tuple[IndexEntry, ...], name: str, now: float) -> Alias:
    """Return an alias with a move in its history; moves with a future time, which an older version accepted, are dropped."""
    past = tuple(each for each in theirs.moves if each.at <= now) if theirs is not None else ()
    if theirs is None or not past:
        return aliases.written(name, (move,), aliases.yanks(entries), None)
    if past != theirs.moves:
        theirs = aliases.written(name, past, theirs.yanked, theirs.minimum, theirs)
    return _with_move(theirs, move, entries)


def _with_move(alias: Alias, move: Move, entries: tuple[IndexEntry, ...]) -> Alias:
    """Return an alias with a move that another machine made, at its time in the history; numbers are those of `entries`.

    If the last version must not be used, the alias means the last one that may.
    """
    yanked = aliases.yanks(entries)
    moves = {(m.at, m.version, m.rollout): m for m in (move, *alias.moves)}
    history = aliases.current(sorted(moves.values(), key=lambda m: m.at), entries)
    usable = [m for m in history if m.version not in yanked and reaches(m.semver, alias.minimum)]
    if usable and usable[-1] is not history[-1]:
        act = {"at": history[-1].at, "cause": "yank", "why": "what came later must not be used"}
        history = (*history, usable[-1].model_copy(update=act))
    return aliases.written(alias.name, history, yanked, alias.minimum, alias)


def timed(theirs: KeptTimings, claimed: KeptTimings, training_key: str, now: float) -> KeptTimings:
    """Return the release's timings with the training's own, the newest first; what no training can take is left out."""
    run = re.compile(rf"{training_key[:RUN_KEY_LENGTH]}-[0-9]{{1,6}}")
    known = {timing.run for timing in theirs.timings}
    own = [
        timing.model_copy(update={"at": not_later(timing.at, now)})
        for timing in claimed.timings
        if run.fullmatch(timing.run) and timing.run not in known and _is_plausible(timing)
    ]
    return KeptTimings(timings=(*own[:1], *theirs.timings)[:MOST_KEPT]) if own else theirs


def _is_plausible(timing: Timing) -> bool:
    pairs = [(timing.predicted, timing.actual), *([timing.left] if timing.left else [])]
    return (
        len(timing.model_dump_json()) <= TIMING
        and all(0 < min(pair) <= max(pair) <= min(LONGEST_S, FARTHEST * min(pair)) for pair in pairs)
        and all(0 <= seconds <= LONGEST_S for seconds in timing.installed.values())
    )


def _bounded(evidence: Mapping[str, object] | None) -> dict[str, object] | None:
    try:
        text = json.dumps(evidence, allow_nan=False)
    except ValueError:
        return None
    return dict(evidence) if evidence and len(text) <= EVIDENCE else None
