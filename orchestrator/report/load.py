"""Gather what a run's report shows from the store, and render it."""

from collections.abc import Sequence
from typing import Literal

from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.json_text import json_text
from gpu_offload.orchestrator.registry.index import entry_of, versions
from gpu_offload.orchestrator.registry.manifest import IndexEntry, RegistryError
from gpu_offload.orchestrator.registry.publish import why_candidate
from gpu_offload.orchestrator.report.content import Before, Report
from gpu_offload.orchestrator.report.markdown import report_markdown
from gpu_offload.orchestrator.report.page import report_html
from gpu_offload.orchestrator.report.picture import read_picture
from gpu_offload.orchestrator.report.text import report_text
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.activity import activity_of
from gpu_offload.orchestrator.run.events import events_of
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.settings.sections import StoreSettings

Format = Literal["text", "markdown", "json", "html"]


def gather(
    store: ObjectStore, settings: StoreSettings, run: str, *, now: float | None = None, pictures: bool = False
) -> Report:
    """Read a run, finished or not; `pictures` reads the picture of predictions too. Raises JournalError, StoreError."""
    journal = Journal(store)
    record = journal.run(run)
    documents = journal.read(run)
    now = clock_of(store)() if now is None else now
    activity = activity_of(store, record, documents, now)
    entries = _entries(store)
    own = entry_of(entries, record.version)
    return Report(
        picture=read_picture(store, run, documents.result) if pictures else None,
        run=record,
        now=now if documents.outcome else activity.until,
        is_idle=documents.outcome is None and not activity.at_work,
        bill=Accounting(store, settings).known_bill(record, documents, now=activity.until),
        attempts=documents.attempts,
        outcome=documents.outcome,
        result=documents.result,
        before=_before(entries, record, documents.outcome.at if documents.outcome else now),
        semver=own.semver if own else None,
        yanked=own.yanked.why if own and own.yanked else None,
        candidate=_candidate(store, record.version),
        events={a.record.number: events_of(store, run, a.record.number) for a in documents.attempts},
    )


def _entries(store: ObjectStore) -> tuple[IndexEntry, ...]:
    try:
        # A report can do without a registry that is damaged; `offload models` says what is wrong with it.
        return versions(store)
    except RegistryError:
        return ()


def _candidate(store: ObjectStore, version: str) -> str | None:
    try:
        return why_candidate(store, version)
    except RegistryError:
        return None


def _before(entries: Sequence[IndexEntry], run: RunRecord, at: float) -> Before | None:
    """Return the version that was published last before a run ended."""
    earlier = [entry for entry in entries if entry.created_at < at and entry.version != run.version]
    last = max(earlier, key=lambda entry: entry.created_at, default=None)
    return Before(last.version, last.metrics, last.semver) if last else None


def latest_run(store: ObjectStore) -> str:
    """Return the id of the run that began last. Raises JournalError where there is none."""
    journal = Journal(store)
    newest = journal.recent_ids(1)
    if not newest:
        raise JournalError(f"there is no run in {store.url} yet; `offload train` begins one")
    return newest[0]


def render(report: Report, form: Format, *, width: int = 80) -> str:
    """Return a report in a form; `width` is the terminal's, for `text`."""
    if form == "text":
        return report_text(report, width=width)
    if form == "json":
        return json_text(report.json()) + "\n"
    return report_html(report) if form == "html" else report_markdown(report)
