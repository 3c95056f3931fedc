"""The bill of a training, to the micro-dollar, and its cost elsewhere.

Amounts are decimal and each line is rounded once, so that the lines add up to the total exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gpu_offload.orchestrator.cost.prices import MONTH_S, ebs_prices
from gpu_offload.orchestrator.cost.traffic import GB
from gpu_offload.orchestrator.cost.usage import (
    AttemptUse,
    StoreUse,
    begun_minutes,
    decimal_seconds,
    price_segments,
)
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.units import human_duration, human_money

MICRO = Decimal("0.000001")
GITHUB_GPU_RUNNER_USD_PER_MINUTE = Decimal("0.052")
"""A larger runner with one T4; billed by the minute and never free."""

PRIVATE_NOTE = "free on a public repository; a private one's minutes are billed past its allowance"


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of the bill: `usd` is `quantity` times `unit_price`, rounded to the micro-dollar."""

    label: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    usd: Decimal
    note: str = ""

    def json(self) -> dict[str, Any]:
        """Return the line as JSON; numbers are decimal strings, so that nothing is rounded twice."""
        return {
            "label": self.label,
            "quantity": str(self.quantity),
            "unit": self.unit,
            "unit_price_usd": str(self.unit_price),
            "usd": str(self.usd),
            "note": self.note,
        }


CPU_LABEL = "the free CPU runner"


@dataclass(frozen=True, slots=True)
class Alternative:
    """What the same training would have cost elsewhere."""

    label: str
    usd: Decimal
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a run cost, line by line, and what else could have been."""

    lines: tuple[CostLine, ...]
    alternatives: tuple[Alternative, ...] = field(default=())

    @property
    def total(self) -> Decimal:
        """The lines' sum, in US dollars."""
        return sum((line.usd for line in self.lines), Decimal(0))

    def json(self) -> dict[str, Any]:
        """Return it for a report."""
        return {
            "total_usd": str(self.total),
            "lines": [line.json() for line in self.lines],
            "alternatives": [
                {"label": a.label, "usd": str(a.usd), "note": a.note} for a in self.alternatives
            ],
        }


def attempt_lines(use: AttemptUse) -> tuple[CostLine, ...]:
    """Account for one attempt: the instance price by price, its volume, its address, its traffic."""
    prices = ebs_prices(use.region)
    title = f"attempt {use.number}: {use.name}"
    lines = [_line(title, seconds, "s", price, 3600) for seconds, price in price_segments(use)]
    if use.free:
        otherwise = sum((line.usd for line in lines), Decimal(0))
        note = f"reclaimed in its first hour: not charged ({human_money(otherwise)} otherwise)"
        lines = [_line(title, use.billed_seconds, "s", Decimal(0), 3600, note)]
    seconds = use.billed_seconds
    if use.volume_gib:
        label, note = f"attempt {use.number}: volume", f"gp3, {use.volume_gib} GiB"
        lines.append(_line(label, use.volume_gib * seconds, "GiB s", prices.volume_gb_month, MONTH_S, note))
    lines.append(_line(f"attempt {use.number}: public IPv4", seconds, "s", prices.ipv4_hour, 3600))
    return (*lines, *_traffic_lines(use))


def _traffic_lines(use: AttemptUse) -> Iterator[CostLine]:
    """Account for what AWS charges between the instance and the store."""
    label, there = f"attempt {use.number}: transfer", use.store.region or "the internet"
    read, written = use.store.read_gb(use.region), use.store.write_gb(use.region)
    if use.bytes_read and read:
        yield _line(label, use.bytes_read / GB, "GB", read, 1, f"from the store in {there}")
    if use.bytes_written and written:
        yield _line(label, use.bytes_written / GB, "GB", written, 1, f"to the store, {use.region} to {there}")


def store_lines(use: StoreUse) -> tuple[CostLine, ...]:
    """Account for the object store; unused items have no line."""
    p = use.prices
    gb_seconds = Decimal(use.stored_bytes) / 10**9 * decimal_seconds(use.stored_seconds)
    lines = (
        _line(f"{p.name}: writes", Decimal(use.puts), "requests", p.puts_1000, 1000, p.note),
        _line(f"{p.name}: reads", Decimal(use.gets), "requests", p.gets_1000, 1000, p.note),
        _line(f"{p.name}: storage", gb_seconds, "GB s", p.storage_gb_month, MONTH_S, p.note),
        _line(f"{p.name}: egress", Decimal(use.egress_bytes) / 10**9, "GB", p.egress_gb, 1, p.note),
    )
    return tuple(line for line in lines if line.quantity)


def cpu_line(seconds: float) -> CostLine:
    """Account for a training on the runner; GitHub counts whole minutes, rounded up."""
    return _line("CPU runner", begun_minutes(seconds), "min", Decimal(0), 1, PRIVATE_NOTE)


def bill(
    attempts: Sequence[AttemptUse],
    store: StoreUse | None = None,
    *,
    cpu: CostLine | None = None,
    training_seconds: float | None = None,
    cpu_estimate: Interval | None = None,
) -> Bill:
    """Account for a whole run: its attempts on EC2 in order, store requests, and the runner's own line if it trained.

    `training_seconds` and `cpu_estimate` are for comparison with GitHub's GPU runner and the free CPU.
    """
    lines = [line for use in attempts for line in attempt_lines(use)]
    lines += [cpu] if cpu is not None else []
    lines += store_lines(store) if store is not None else ()
    return Bill(tuple(lines), _alternatives(attempts, training_seconds, cpu_estimate))


def spent(attempts: Sequence[AttemptUse]) -> float:
    """Return the cost of the attempts so far, in US dollars; compared with the limit while one runs."""
    return float(sum((line.usd for use in attempts for line in attempt_lines(use)), Decimal(0)))


def _alternatives(
    attempts: Sequence[AttemptUse], training_seconds: float | None, cpu_estimate: Interval | None
) -> tuple[Alternative, ...]:
    found = []
    if attempts and all(use.on_demand_usd_per_hour is not None for use in attempts):
        usd = Decimal(0)
        for use in attempts:
            # The lines of the instance come first; what follows them costs the same on demand.
            hours = 1 if use.free else len(price_segments(use))
            kept = sum((line.usd for line in attempt_lines(use)[hours:]), Decimal(0))
            assumed = use.on_demand_usd_per_hour or Decimal(0)
            usd += _line("", use.billed_seconds, "s", assumed, 3600).usd + kept
        found.append(Alternative("the same instances on demand", usd, "volumes and addresses included"))
    if training_seconds is not None:
        minutes = begun_minutes(training_seconds)
        found.append(
            Alternative(
                "GitHub's GPU runner",
                minutes * GITHUB_GPU_RUNNER_USD_PER_MINUTE,
                f"{minutes} min at $0.052, if its T4 took as long",
            )
        )
    if cpu_estimate is not None:
        low, high = human_duration(cpu_estimate.low), human_duration(cpu_estimate.high)
        took = f"estimated {human_duration(cpu_estimate.likely)} ({low} to {high}); {PRIVATE_NOTE}"
        found.append(Alternative(CPU_LABEL, Decimal(0), took))
    return tuple(found)


def _line(label: str, quantity: Decimal, unit: str, price: Decimal, per: int, note: str = "") -> CostLine:
    """Make a line; `price` is for `per` units."""
    usd = (quantity * price / per).quantize(MICRO, ROUND_HALF_UP)
    # Counted in seconds, and shown in hours and months as AWS bills them.
    shown = {("s", 3600): ("h", 3600), ("GiB s", MONTH_S): ("GiB-month", MONTH_S)}.get((unit, per))
    if unit == "GB s":
        shown = ("GB-month", MONTH_S)
    if per == 1000:
        shown = ("1000 requests", 1000)
    if shown is not None:
        unit, quantity = shown[0], quantity / shown[1]
    return CostLine(label, quantity, unit, price, usd, note)
