"""The bill of a run, from its journal and the price history."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreDeniedError,
)
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cost.bill import Bill, bill, cpu_line, spent
from gpu_offload.orchestrator.cost.prices import FOLDER, R2, S3, StorePrices
from gpu_offload.orchestrator.cost.traffic import READ_BACK
from gpu_offload.orchestrator.cost.usage import AttemptUse, PriceStep, StoreUse
from gpu_offload.orchestrator.run.alternatives import policy_alternatives
from gpu_offload.orchestrator.run.attempt_use import (
    bytes_sent,
    ended_of,
    highest_price,
    price_history,
    use_of,
)
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.record import COST, RunRecord, run_key
from gpu_offload.orchestrator.run.run_documents import RunDocuments
from gpu_offload.orchestrator.run.run_index import RunIndex
from gpu_offload.orchestrator.settings.sections import StoreSettings

PUTS_A_MINUTE = 12
"""An instance's uploads while it trains: heartbeat, progress and log every 15 s."""

PRICES_LAST_S = 600.0
"""How old the spot prices of a running attempt can be: they change a few times a day."""

PUTS_AN_EPOCH = 3
"""A checkpoint: two files and the manifest."""

LONGEST_TEXT, MOST = 2_000, 10**12
"""Limits of a bill that is read from the store: characters of a text, and amounts."""

BILL = TypeAdapter(Bill)

OVERHEAD_PUTS, OVERHEAD_GETS = 40, 60
"""Requests of any run: journal, staging, result and publication are written and read back."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """Accounts for the runs of one store."""

    store: ObjectStore
    settings: StoreSettings
    _asked: dict[int, tuple[float, tuple[PriceStep, ...]]] = field(default_factory=dict)
    """By attempt: when its prices were read, and the prices."""

    def spent(self, run: RunRecord, observation: Observation) -> float:
        """Return a run's cost so far in US dollars, by recent spot prices, else by the highest possible one."""
        now = observation.now
        sent = bytes_sent(run, observation.attempts, observation.checkpoint_bytes, observation.result)
        return spent(
            _uses(run, observation.attempts, now, sent, lambda a: self._prices(a, now) or highest_price(a))
        )

    def known_bill(self, run: RunRecord, documents: RunDocuments, *, now: float) -> Bill:
        """Return a finished run's bill as written; of an open run its cost until `now`, by launch prices."""
        is_over = documents.outcome is not None
        kept = read_bill(self.store, run.id) if is_over else None
        return kept or self.bill(run, documents, now=now, ask=is_over)

    def total(self, run: RunRecord, observation: Observation) -> float:
        """Return the total of a run's bill until now, in US dollars."""
        return float(self._observed_bill(run, observation).total)

    def _observed_bill(self, run: RunRecord, observation: Observation) -> Bill:
        documents = replace(Journal(self.store).read(run.id), attempts=observation.attempts)
        return self.bill(run, documents, now=observation.now)

    def _prices(self, attempt: ObservedAttempt, now: float) -> tuple[PriceStep, ...]:
        """Return an attempt's spot prices, at most `PRICES_LAST_S` old while it runs."""
        number = attempt.record.number
        asked_at, prices = self._asked.get(number, (-PRICES_LAST_S, ()))
        until = ended_of(attempt, now)[0]
        if asked_at < until and (attempt.end is not None or now - asked_at >= PRICES_LAST_S):
            prices = price_history(attempt, now)
            self._asked[number] = now, prices
        return prices

    def settle(self, run: RunRecord, observation: Observation) -> None:
        """Write a finished run's bill at the prices paid; again only if an instance or its real end was found."""
        # Another driver may find an instance later: the bill says which it has, until when.
        key = run_key(run.id, COST)
        booked = {
            a.host.instance_id: round(ended_of(a, observation.now)[0], 3)
            for a in observation.attempts
            if a.host
        }
        if not _is_complete(self.store, key, booked):
            document = self._observed_bill(run, observation).json() | {"instances": booked}
            body = (json.dumps(document, indent=1) + "\n").encode()
            try:
                self.store.create(key, body)
            except ObjectExistsError:
                # An older role may not replace it; the next driver with a newer one does.
                with contextlib.suppress(ObjectChangedError, ObjectMissingError, StoreDeniedError):
                    self.store.replace(key, body, self.store.read(key)[1])
        RunIndex(self.store).finish(run.id)

    def bill(self, run: RunRecord, documents: RunDocuments, *, now: float, ask: bool = True) -> Bill:
        """Account for a run, open or finished; with `ask` by EC2's spot prices of the time, else by those at launch."""
        attempts, result = documents.attempts, documents.result
        checkpoint_bytes = documents.checkpoint.size if documents.checkpoint else None
        sent = bytes_sent(run, attempts, checkpoint_bytes, result)
        uses = _uses(run, attempts, now, sent, lambda a: price_history(a, now) if ask else ())
        here = [a for a in attempts if a.record.offer.where == "cpu"]
        end = max((a.end.at if a.end else now for a in attempts), default=now)
        # The attempt that published is closed after its run's end.
        until = documents.outcome.at if documents.outcome else now
        seconds = sum(max(0.0, min(a.end.at if a.end else now, until) - a.record.created_at) for a in here)
        found = bill(
            uses,
            store=self._store_use(run, documents, now, end),
            cpu=cpu_line(seconds) if here else None,
            training_seconds=result.timings.total if result else None,
            cpu_estimate=run.cpu_estimate,
        )
        others = policy_alternatives(run, attempts, end, paid=found.total)
        return replace(found, alternatives=(*found.alternatives, *others))

    def _store_use(self, run: RunRecord, documents: RunDocuments, now: float, end: float) -> StoreUse:
        """Estimate a run's requests to the store until its `end` from what its parts are known to do."""
        prices = store_prices(self.store.url, self.settings.endpoint_url)
        if prices is FOLDER:
            return StoreUse()
        attempts, result = documents.attempts, documents.result
        seconds = max(0.0, end - run.created_at)
        epochs = max((a.epochs_completed for a in attempts), default=0)
        mirrored = sum(max(0.0, ended_of(a, now)[0] - a.host.launched_at) for a in attempts if a.host)
        return StoreUse(
            prices=prices,
            puts=OVERHEAD_PUTS + round(mirrored / 60 * PUTS_A_MINUTE) + PUTS_AN_EPOCH * epochs,
            # A driver looks every 240 s (`next_step.WATCH_S`), with six requests.
            gets=OVERHEAD_GETS + round(seconds / 240 * 6),
            stored_bytes=documents.stored_bytes,
            stored_seconds=seconds,
            egress_bytes=READ_BACK * result.model.size if result else 0,
        )


def store_prices(url: str, endpoint_url: str | None) -> StorePrices:
    """Return the prices of a store, by its address; those of S3 for an unknown server."""
    if not url.startswith("s3:"):
        return FOLDER
    host = urlsplit(endpoint_url or "").hostname or ""
    return R2 if host.endswith(".r2.cloudflarestorage.com") else S3


def _uses(
    run: RunRecord,
    attempts: Sequence[ObservedAttempt],
    now: float,
    sent: Mapping[int, int],
    prices: Callable[[ObservedAttempt], tuple[PriceStep, ...]],
) -> list[AttemptUse]:
    return [use_of(a, run, now=now, prices=prices(a), sent=sent[a.record.number]) for a in attempts if a.host]


def _is_complete(store: ObjectStore, key: str, instances: Mapping[str, float]) -> bool:
    """Whether there is a readable bill, and it has these instances until their ends, in Unix seconds."""
    try:
        billed = json.loads(store.read(key)[0]).get("instances", instances)
        if isinstance(billed, list):  # as earlier versions wrote them: without the ends
            return set(instances) <= set(billed)
        return all(billed.get(name) == ended for name, ended in instances.items())
    except (ObjectMissingError, ValueError, TypeError, AttributeError, RecursionError):
        return False


def read_bill(store: ObjectStore, run: str) -> Bill | None:
    """Return a finished run's bill as it was written; None where there is none yet, or it is damaged."""
    try:
        return _parsed(json.loads(store.read(run_key(run, COST))[0]))
    except (ObjectMissingError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None


def _parsed(document: Any) -> Bill:
    lines = [line | {"unit_price": line["unit_price_usd"]} for line in document["lines"]]
    found = BILL.validate_python({"lines": lines, "alternatives": document["alternatives"]})
    amounts = [n for line in found.lines for n in (line.quantity, line.unit_price, line.usd)]
    texts = [text for line in found.lines for text in (line.label, line.unit, line.note)]
    for one in found.alternatives:
        amounts.append(one.usd)
        texts += one.label, one.note
    "".join(texts).encode()  # a lone surrogate, which JSON can escape, is a ValueError here
    if any(abs(amount) >= MOST for amount in amounts) or any(len(text) > LONGEST_TEXT for text in texts):
        raise ValueError("the bill has an amount or a text that no bill has")
    return found
