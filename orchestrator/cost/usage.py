"""The use of an attempt and of a store, in billable units."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from gpu_offload.orchestrator.cost.prices import FIRST_HOUR_S, FOLDER, LEAST_BILLED_S, VOLUME_GIB, StorePrices
from gpu_offload.orchestrator.cost.traffic import UNCHARGED, StorePlace


@dataclass(frozen=True, slots=True)
class PriceStep:
    """An hourly price, valid from `since` (Unix seconds)."""

    since: float
    usd_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class AttemptUse:
    """What an attempt used. Raises ValueError: the end is before the beginning, or there is no price."""

    number: int
    name: str
    market: Literal["spot", "on-demand"]
    launched_at: float
    """Unix seconds at which it began to run; `ended_at` at which it began to stop."""
    ended_at: float
    prices: tuple[PriceStep, ...]
    """The zone's price over that time: one step on demand, the price history on spot. The earliest counts before it
    begins, too."""
    reclaimed: bool = False
    on_demand_usd_per_hour: Decimal | None = None
    volume_gib: int = VOLUME_GIB
    region: str | None = None
    store: StorePlace = UNCHARGED
    """Where the store is; `bytes_read` from it, `bytes_written` to it."""
    bytes_read: int = 0
    bytes_written: int = 0

    def __post_init__(self) -> None:
        if self.ended_at < self.launched_at:
            raise ValueError(
                f"attempt {self.number} ended {self.launched_at - self.ended_at} s before it began"
            )
        if not self.prices:
            raise ValueError(f"attempt {self.number} has no price")

    @property
    def billed_seconds(self) -> Decimal:
        """Seconds that are charged: a minute at least."""
        return max(decimal_seconds(self.ended_at - self.launched_at), Decimal(LEAST_BILLED_S))

    @property
    def free(self) -> bool:
        """Whether EC2 charges nothing for the instance itself."""
        return self.market == "spot" and self.reclaimed and self.ended_at - self.launched_at < FIRST_HOUR_S


@dataclass(frozen=True, slots=True)
class StoreUse:
    """What a run asked of the object store; bytes out of its region or provider are `egress_bytes`."""

    prices: StorePrices = FOLDER
    puts: int = 0
    gets: int = 0
    stored_bytes: int = 0
    stored_seconds: float = 0.0
    egress_bytes: int = 0


def price_segments(use: AttemptUse) -> list[tuple[Decimal, Decimal]]:
    """Split the billed time at the price's steps: (seconds, USD an hour), without empty ones."""
    steps = sorted(use.prices, key=lambda step: step.since)
    start, end = use.launched_at, use.launched_at + float(use.billed_seconds)
    marks = [start, *(step.since for step in steps[1:] if start < step.since < end), end]
    left = use.billed_seconds
    parts: list[tuple[Decimal, Decimal]] = []
    for i in range(len(marks) - 1):
        price = next((s.usd_per_hour for s in reversed(steps) if s.since <= marks[i]), steps[0].usd_per_hour)
        last = i == len(marks) - 2
        # The last part is what is left, so that rounding loses no second.
        seconds = left if last else min(left, decimal_seconds(marks[i + 1] - marks[i]))
        left -= seconds
        if parts and parts[-1][1] == price:
            parts[-1] = (parts[-1][0] + seconds, price)
        elif seconds:
            parts.append((seconds, price))
    return parts


def decimal_seconds(seconds: float) -> Decimal:
    """Return seconds as a decimal, rounded to milliseconds."""
    return Decimal(repr(round(seconds, 3)))


def begun_minutes(seconds: float) -> Decimal:
    """Return the minutes begun in a number of seconds."""
    return (decimal_seconds(seconds) / 60).to_integral_value(ROUND_CEILING)
