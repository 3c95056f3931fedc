"""What a run has cost: the journal and the price history, made into the lines of a bill."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

from gpu_offload.infra.store.errors import ObjectExistsError, ObjectMissingError
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

PUTS_AN_EPOCH = 3
"""A checkpoint: two files and the manifest."""

OVERHEAD_PUTS, OVERHEAD_GETS = 40, 60
"""Journal, staging, result, publishing; and reading them back."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """Accounts for the runs of one store."""

    store: ObjectStore
    settings: StoreSettings

    def spent(self, run: RunRecord, observation: Observation) -> float:
        """Return what a run has cost so far, in US dollars, by the prices at launch: asks nobody."""
        del run
        return self.so_far(observation.attempts, observation.now)

    def so_far(self, attempts: Sequence[ObservedAttempt], now: float) -> float:
        """Return what attempts have cost until now, in US dollars, by the prices at launch."""
        return spent([use_of(a, now=now) for a in attempts if _is_billed(a)])

    def settle(self, run: RunRecord, observation: Observation) -> None:
        """Write a finished run's bill beside its journal, once, with the prices that really were."""
        key = run_key(run.id, COST)
        if self.store.stat(key) is not None:
            return
        text = json.dumps(self.bill(run, observation.attempts, now=observation.now).json(), indent=1) + "\n"
        try:
            self.store.create(key, text.encode())
        except ObjectExistsError:
            return

    def bill(self, run: RunRecord, attempts: Sequence[ObservedAttempt], *, now: float) -> Bill:
        """Account for a run, open or finished; asks EC2 for the spot prices of the time."""
        uses = [use_of(a, now=now, prices=_price_history(a, now)) for a in attempts if _is_billed(a)]
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
    """Return the prices of a store, by its address; one of somebody's own counts as S3's."""
    if not url.startswith("s3:"):
        return FOLDER
    host = urlsplit(endpoint_url or "").hostname or ""
    return R2 if host.endswith(".r2.cloudflarestorage.com") else S3


def use_of(attempt: ObservedAttempt, *, now: float, prices: tuple[PriceStep, ...] = ()) -> AttemptUse:
    """Return what an attempt with an instance used, until it ended or until now.

    Args:
        attempt: With a host.
        now: Unix seconds.
        prices: The zone's prices over that time; empty: the offer's own price throughout.
    """
    host, offer = attempt.host, attempt.record.offer
    if host is None:
        raise ValueError(f"attempt {attempt.record.number} has no instance")
    ended = attempt.end.at if attempt.end else now
    own = (PriceStep(host.launched_at, _decimal(offer.usd_per_hour)),)
    on_demand = offer.on_demand_usd_per_hour
    return AttemptUse(
        number=attempt.record.number,
        name=f"{offer.instance_type} {host.market} {host.zone}",
        market=host.market,
        launched_at=host.launched_at,
        ended_at=max(ended, host.launched_at),
        prices=prices or own,
        reclaimed=attempt.end is not None and attempt.end.reason == "reclaimed",
        on_demand_usd_per_hour=None if on_demand is None else _decimal(on_demand),
        volume_gib=host.volume_gib,
    )


def read_bill(store: ObjectStore, run: str) -> Bill | None:
    """Return a finished run's bill as it was written, None where there is none yet."""
    try:
        body, _ = store.read(run_key(run, COST))
    except ObjectMissingError:
        return None
    document = json.loads(body)
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


def _price_history(attempt: ObservedAttempt, now: float) -> tuple[PriceStep, ...]:
    """Ask for the spot prices of an attempt's zone and time; () where nobody may or can ask: the offer's then count."""
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
