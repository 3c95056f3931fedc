"""Prices and quotas of the simulated cloud, computed from seed, zone, type and time, and from injected rises."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gpu_offload.infra.aws.gpu_types import GPU_TYPES

ON_DEMAND = {
    **{name: kind.on_demand for name, kind in GPU_TYPES.items()},
    "c5.xlarge": 0.17,
    "c7i.large": 0.08925,
    "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357,
    "c7i.4xlarge": 0.714,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.8xlarge": 2.176,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6e.2xlarge": 2.24208,
    "m5.large": 0.096,
    "m7i.large": 0.1008,
    "t3.micro": 0.0104,
    "t3.small": 0.0208,
    "t3.medium": 0.0416,
}
"""USD/h, Linux, us-east-1; a snapshot: the base levels of the simulation, not offers."""

SPOT = {(name, region): usd for name, kind in GPU_TYPES.items() for region, usd in kind.spot.items()}
"""USD/h around which the spot price of a region moves; elsewhere it is `SPOT_SHARE` of the on-demand price."""

STEP_S = 4 * 3600.0
"""Seconds between two spot prices."""

SPOT_SHARE = 0.4
USD_PER_VCPU = 0.05
"""For instance types that `ON_DEMAND` does not list."""


def on_demand_price(instance_type: str, vcpus: int = 4) -> float:
    """USD/h on demand; the same in every region of the simulation."""
    return ON_DEMAND.get(instance_type, round(USD_PER_VCPU * vcpus, 4))


def _unit(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, slots=True)
class MarketPrice:
    """The price from `time` (Unix, seconds) on, in USD/h."""

    time: float
    price: float


def spot_price(instance_type: str, zone: str, at: float, *, seed: int, vcpus: int = 4) -> MarketPrice:
    """The spot price in force at `at` and since when.

    A level per region, a factor per zone (0.85 to 1.15), a slow wave over five days (12 %) and a step every
    STEP_S (6 %), shifted per zone so that zones do not move together; never above on demand.
    """
    region = zone[:-1]
    ceiling = on_demand_price(instance_type, vcpus)
    level = SPOT.get((instance_type, region), SPOT_SHARE * ceiling)
    key = (seed, zone, instance_type)
    shift = STEP_S * _unit(*key, "shift")
    index = math.floor((at - shift) / STEP_S)
    start = index * STEP_S + shift
    wave = 0.12 * math.sin(2 * math.pi * (start / (5 * 86400) + _unit(*key, "phase")))
    noise = 0.06 * (2 * _unit(*key, "step", index) - 1)
    zone_factor = 0.85 + 0.3 * _unit(*key, "zone")
    return MarketPrice(start, round(min(level * zone_factor * (1 + wave + noise), ceiling), 4))


@dataclass(frozen=True, slots=True)
class Rise:
    """Spot prices times `factor` from `start` until before `end` (Unix, seconds), in one zone or of one type if given."""

    factor: float
    start: float
    end: float = math.inf
    zone: str | None = None
    region: str | None = None
    instance_type: str | None = None

    def affects(self, instance_type: str, zone: str) -> bool:
        """Return whether it changes the price of a type in a zone."""
        return (
            self.zone in {None, zone}
            and self.region in {None, zone[:-1]}
            and self.instance_type in {None, instance_type}
        )


@dataclass(slots=True)
class SimulatedMarket:
    """The spot prices of one cloud: `spot_price`, changed by injected rises; never above on demand."""

    seed: int
    vcpus: Callable[[str], int]
    rises: list[Rise] = field(default_factory=list)

    def price(self, instance_type: str, zone: str, at: float) -> MarketPrice:
        """Return the price in force at `at` (Unix, seconds) and since when."""
        vcpus = self.vcpus(instance_type)
        base = spot_price(instance_type, zone, at, seed=self.seed, vcpus=vcpus)
        # A rise changes the price when it begins and when it ends: the later change counts.
        start, usd = base.time, base.price
        for rise in tuple(self.rises):
            if rise.affects(instance_type, zone):
                start = max([start, *(edge for edge in (rise.start, rise.end) if edge <= at)])
                usd *= rise.factor if rise.start <= at < rise.end else 1.0
        return MarketPrice(start, round(min(usd, on_demand_price(instance_type, vcpus)), 4))

    def history(self, instance_type: str, zone: str, start: float, end: float) -> Iterator[MarketPrice]:
        """Yield the prices in force between `start` and `end`, newest first; the last was in force at `start`."""
        at = max(start, end)
        while True:
            price = self.price(instance_type, zone, at)
            yield price
            if price.time <= start:
                return
            at = price.time - 0.001  # just before this price came into force


QUOTAS = {"L-3819A6DF": "spot", "L-DB2E81BA": "on-demand"}
"""Markets by the code of EC2's quota of vCPU of G and VT instances."""


def family(instance_type: str) -> str:
    """Which of the two quota families a type counts against."""
    return "gpu" if instance_type.startswith(("g", "vt")) else "standard"
