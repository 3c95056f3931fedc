"""The model world of `crash_world` with spot capacity that follows series, a zone each, in the time of the series."""

import json
from pathlib import Path

from crash_scenario import RUN, T0, Scenario
from crash_world import Machine, World

from gpu_offload.orchestrator.run.backend import RefusedError
from gpu_offload.orchestrator.run.journal import Journal

NOTICE_S = 120.0
PATTERN = "us-*_v100_1.json"


class TracedWorld(World):
    """A world whose spot launches are refused while a zone's series is 0, and taken back when it becomes 0.

    `series`: by zone, the number of instances that could be had, a value each `gap_s` seconds.
    """

    def __init__(self, scenario: Scenario, series: dict[str, list[int]], gap_s: float) -> None:
        self.series, self.gap_s = series, gap_s
        self.reclaimed = 0
        super().__init__(scenario)

    def capacity(self, zone: str, at: float) -> int:
        """Return how many spot instances a zone has at a moment; none after its series."""
        index = int((at - T0) // self.gap_s)
        states = self.series[zone]
        return states[index] if index < len(states) else 0

    def launch(self, offer, attempt, expires_at, keys) -> Machine:
        """RunInstances, in a zone with capacity."""
        if offer.market != "spot":
            return super().launch(offer, attempt, expires_at, keys)
        if not self.capacity(offer.zone, self.now):
            raise RefusedError(f"no capacity in {offer.zone}")
        machine = super().launch(offer, attempt, expires_at, keys)
        at = self.now
        while self.capacity(offer.zone, at):
            at += self.gap_s - (at - T0) % self.gap_s
        self.at(at - NOTICE_S, lambda: machine.job.interrupt() if machine.job else None)
        self.at(at, lambda: self._take_back(machine))
        return machine

    def _take_back(self, machine: Machine) -> None:
        if machine.lives(self.now):
            self.reclaimed += 1
            self.shut_down(machine, reclaimed=True)

    @property
    def attempts(self):
        """The attempts as the journal has them."""
        return Journal(self.store).attempts(RUN)


def read_series(
    folder: Path, zones: list[str], hours: float, start: int = 0
) -> tuple[dict[str, list[int]], float]:
    """Read series of the shared format, `{"metadata": {"gap_seconds": 300}, "data": [1, 0, ...]}`, for some zones."""
    paths = sorted(folder.glob("*.json"))[: len(zones)]
    documents = [json.loads(path.read_text()) for path in paths]
    gap_s = float(documents[0]["metadata"]["gap_seconds"])
    length = int(hours * 3600 / gap_s)
    return {z: d["data"][start : start + length] for z, d in zip(zones, documents, strict=True)}, gap_s
