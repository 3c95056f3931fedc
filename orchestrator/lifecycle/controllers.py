"""Assembles the controller of a run, for train, attach, stop and tend."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gpu_offload.dataset.tree import materialise
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.backends.cpu import LocalTraining
from gpu_offload.orchestrator.backends.isolated_training import why_open
from gpu_offload.orchestrator.backends.staging import Staging
from gpu_offload.orchestrator.backends.standby import Standby
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.registry.evaluation import Judge
from gpu_offload.orchestrator.registry.revert import is_ancestor
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.backend import Attended, Ending, InterruptedRunError
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.record import AttemptRecord, RunRecord
from gpu_offload.orchestrator.run.renewal import Renewal
from gpu_offload.orchestrator.run.spot_prices import SpotPrices
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.workspace import Workspace
from gpu_offload.remote_job.result import Heartbeat


class NotHere:
    """The backend of a driver that has no dataset to train with; see `orchestrator.run.backend.Attended`."""

    def train(
        self, run: RunRecord, attempt: AttemptRecord, judge: Callable[[Heartbeat | None], Ending | None]
    ) -> Ending | None:
        """Refuse: the dataset is where `offload train` runs."""
        del judge
        raise InterruptedRunError(
            f"attempt {attempt.number} of run {run.id} trains on {attempt.offer.kind}: run `offload train` where its "
            "dataset is"
        )


def controller_of(
    settings: Settings,
    store: ObjectStore,
    run: RunRecord,
    console: Console,
    *,
    lease: Lease | None = None,
    planned: Planned | None = None,
    workspace: Workspace | None = None,
    standby: Standby | None = None,
    detach: bool = False,
    launched_later: bool = False,
    max_wait: float = math.inf,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] | None = None,
) -> Controller:
    """Return the controller of a run, begun here or elsewhere.

    With `planned`, the plan that the run carries out, the dataset is at hand, and `workspace` keeps the training tree
    and the output, and a process on `standby` may train; without it the driver uses only what is in the store, and
    cannot train on this machine. `detach`
    leaves the run once its instance trains by itself, `launched_later` once it needs one; `max_wait` is the longest wait
    in seconds. The lease defaults to a new one, the clock to the store's.
    """
    clock = clock or clock_of(store)
    journal, driver = Journal(store), lease or Lease(clock=clock)
    renew = Renewal(driver, store, run.id, console)
    attended: Attended = NotHere()
    tree = None
    if planned is not None and workspace is not None:
        tree = tree_of(planned, workspace)
        attended = LocalTraining(
            tree=tree,
            work=workspace.work,
            store=settings.store_ref(),
            console=console,
            root=settings.root,
            renew=renew,
            weights=lambda: planned.weights_path,
            model_file=planned.model_file,
            project=planned.project if run.spec.entrypoint else None,
            packages=workspace.packages,
            standby=standby or Standby(),
            why_open=lambda: why_open(settings, os.environ),
        )
        # Imported only where needed, as the backend of EC2 below: boto3 takes a good part of a second.
        if run.candidates[0].offer.where == "ray":
            from gpu_offload.orchestrator.backends.ray import RayTraining

            staging = Staging(store, console, tree, planned.weights_path, planned.project)
            attended = RayTraining(
                **vars(attended) | {"why_open": lambda: ""}, ray=settings.ray, staging=staging
            )
        if planned.on == "ec2":
            # A training here would find the credentials of the job that rents.
            attended = NotHere()
    cloud = None
    if run.is_rented:
        from gpu_offload.orchestrator.backends.ec2_access import rented_training

        cloud = rented_training(
            settings,
            journal,
            console,
            renew=renew,
            tree=tree,
            weights=planned.weights_path if planned else None,
            project=planned.project if planned else None,
            clock=clock,
        )
    return Controller(
        run,
        journal,
        driver,
        attended,
        console,
        Accounting(store, settings.store),
        cloud=cloud,
        clock=clock,
        sleep=sleep,
        detach=detach,
        launched_later=launched_later,
        max_wait=max_wait,
        prices=SpotPrices(),
        rules=replace(
            Judge(store, settings.registry, console, tree).rules(),
            moves_aliases=run.sweep is None,
            # A driver with the dataset wants the version for its checkout, however old the run is.
            knows=lambda commit: is_ancestor(settings.root, commit, "HEAD" if planned else run.commit or ""),
        ),
    )


def tree_of(planned: Planned, workspace: Workspace) -> Callable[[], Path]:
    """Return what makes the training tree, once it is needed."""
    return lambda: materialise(planned.snapshot, workspace.tree(planned.fingerprint))
