"""Carry on with a run from the store and the tags alone: attach, stop, and whoever sweeps."""

from collections.abc import Callable

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.backend import Ending, InterruptedRunError
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.record import AttemptRecord, RunRecord
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.remote_job.result import Heartbeat


class NoCpu:
    """A driver that does not train on this machine; see `orchestrator.drive.Cpu`."""

    def train(
        self, run: RunRecord, attempt: AttemptRecord, judge: Callable[[Heartbeat | None], Ending | None]
    ) -> Ending | None:
        """Refuse: the dataset is where `offload train` runs."""
        del judge
        raise InterruptedRunError(
            f"attempt {attempt.number} of run {run.id} trains on a CPU: run `offload train` where its dataset is"
        )


def drive_of(
    settings: Settings, store: ObjectStore, run: RunRecord, console: Console, driver: Lease | None = None
) -> Controller:
    """Return a drive for a run that somebody began, here or elsewhere."""
    journal, driver = Journal(store), driver or Lease()
    cloud = None
    if any(candidate.offer.where == "ec2" for candidate in run.candidates):
        from gpu_offload.orchestrator.backends.ec2_access import rented_training

        cloud = rented_training(settings, journal, console, renew=lambda: driver.claim(store, run.id))
    accounting = Accounting(store, settings.store)
    return Controller(
        run,
        journal,
        driver,
        NoCpu(),
        console,
        cloud=cloud,
        cost=accounting.spent,
        settle=accounting.settle,
    )
