"""Observes a run: its documents in the store, its instances in the cloud."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run.backend import Cloud, InterruptedRunError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.record import RunRecord


@dataclass(frozen=True, slots=True)
class Observer:
    """Observes one run for one driver. `cost` computes what the run has spent so far, in US dollars."""

    run: RunRecord
    journal: Journal
    lease: Lease
    cloud: Cloud | None
    clock: Callable[[], float]
    cost: Callable[[RunRecord, Observation], float]

    def observe(self) -> Observation:
        """Renew the lease, and read the store and the cloud."""
        run = self.run
        other = self.lease.claim(self.journal.store, run.id)
        if other is not None:
            # That driver observes the rest; this one only needs the end of the run.
            outcome = self.journal.outcome(run.id)
            if outcome is None:
                return Observation(now=self.clock(), me=self.lease.name, driver=other)
        documents = self.journal.read(run.id)
        rented = any(a.record.offer.is_rented for a in documents.attempts)
        if rented and self.cloud is None and documents.outcome is None:
            # Another driver rented while this one followed it. Unseen instances would count as gone.
            raise InterruptedRunError(
                f"run {run.id} has instances, and this driver was started without access to EC2; "
                "run `offload attach` or `offload tend` with credentials"
            )
        cloud = self.cloud if rented else None
        instances = cloud.instances(run, documents.attempts) if cloud else ()
        # EC2 does not remove what an instance holds, so it is not listed before the instance is gone.
        ended = not documents.attempts or documents.attempts[-1].end is not None
        gone = ended and all(i.state == "terminated" for i in instances)
        observation = Observation(
            now=self.clock(),
            me=self.lease.name,
            driver=other,
            outcome=documents.outcome,
            published=publish.manifest_of(self.journal.store, run.version) is not None,
            result=documents.result,
            collected=documents.collected,
            attempts=documents.attempts,
            instances=instances,
            leftovers=cloud.leftovers(run, documents.attempts) if cloud and gone else (),
            epochs_completed=documents.checkpoint.epochs_completed if documents.checkpoint else 0,
            checkpoint_bytes=documents.checkpoint.size if documents.checkpoint else None,
            stop=documents.stop,
        )
        return replace(observation, spent_usd=self.cost(run, observation))
