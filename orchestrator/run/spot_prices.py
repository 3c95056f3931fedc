"""Reads the spot prices of a run's offers again while it lasts: each decision is made by the prices of its time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.record import RunRecord

LAST_S = 600.0
"""How old the prices of a decision can be: they change some times a day."""

Prices = Mapping[tuple[str, str], float]
"""USD an hour by instance type and zone."""


def read_prices(region: str, types: list[str], at: float) -> Prices:
    """Ask EC2 for a region's spot prices at a time, in Unix seconds; nothing where it does not answer."""
    from gpu_offload.infra.aws.errors import CloudError
    from gpu_offload.infra.aws.spot_market import SpotMarket

    try:
        found = SpotMarket(region).spot_prices(types, at=datetime.fromtimestamp(at, UTC))
    except CloudError:
        return {}
    return {(price.type, price.zone): price.usd_per_hour for price in found}


@dataclass(slots=True)
class SpotPrices:
    """The prices of one run, by one driver. `read` asks for those of a region."""

    read: Callable[[str, list[str], float], Prices] = read_prices
    _known: dict[tuple[str, str], float] = field(default_factory=dict)
    _read_at: float | None = None

    def __call__(self, run: RunRecord, observation: Observation) -> RunRecord:
        """Return the run with current prices, or those read last; asks only if a launch is possible."""
        over = observation.outcome is not None or observation.published or observation.driver is not None
        current = observation.current
        here = current is not None and current.record.offer.where == "cpu"
        spot = [c.offer for c in run.candidates if c.offer.market == "spot"]
        # A training on this CPU asks for prices only once it moves.
        if not over and not here and observation.now - (self._read_at or run.created_at) >= LAST_S:
            self._read_at = observation.now
            for region in sorted({offer.region for offer in spot if offer.region}):
                types = sorted({o.instance_type for o in spot if o.region == region and o.instance_type})
                self._known |= self.read(region, types, observation.now)
        if not self._known:
            return run
        basis = f"EC2 API, {datetime.fromtimestamp(self._read_at or 0.0, UTC):%Y-%m-%dT%H:%MZ}"
        candidates = []
        for candidate in run.candidates:
            offer = candidate.offer
            price = self._price(offer)
            if offer.market == "spot" and price is not None and price != offer.usd_per_hour:
                offer = replace(offer, usd_per_hour=price, price_basis=basis)
            candidates.append(candidate.model_copy(update={"offer": offer}))
        return run.model_copy(update={"candidates": tuple(candidates)})

    def _price(self, offer: Offer) -> float | None:
        """Return the latest price of an offer; without a zone, as in a plan without credentials, that of the dearest one."""
        if offer.zone is not None:
            return self._known.get((offer.instance_type or "", offer.zone))
        zones = (key for key in self._known if key[0] == offer.instance_type and key[1][:-1] == offer.region)
        return max((self._known[key] for key in zones), default=None)
