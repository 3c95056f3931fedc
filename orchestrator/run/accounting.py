"""What a run has cost: the journal and the price history, made into the lines of a bill."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreDeniedError,
)
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cost.bill import Alternative, Bill, CostLine, bill, cpu_line, spent
from gpu_offload.orchestrator.cost.prices import FOLDER, R2, S3, StorePrices
from gpu_offload.orchestrator.cost.usage import AttemptUse, PriceStep, StoreUse
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.orchestrator.settings.sections import StoreSettings

COST = "cost.json"
PUTS_A_MINUTE = 12
"""An instance's uploads while it trains: heartbeat, progress and log every 15 s."""

PRICES_LAST_S = 600.0
"""How old the spot prices of a running attempt may be: they change some times a day."""

PUTS_AN_EPOCH = 3
"""A checkpoint: two files and the manifest."""

OVERHEAD_PUTS, OVERHEAD_GETS = 40, 60
"""Journal, staging, result, publishing; and reading them back."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """Accounts for the runs of one store."""

    store: ObjectStore
    settings: StoreSettings
    _asked: dict[int, tuple[float, tuple[PriceStep, ...]]] = field(default_factory=dict)
    """By attempt: when its prices were asked for, and what they were."""

    def spent(self, run: RunRecord, observation: Observation) -> float:
        """Return what a run has cost so far, in US dollars, by the spot prices since, asked for now and then.

        Where EC2 does not tell them, an attempt counts at the highest price that it may have come to.
        """
        now = observation.now
        uses = [
            use_of(a, now=now, run=run, prices=self._prices(a, now) or _highest(a))
            for a in observation.attempts
            if _is_billed(a)
        ]
        return spent(uses)

    def so_far(self, attempts: Sequence[ObservedAttempt], now: float) -> float:
        """Return what attempts have cost until now, in US dollars, by the prices at launch, without a call to AWS."""
        return spent([use_of(a, now=now) for a in attempts if _is_billed(a)])

    def _prices(self, attempt: ObservedAttempt, now: float) -> tuple[PriceStep, ...]:
        """Return an attempt's spot prices, at most `PRICES_LAST_S` old while it runs."""
        number = attempt.record.number
        asked_at, prices = self._asked.get(number, (-PRICES_LAST_S, ()))
        until = attempt.end.at if attempt.end else now
        if asked_at < until and (attempt.end is not None or now - asked_at >= PRICES_LAST_S):
            prices = _price_history(attempt, now)
            self._asked[number] = now, prices
        return prices

    def settle(self, run: RunRecord, observation: Observation) -> None:
        """Write a finished run's bill beside its journal, with the prices that were paid.

        It is written again only when an instance was found after it was written.
        """
        key = run_key(run.id, COST)
        booked = sorted(a.host.instance_id for a in observation.attempts if a.host)
        if _is_complete(self.store, key, booked):
            return
        document = self.bill(run, observation.attempts, now=observation.now).json() | {"instances": booked}
        body = (json.dumps(document, indent=1) + "\n").encode()
        try:
            self.store.create(key, body)
        except ObjectExistsError:
            # An older role may not replace it; the next driver with a newer one does.
            with contextlib.suppress(ObjectChangedError, ObjectMissingError, StoreDeniedError):
                self.store.replace(key, body, self.store.read(key)[1])

    def bill(self, run: RunRecord, attempts: Sequence[ObservedAttempt], *, now: float) -> Bill:
        """Account for a run, open or finished; asks EC2 for the spot prices of the time."""
        uses = [use_of(a, now=now, run=run, prices=_price_history(a, now)) for a in attempts if _is_billed(a)]
        here = [a for a in attempts if a.record.offer.where == "cpu"]
        seconds = sum((a.end.at if a.end else now) - a.record.created_at for a in here)
        result = Journal(self.store).result(run.id)
        return bill(
            uses,
            store=self._store_use(run, attempts, now),
            cpu=cpu_line(seconds) if here else None,
            training_seconds=result.timings.total if result else None,
            cpu_estimate=run.cpu_estimate,
        )

    def _store_use(self, run: RunRecord, attempts: Sequence[ObservedAttempt], now: float) -> StoreUse:
        """Reckon what the run asked of the store; requests are counted by what the parts are known to do."""
        prices = store_prices(self.store.url, self.settings.endpoint_url)
        if prices is FOLDER:
            return StoreUse()
        end = max((a.end.at for a in attempts if a.end), default=now)
        seconds = max(0.0, end - run.created_at)
        epochs = max((a.heartbeat.epochs_completed for a in attempts if a.heartbeat), default=0)
        mirrored = sum(
            max(0.0, (a.end.at if a.end else now) - a.host.launched_at) for a in attempts if a.host
        )
        return StoreUse(
            prices=prices,
            puts=OVERHEAD_PUTS + round(mirrored / 60 * PUTS_A_MINUTE) + PUTS_AN_EPOCH * epochs,
            gets=OVERHEAD_GETS + round(seconds / 240 * 6),
            stored_bytes=sum(info.size for info in self.store.list(run_key(run.id, ""))),
            stored_seconds=seconds,
        )


def store_prices(url: str, endpoint_url: str | None) -> StorePrices:
    """Return the prices of a store, by its address; those of S3 for an unknown server."""
    if not url.startswith("s3:"):
        return FOLDER
    host = urlsplit(endpoint_url or "").hostname or ""
    return R2 if host.endswith(".r2.cloudflarestorage.com") else S3


def use_of(
    attempt: ObservedAttempt, *, now: float, prices: tuple[PriceStep, ...] = (), run: RunRecord | None = None
) -> AttemptUse:
    """Return what an attempt with an instance used, until it ended or until now.

    Args:
        attempt: With a host.
        now: Unix seconds.
        prices: The zone's prices over that time; empty: the offer's own price throughout.
        run: The attempt's run, for what its inputs cost to read.
    """
    host, offer = attempt.host, attempt.record.offer
    if host is None:
        raise ValueError(f"attempt {attempt.record.number} has no instance")
    ended = attempt.end.at if attempt.end else now
    if host.ended_at is not None:
        ended = host.ended_at
    own = (PriceStep(host.launched_at, _decimal(offer.usd_per_hour)),)
    on_demand = offer.on_demand_usd_per_hour
    return AttemptUse(
        number=attempt.record.number,
        name=f"{offer.instance_type} {host.market} {host.zone}",
        market=host.market,
        launched_at=host.launched_at,
        ended_at=max(ended, host.launched_at),
        prices=prices or own,
        reclaimed=attempt.end is not None and attempt.end.by_cloud,
        on_demand_usd_per_hour=None if on_demand is None else _decimal(on_demand),
        volume_gib=host.volume_gib,
        region=host.region,
        bytes_between_regions=0
        if run is None or run.store_region in {None, host.region}
        else run.dataset_bytes,
    )


def _is_complete(store: ObjectStore, key: str, instances: Sequence[str]) -> bool:
    """Whether there is a readable bill, and it has these instances."""
    try:
        document = json.loads(store.read(key)[0])
        return set(instances) <= set(document.get("instances", instances))
    except (ObjectMissingError, ValueError, TypeError, AttributeError):
        return False


def read_bill(store: ObjectStore, run: str) -> Bill | None:
    """Return a finished run's bill as it was written; None where there is none yet, or it is damaged."""
    try:
        return _parsed(json.loads(store.read(run_key(run, COST))[0]))
    except (ObjectMissingError, ValueError, KeyError, TypeError, ArithmeticError):
        return None


def _parsed(document: Any) -> Bill:
    return Bill(
        lines=tuple(
            CostLine(
                label=line["label"],
                quantity=Decimal(line["quantity"]),
                unit=line["unit"],
                unit_price=Decimal(line["unit_price_usd"]),
                usd=Decimal(line["usd"]),
                note=line["note"],
            )
            for line in document["lines"]
        ),
        alternatives=tuple(
            Alternative(a["label"], Decimal(a["usd"]), a["note"]) for a in document["alternatives"]
        ),
    )


def _is_billed(attempt: ObservedAttempt) -> bool:
    return attempt.host is not None


def _highest(attempt: ObservedAttempt) -> tuple[PriceStep, ...]:
    """Return the highest price that an attempt may have come to, throughout; () where none is known."""
    highest = attempt.record.max_price_usd
    if highest is None or attempt.host is None or attempt.host.market != "spot":
        return ()
    return (PriceStep(attempt.host.launched_at, _decimal(highest)),)


def _price_history(attempt: ObservedAttempt, now: float) -> tuple[PriceStep, ...]:
    """Ask for the spot prices of an attempt's zone and time; () without access: the offer's price then counts."""
    host, kind = attempt.host, attempt.record.offer.instance_type
    if host is None or kind is None or host.market != "spot":
        return ()
    from gpu_offload.infra.aws.errors import CloudError
    from gpu_offload.infra.aws.spot_market import SpotMarket

    start = datetime.fromtimestamp(host.launched_at, UTC)
    end = datetime.fromtimestamp(max(attempt.end.at if attempt.end else now, host.launched_at), UTC)
    try:
        steps = SpotMarket(host.region).spot_price_history(kind, host.zone, start, end)
    except CloudError:
        return ()
    return tuple(PriceStep(since.timestamp(), _decimal(price)) for since, price in steps)


def _decimal(price: float) -> Decimal:
    return Decimal(repr(price))
