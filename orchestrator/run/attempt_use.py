"""What an attempt used: its instance's time and prices, and what passed to and from the store."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from gpu_offload.orchestrator.cost.usage import AttemptUse, PriceStep
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.remote_job.result import TrainingResult


def bytes_sent(
    run: RunRecord,
    attempts: Sequence[ObservedAttempt],
    checkpoint_bytes: int | None,
    result: TrainingResult | None,
) -> dict[int, int]:
    """Return what each attempt, by its number, sent to the store: a checkpoint for each epoch, and the model."""
    epoch = run.checkpoint_bytes if checkpoint_bytes is None else checkpoint_bytes
    sent, before = dict[int, int](), 0
    for attempt in attempts:
        number, done = attempt.record.number, max(before, attempt.epochs_completed)
        sent[number] = epoch * (done - before)
        if result is not None and result.attempt == number:
            sent[number] += result.model.size
        before = done
    return sent


def use_of(
    attempt: ObservedAttempt, run: RunRecord, *, now: float, prices: tuple[PriceStep, ...] = (), sent: int = 0
) -> AttemptUse:
    """Return what an attempt with an instance used until its end, or until `now` (Unix seconds).

    Without `prices`, the zone's price history, the offer's own price counts throughout. `sent`: bytes sent to the
    store.
    """
    host, offer = attempt.host, attempt.record.offer
    if host is None:
        raise ValueError(f"attempt {attempt.record.number} has no instance")
    ended, by_cloud = ended_of(attempt, now)
    own = (PriceStep(host.launched_at, _decimal(offer.usd_per_hour)),)
    on_demand = offer.on_demand_usd_per_hour
    return AttemptUse(
        number=attempt.record.number,
        name=f"{offer.instance_type} {host.market} {host.zone}",
        market=host.market,
        launched_at=host.launched_at,
        ended_at=max(ended, host.launched_at),
        prices=prices or own,
        reclaimed=by_cloud,
        on_demand_usd_per_hour=None if on_demand is None else _decimal(on_demand),
        volume_gib=host.volume_gib,
        region=host.region,
        store=run.store_place,
        bytes_read=run.dataset_bytes,
        bytes_written=sent,
    )


def ended_of(attempt: ObservedAttempt, now: float) -> tuple[float, bool]:
    """Return until when an attempt's instance is billed (EC2's own time, where known), and whether EC2 reclaimed it."""
    end, host = attempt.end, attempt.host
    by_cloud = end is not None and end.by_cloud
    if attempt.gone is not None:
        return attempt.gone.at, by_cloud or attempt.gone.by_cloud
    if host is not None and host.ended_at is not None:
        return host.ended_at, by_cloud
    return (end.at if end is not None else now), by_cloud


def highest_price(attempt: ObservedAttempt) -> tuple[PriceStep, ...]:
    """Return the highest price that an attempt can have come to, throughout; () where none is known."""
    highest = attempt.record.max_price_usd
    if highest is None or attempt.host is None or attempt.host.market != "spot":
        return ()
    return (PriceStep(attempt.host.launched_at, _decimal(highest)),)


def price_history(attempt: ObservedAttempt, now: float) -> tuple[PriceStep, ...]:
    """Ask for the spot prices of an attempt's zone and time; () without access: the offer's price then counts."""
    host, kind = attempt.host, attempt.record.offer.instance_type
    if host is None or kind is None or host.market != "spot":
        return ()
    from gpu_offload.infra.aws.errors import CloudError
    from gpu_offload.infra.aws.spot_market import SpotMarket

    start = datetime.fromtimestamp(host.launched_at, UTC)
    end = datetime.fromtimestamp(max(ended_of(attempt, now)[0], host.launched_at), UTC)
    try:
        steps = SpotMarket(host.region).spot_price_history(kind, host.zone, start, end)
    except CloudError:
        return ()
    return tuple(PriceStep(since.timestamp(), _decimal(price)) for since, price in steps)


def _decimal(price: float) -> Decimal:
    return Decimal(repr(price))
