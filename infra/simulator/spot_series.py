"""Spot capacity of a simulated cloud that follows a series by zone: what EC2 reclaims, and with how much notice."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.compute import Compute
from gpu_offload.infra.simulator.rented import RECLAIMED, Rented


@dataclass(slots=True)
class SpotSeries:
    """Reclaims spot instances as their zone's series falls. `clock` is the cloud's, in Unix seconds."""

    behaviour: Behaviour
    compute: Compute
    clock: Callable[[], float]
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def free(self, zone: str, at: float) -> int | None:
        """Return how many spot instances a zone has for us at a time; None for plenty."""
        series = self.behaviour.spot_series.get(zone)
        if series is None:
            return None
        step = int((at - self.began) // self.behaviour.spot_series_gap_seconds)
        return series[step] if step < len(series) else 0

    def reclaim(self) -> None:
        """Give notice to instances that will be above their zone's capacity, the newest first, and end those whose time is up."""
        now = self.clock()
        notice = self.behaviour.reclaim_notice_seconds
        living: dict[str, list[Rented]] = {}
        for one in sorted(self.compute.living(), key=lambda one: one.launched):
            if one.spot and one.instance.placement.zone in self.behaviour.spot_series:
                living.setdefault(one.instance.placement.zone, []).append(one)
        for zone, instances in living.items():
            # By the end of the notice the zone has to be down to its capacity.
            free = self.free(zone, now + notice) or 0
            for one in instances[free:]:
                if one.reclaim_at is None:
                    self.compute.give_notice(one, notice)
            for one in instances:
                if one.reclaim_at is not None and now >= one.reclaim_at:
                    self.compute.end(one.id, *RECLAIMED)
