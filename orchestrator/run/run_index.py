"""Index of runs in the store: finding open and recent runs does not depend on the number of past runs.

    open/<run>.json                a run that can be open or without a bill; created before the run, removed after its bill
    open/index.json                when all runs were last read: since then the index is complete
    recent/<inverted>-<run>.json   every run, the newest first in a listing

The journal decides; the index only says where to look. A superfluous entry costs two requests; a missing one, from a
version without an index, is found when `tend` reads all runs once a day.
"""

import contextlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_offload.infra.parallel import each
from gpu_offload.infra.store.errors import (
    ObjectExistsError,
    ObjectMissingError,
    StoreDeniedError,
    StoreReadOnlyError,
)
from gpu_offload.infra.store.newest_first import newest_first
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.run.record import COST, RUN_PREFIX, run_key

OPEN, RECENT = "open/", "recent/"
WHOLE = "open/index.json"
LATEST_KEPT = 50
"""Runs of before the index that are listed as recent, the newest."""
RESCAN_S = 24 * 3600.0
FORGOTTEN_S = 7 * 24 * 3600.0
"""Age after which an entry without a run is removed: its driver died before it wrote the run, or the run expired."""
RUN = re.compile(r"runs/([^/]+)/run\.json")
OVER = re.compile(rf"runs/([^/]+)/(outcome\.json|{re.escape(COST)})")
ENTRY = re.compile(r"(?:open/|recent/\d{10}-)(.+)\.json")
State = Literal["open", "unbilled", "billed", "missing"]
NOT_ALLOWED = (StoreDeniedError, StoreReadOnlyError)
"""What a role from before the index answers: then its runs are found by looking through all."""


@dataclass(frozen=True, slots=True)
class RunIndex:
    """The index of one store; without `writes` it is only read."""

    store: ObjectStore
    writes: bool = True

    def begin(self, run: str) -> None:
        """Enter a run that is about to be written."""
        with contextlib.suppress(*NOT_ALLOWED):
            if self.store.stat(WHOLE) is None and next(self.store.list(RUN_PREFIX), None) is None:
                self._note(0.0)  # of a new store the index is complete from the start
            self._enter(f"{OPEN}{run}.json")

    def begun(self, run: str, created_at: float) -> None:
        """Enter a run that is written among the recent ones; `created_at` in Unix seconds."""
        if self.writes:
            with contextlib.suppress(*NOT_ALLOWED):
                self._enter(f"{RECENT}{newest_first(created_at, run)}.json")

    def finish(self, run: str) -> None:
        """Remove a run that has its outcome and its bill."""
        if self.writes:
            with contextlib.suppress(*NOT_ALLOWED):
                self.store.delete(f"{OPEN}{run}.json")

    def open_ids(self, *, now: float | None = None) -> list[str]:
        """Return the runs without an outcome, readable or not, by id; with `now`, all runs are read once a day."""
        scanned = self._scanned_at()
        if scanned is None or (now is not None and now - scanned > RESCAN_S):
            return self.scan(now or 0.0)
        found = []
        for run, entered_at, state in self._states():
            if state == "open":
                found.append(run)
            elif state == "billed" or (
                state == "missing" and now is not None and now - entered_at > FORGOTTEN_S
            ):
                self.finish(run)
        return sorted(found)

    def unbilled_ids(self) -> list[str]:
        """Return the runs that are over without a bill: their driver died in between."""
        if self._scanned_at() is None:
            self.scan(0.0)
        return sorted(run for run, _, state in self._states() if state == "unbilled" and self._begun(run))

    def candidates(self) -> list[str]:
        """Return the runs that can be open, of which some may have ended or may not be there."""
        return self.scan(0.0) if self._scanned_at() is None else [run for run, _ in self._entries()]

    def _states(self) -> list[tuple[str, float, State]]:
        """Return the runs of the index, when they were entered (Unix seconds), and how they stand."""
        entries = self._entries()
        states = each(self._state, [run for run, _ in entries])
        return [(run, at, state) for (run, at), state in zip(entries, states, strict=True)]

    def _state(self, run: str) -> State:
        if self.store.stat(run_key(run, "outcome.json")) is None:
            return "open" if self._begun(run) else "missing"
        return "unbilled" if self.store.stat(run_key(run, COST)) is None else "billed"

    def _begun(self, run: str) -> bool:
        return self.store.stat(run_key(run, "run.json")) is not None

    def _entries(self) -> list[tuple[str, float]]:
        """Return the runs that can be open or unbilled, and when they were entered, Unix seconds."""
        return [
            (match[1], info.modified.timestamp())
            for info in self.store.list(OPEN)
            if info.key != WHOLE and (match := ENTRY.fullmatch(info.key))
        ]

    def recent(self) -> Iterator[str]:
        """Yield the runs that are there, the newest first; of runs before the index the newest alone."""
        some = False
        for info in self.store.list(RECENT):
            if match := ENTRY.fullmatch(info.key):
                some = True
                if self.store.stat(run_key(match[1], "run.json")) is not None:
                    yield match[1]
        if not some:
            runs = {
                match[1]: info.modified.timestamp()
                for info in self.store.list(RUN_PREFIX)
                if (match := RUN.fullmatch(info.key))
            }
            self._enter_newest(runs)
            yield from sorted(runs, key=lambda run: -runs[run])

    def scan(self, now: float) -> list[str]:
        """Read all runs, complete the index, and return the open ones."""
        runs, ended, billed = dict[str, float](), set[str](), set[str]()
        for info in self.store.list(RUN_PREFIX):
            if match := RUN.fullmatch(info.key):
                runs[match[1]] = info.modified.timestamp()
            # Only directly below the run: an instance may write below `result/` and `checkpoint/`, under any name.
            elif match := OVER.fullmatch(info.key):
                (ended if match[2] == "outcome.json" else billed).add(match[1])
        still_open = sorted(runs.keys() - ended)
        if not self.writes:
            return still_open
        with contextlib.suppress(*NOT_ALLOWED):
            entered = {run for run, _ in self._entries()}
            for run in sorted(runs.keys() - (ended & billed) - entered):
                self._enter(f"{OPEN}{run}.json")
            self._enter_newest(runs)
            self._note(now)
        return still_open

    def _enter_newest(self, runs: Mapping[str, float]) -> None:
        """Enter the newest runs among the recent ones, by when they were written, Unix seconds."""
        listed = itertools.islice(self.store.list(RECENT), 2 * LATEST_KEPT)
        entered = {match[1] for info in listed if (match := ENTRY.fullmatch(info.key))}
        for run in sorted(runs, key=lambda run: -runs[run])[:LATEST_KEPT]:
            if run not in entered:
                self.begun(run, runs[run])

    def _scanned_at(self) -> float | None:
        """Return when all runs were last read, Unix seconds; None for never."""
        try:
            body, _ = self.store.read(WHOLE)
            at = float(json.loads(body)["at"])
            return at if math.isfinite(at) else None
        except (ObjectMissingError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def _note(self, at: float) -> None:
        self.store.put(WHOLE, json.dumps({"format": 1, "at": round(at)}).encode() + b"\n")

    def _enter(self, key: str) -> None:
        with contextlib.suppress(ObjectExistsError):
            self.store.create(key, b"{}\n")
