"""Reads from the store how long runs can own resources in the account."""

from collections.abc import Iterable, Mapping

from gpu_offload.infra.store.errors import ObjectKeyError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cleanup.orphans import RunLimits
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.record import run_key


def limits_of(store: ObjectStore, runs: Iterable[str]) -> Mapping[str, RunLimits]:
    """Return the limits of those of these runs that are in the store. Raises StoreError."""
    journal, found = Journal(store), {}
    for run in runs:
        try:
            if store.stat(run_key(run, "run.json")) is None:
                continue
            found[run] = RunLimits(journal.run(run).deadline_at, over=journal.outcome(run) is not None)
        except ObjectKeyError:
            continue  # no run of any store could be called that
        except JournalError:
            found[run] = RunLimits(0.0, legible=False)
    return found
