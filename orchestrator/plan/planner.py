"""Makes a plan: reads the inputs and the store, estimates each place, decides. Spends nothing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.cost.traffic import UNCHARGED, StorePlace
from gpu_offload.orchestrator.estimate.calibration import calibration
from gpu_offload.orchestrator.estimate.history import history
from gpu_offload.orchestrator.estimate.installation import Part
from gpu_offload.orchestrator.estimate.processor import CoreReading
from gpu_offload.orchestrator.offers.offer import Offer, Where
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.appraisal import Appraisal
from gpu_offload.orchestrator.plan.candidate import list_candidates
from gpu_offload.orchestrator.plan.decision import decide_for, with_comparison
from gpu_offload.orchestrator.plan.inputs import PlanInputs, read_inputs
from gpu_offload.orchestrator.plan.option import Obstacle, PlanReport
from gpu_offload.orchestrator.plan.planned import Planned, limits_of
from gpu_offload.orchestrator.plan.prerequisites import (
    check_code,
    imported_on_node,
    may_rent,
    missing_extra,
    profile_obstacles,
    renting_faults,
)
from gpu_offload.orchestrator.plan.requirements import is_installed, lock
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.evaluation import compared_images
from gpu_offload.orchestrator.registry.index import entry_of
from gpu_offload.orchestrator.registry.stores import store_place
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.workspace import Workspace
from gpu_offload.remote_job.machine import cores
from gpu_offload.remote_job.spec import TrainingSpec


@dataclass
class Planning:
    """Plans the training that the settings describe. `offers` asks for today's; None: the built-in table."""

    settings: Settings
    store: ObjectStore
    workspace: Workspace
    console: Console
    offers: Callable[[], Sequence[Offer] | None] = lambda: None
    store_place: StorePlace = UNCHARGED
    barred: tuple[Obstacle, ...] = ()
    """What keeps an instance from training, beside the faults of configuration and code."""
    account: Callable[[], Sequence[Obstacle]] = lambda: ()
    """Asks AWS for what keeps an instance from training."""
    job_installs: bool = False
    """Whether the job that trains on this CPU installs its software first."""
    installed_s: float = 0.0
    """Seconds that it has spent on that already."""
    launched_later: bool = False
    """Whether a later job may launch the instance that a training moves to from this CPU. AWS is not asked here. A plan for
    `on="cpu"` then carries out one that chose this CPU, and the training may move."""
    beside: tuple[int, ...] = ()
    """Processes that this command has started, which are no other programs'."""
    moves_aliases: bool = True
    """Whether the version may become `stable`: one of a sweep's does not."""
    quiet: Callable[[], object] = lambda: None
    """Called before this machine is measured: ends these processes."""
    ray_offer: Callable[[Sequence[str]], Offer] | None = None
    """Checks the Ray cluster, also for the modules that a training imports, and returns it as an offer; raises RayError."""

    def plan(
        self,
        *,
        on: Where = "auto",
        calibrate: bool | None = None,
        only_if_it_matters: bool = False,
    ) -> Planned:
        """Decide where to train, or plan for the place `on`.

        `calibrate` measures this machine (None: if Ultralytics is installed); with `only_if_it_matters` not if the
        prior alone decides. Raises DatasetError, PlanningError, StoreError; RayError: the cluster cannot be used.
        """
        # Reading the inputs takes long enough to see what other programs leave of the processor.
        began, begins_here = CoreReading.of(self.beside), on == "cpu" and self.launched_later
        inputs = read_inputs(self.settings, self.store, self.workspace)
        snapshot, spec, version = inputs.snapshot, inputs.spec(), version_of(inputs.key)
        check_code(inputs)
        work = inputs.workload
        done = publish.manifest_of(self.store, version)
        entry = entry_of(publish.versions(self.store), version) if done else None
        measured = None
        limits = limits_of(self.settings)
        share = CoreReading.of(self.beside).share(began, cores())
        appraisal = Appraisal(
            self.settings,
            work,
            tuple(history(self.store)),
            self.store_place,
            share,
            installs=self._installs(inputs) if done is None else (),
            compared=self._compared(inputs) if done is None else 0,
            has_requirements=inputs.requirements is not None,
        )
        # Ultralytics' steps say nothing about the user's own.
        if done is None and calibrate is not False and on in {"auto", "cpu"} and inputs.code is None:
            prior = appraisal.on_cpu(None)
            # The wide prior decides already: the CPU is asked for, or fits even by its upper bound; for what can move, by
            # its likely time.
            if begins_here:
                fits = prior.interval.likely <= limits.cpu_limit[0]
            else:
                fits = prior.interval.high <= limits.cpu_limit[0] and limits.value_of_time_usd_per_hour == 0
            asked_for = on == "cpu" and not begins_here
            wanted = calibrate or not (only_if_it_matters and (asked_for or fits))

            def local() -> TrainingSpec:
                self.quiet()
                return inputs.local_spec(self.workspace)

            measured = calibration(
                spec, work, self.workspace, self.console, local if wanted else None, inputs.definition_sha256
            )
        appraisal = appraisal.sized_by(measured)
        cpu = appraisal.on_cpu(measured)
        blocked = (*self.barred, *renting_faults(self.settings, inputs))
        # AWS is not asked about a training that is done, or that must or can only run elsewhere.
        asks = done is None and on in {"auto", "ec2"} and not blocked
        blocked = tuple(self.account()) if asks else blocked
        offers = self.offers() if asks and not blocked else None
        options = appraisal.options(cpu, limits, TABLE if offers is None else offers, blocked)
        if on == "ray" and done is None and self.ray_offer is not None:
            options = (options[0], appraisal.on_ray(self.ray_offer(imported_on_node(inputs)), cpu, limits))
        decision = decide_for(
            on,
            options,
            limits,
            blocked,
            epochs=work.epochs,
            begins_here=begins_here,
            escalates=self.settings.limits.on_overrun == "escalate",
        )
        report = PlanReport(
            fingerprint=inputs.fingerprint,
            training_key=inputs.key,
            already_trained=done.version if done else None,
            semver=entry.semver if entry else None,
            images=snapshot.images,
            dataset_bytes=snapshot.bytes,
            options=options,
            decision=with_comparison(decision),
            notes=(
                *(f"this CPU: {note}" for note in cpu.notes),
                *([inputs.start.note] if inputs.start else []),
                inputs.license_note,
                *missing_extra(inputs),
            ),
        )
        # Whether an instance may, and can, take over from this CPU where that turns out too slow. EC2's own offers name zones,
        # and show access to an account; those of price pages do not.
        rescues = (
            self.settings.limits.on_overrun == "escalate"
            and (any(offer.zone for offer in offers or ()) or self.launched_later)
            and may_rent(self.settings, inputs)
        )
        is_free = on == "auto" or begins_here
        return Planned(
            settings=inputs.settings,
            inputs=inputs,
            version=version,
            spec=spec,
            report=report,
            traffic=appraisal.traffic,
            candidates=list_candidates(
                decision,
                options,
                on,
                appraisal.machine(measured),
                past=appraisal.past,
                key=appraisal.key,
                escalates=is_free and (decision.reversible or rescues),
            ),
            on="auto" if is_free else on,
            lock=lambda: lock(inputs.requirements, self.store) if inputs.requirements else b"",
            installed_s=self.installed_s,
        )

    def _compared(self, inputs: PlanInputs) -> int:
        """Return on how many images the new model is compared with `stable`, once it is published."""
        if inputs.code is not None or not self.moves_aliases:
            return 0
        snapshot = inputs.snapshot
        return compared_images(self.store, self.settings.registry.metric, snapshot.classes, snapshot.images)

    def _installs(self, inputs: PlanInputs) -> tuple[Part, ...]:
        """Return what has to be installed for a training on this CPU."""
        asked = inputs.requirements
        news = asked is not None and not is_installed(asked, self.store, self.workspace.packages)
        return (*(("job",) if self.job_installs else ()), *(("requirements",) if news else ()))


def planning_of(
    settings: Settings,
    store: ObjectStore,
    console: Console,
    *,
    asks_ec2: bool = True,
    beside: tuple[int, ...] = (),
    quiet: Callable[[], object] = lambda: None,
) -> Planning:
    """Return the planning of a project, beside its files. `asks_ec2` is False where there are no credentials."""

    def account() -> Sequence[Obstacle]:
        return profile_obstacles(settings) if asks_ec2 else ()

    def offers() -> Sequence[Offer] | None:
        from gpu_offload.orchestrator.offers.ec2 import ec2_offers
        from gpu_offload.orchestrator.offers.public import public_offers

        return (ec2_offers if asks_ec2 else public_offers)(settings.ec2, console)

    def ray_offer(modules: Sequence[str]) -> Offer:
        from gpu_offload.orchestrator.offers import ray

        ray.check_isolation(settings.training.isolation)
        return ray.ray_offer(settings.ray, settings.store_ref(), modules, workspace.clusters)

    place, workspace = store_place(settings, store, os.environ), Workspace.of(settings.root)
    return Planning(
        settings,
        store,
        workspace,
        console,
        offers,
        place,
        account=account,
        beside=beside,
        quiet=quiet,
        ray_offer=ray_offer,
    )
