"""The instances of a run, found by tag in every region that the run may have used."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.backend import CloudUnreachableError, InstanceLeftError
from gpu_offload.orchestrator.run.liveness import may_appear_until
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.remote_job.spec import StoreRef

ELSEWHERE_S = 300.0
"""How long a region without an open attempt, once seen empty, is not asked again."""


@dataclass
class Ec2Instances:
    """What EC2 shows of one run. Clients are made once a region."""

    store: StoreRef
    clock: Callable[[], float] = time.time
    _clients: dict[str, Ec2] = field(default_factory=dict)
    _found: dict[str, tuple[str, Instance]] = field(default_factory=dict)
    """Every instance seen, by id, with its region."""
    _empty_since: dict[str, float] = field(default_factory=dict)
    _suspected: set[str] = field(default_factory=set)

    @property
    def mark(self) -> str:
        """The mark of the run's store."""
        return store_mark(self.store.url, self.store.endpoint_url)

    def is_ours(self, mark: str | None) -> bool:
        """Whether something with this mark belongs to our store, and not to a run of the same name in another."""
        return mark in {None, self.mark}

    def client(self, region: str) -> Ec2:
        """Return the client of a region."""
        if region not in self._clients:
            self._clients[region] = Ec2(region)
        return self._clients[region]

    def find(self, run: str, attempts: Sequence[ObservedAttempt]) -> list[tuple[str, Instance]]:
        """Return the run's instances with their regions; idle regions are asked less often. Raises CloudError."""
        now = self.clock()
        watched = {
            a.record.offer.region for a in attempts if a.end is None or now < may_appear_until(a)
        } | self._suspected
        for region in regions_of(attempts):
            if region not in watched and self.clock() - self._empty_since.get(region, 0.0) < ELSEWHERE_S:
                continue
            with asking():
                found = [i for i in self.client(region).find(run) if self.is_ours(i.store)]
            # Each answer is complete for its region: what it does not show any more, EC2 has forgotten.
            for known in [i for i, (where, _) in self._found.items() if where == region]:
                del self._found[known]
            self._found |= {instance.id: (region, instance) for instance in found}
            if all(i.state == "terminated" for i in found):
                self._empty_since[region] = self.clock()
            else:
                self._empty_since.pop(region, None)
        return list(self._found.values())

    def suspect(self, region: str) -> None:
        """Look into a region every time from now on: something there is in use by an instance that EC2 hides."""
        self._suspected.add(region)

    def seen(self, instance_id: str) -> Instance | None:
        """Return an instance as it was seen last."""
        found = self._found.get(instance_id)
        return found[1] if found else None

    def add(self, region: str, instance: Instance) -> None:
        """Remember an instance that a launch answered with: EC2 may not show it yet."""
        self._found[instance.id] = region, instance

    def region_of(self, instance_id: str) -> str | None:
        """Return where an instance is, None if it was never seen."""
        found = self._found.get(instance_id)
        return found[0] if found else None

    def of_attempt(self, number: int) -> Instance | None:
        """Return an attempt's instance, as it was seen last."""
        return next((i for _, i in self._found.values() if i.attempt == number), None)

    def up_in(self, region: str) -> list[str]:
        """Return the ids of the instances in a region that had not ended when they were seen last."""
        return [i for i, (where, one) in self._found.items() if where == region and not one.ended]


@contextmanager
def asking() -> Iterator[None]:
    """Raise CloudUnreachableError, so that the loop asks again later, where AWS did not answer."""
    try:
        yield
    except CloudError as error:
        if error.retry == "same":
            raise CloudUnreachableError(str(error)) from error
        raise


def left_running(instance: Instance | None, why: object, run: str) -> InstanceLeftError:
    """Return the error for an instance that could not be terminated: why, until when it runs, and what to do."""
    if instance is None:
        return InstanceLeftError(f"not terminated: {why}; run `offload stop {run}`")
    until = (
        f" until it powers off by itself at {instance.expires:%Y-%m-%d %H:%M} UTC" if instance.expires else ""
    )
    return InstanceLeftError(
        f"{instance.id} in {instance.zone} still runs, and costs money{until}: {why}; then run `offload stop {run}`"
    )


def regions_of(attempts: Sequence[ObservedAttempt]) -> list[str]:
    """Return the regions in which attempts were opened."""
    return sorted({a.record.offer.region for a in attempts if a.record.offer.region})


def region_of(offer: Offer) -> str:
    """Return the region of an EC2 offer."""
    if offer.region is None:  # every offer of EC2 has one
        raise AssertionError(offer.name)
    return offer.region
