"""Run status for `offload status`."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpu_offload.infra.parallel import each
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.table import text_table, wrapped
from gpu_offload.orchestrator.output.units import human_cost, human_duration
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.activity import activity_of, idle_text
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.run_documents import RunDocuments
from gpu_offload.orchestrator.settings.load import Settings

SHOWN = 10


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run, in a line. `cost_usd` is so far for an open one."""

    run: str
    status: str
    where: str = ""
    attempt: int = 0
    epochs_completed: int = 0
    epochs: int = 0
    seconds: float = 0.0
    driven: bool | None = None
    """Whether a process drives it now; None for a run that is over."""
    silent_seconds: float | None = None
    cost_usd: float = 0.0
    instance: str | None = None
    version: str = ""
    message: str = ""

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return asdict(self)


def standings(store: ObjectStore, settings: Settings, run: str | None = None) -> list[RunStatus]:
    """Return one run, or the latest and the open ones, the newest first. Raises JournalError where there is no such run."""
    journal, clock = Journal(store), clock_of(store)
    if run is not None:
        record = journal.run(run)
        return [_standing(store, settings, record, journal.read(record.id), clock())]
    recent = journal.recent_ids(SHOWN)

    def look(name: str) -> tuple[float, RunStatus] | None:
        try:
            # The index can name runs that have ended; the documents decide.
            documents = journal.read(name)
            if name not in recent and (documents.outcome is not None or not documents.begun):
                return None
            record = journal.run(name)
            return record.created_at, _standing(store, settings, record, documents, clock())
        except JournalError as error:
            return math.inf, _unreadable(error)

    found = each(look, dict.fromkeys([*journal.index.candidates(), *recent]))
    return [one for _, one in sorted(filter(None, found), key=lambda pair: -pair[0])]


def _unreadable(error: JournalError) -> RunStatus:
    found = re.search(r"runs/([^/]+)/", str(error))
    return RunStatus(found[1] if found else "?", "unreadable", message=str(error))


def _standing(
    store: ObjectStore, settings: Settings, run: RunRecord, documents: RunDocuments, now: float
) -> RunStatus:
    last = documents.attempts[-1] if documents.attempts else None
    beat = last.heartbeat if last else None
    activity = activity_of(store, run, documents, now)
    bill = Accounting(store, settings.store).known_bill(run, documents, now=activity.until)
    return RunStatus(
        run=run.id,
        status=documents.outcome.status if documents.outcome else "open",
        where=last.record.offer.name if last else "not yet",
        attempt=last.record.number if last else 0,
        epochs_completed=max(
            documents.checkpoint.epochs_completed if documents.checkpoint else 0,
            last.epochs_completed if last else 0,
        ),
        epochs=run.spec.epochs,
        seconds=activity.seconds,
        driven=activity.driven,
        silent_seconds=round(now - beat.time, 1) if beat and activity.at_work else None,
        cost_usd=float(bill.total),
        instance=last.host.instance_id if last and last.host else None,
        version=run.version,
        message=(documents.outcome.message if documents.outcome else "")
        or (last.end.message if last and last.end else ""),
    )


def standings_text(found: Sequence[RunStatus], *, width: int = 80) -> str:
    """Return a row for each run, with what it ended with or waits for below the table."""
    if not found:
        return "no run yet; `offload train` starts one"
    rows = [("run", "status", "where", "epoch", "time", "cost", "heard from")]
    rows += [
        (
            one.run,
            one.status,
            one.where,
            f"{one.epochs_completed} of {one.epochs}",
            human_duration(one.seconds),
            human_cost(one.cost_usd, one.where),
            f"{human_duration(one.silent_seconds)} ago" if one.silent_seconds is not None else "",
        )
        for one in found
    ]
    runs_by_text: dict[str, list[str]] = {}
    for one in found:
        if text := _explained(one):
            runs_by_text.setdefault(text, []).append(one.run)
    texts = [f"{', '.join(runs)}: {text}" for text, runs in runs_by_text.items()]
    return "\n".join([text_table(rows, width=width), *(wrapped(t, width=width, hanging="  ") for t in texts)])


def _explained(one: RunStatus) -> str:
    """Return how a run ended or what it waits for; empty where the table shows it."""
    if one.status == "published":
        return ""
    if one.status != "open":
        return one.message
    place = f"attempt {one.attempt} on {one.instance}" if one.instance else f"attempt {one.attempt}"
    if one.silent_seconds is None and not one.driven:
        ended = f"{one.message}; " if one.message else ""
        return ended + idle_text(one.run)
    return f"{place}: {one.message}" if one.message else place
