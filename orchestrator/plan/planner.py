"""Make a plan: read the dataset, look into the store, measure or assume, decide. Spends nothing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gpu_offload.dataset.fingerprint import fingerprint as fingerprint_of
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.calibration import (
    calibrate,
    calibration_key,
    can_calibrate,
    kept_calibration,
)
from gpu_offload.orchestrator.estimate.correction import Estimate
from gpu_offload.orchestrator.estimate.cpu import estimate_cpu, estimate_cpu_prior
from gpu_offload.orchestrator.estimate.gpu import estimate_gpu_prior
from gpu_offload.orchestrator.estimate.history import family_of, history, ultralytics_minor
from gpu_offload.orchestrator.estimate.posterior import HistoryKey, Ratio, matching
from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.orchestrator.offers.offer import Offer, cpu_offer
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.candidate import list_candidates
from gpu_offload.orchestrator.plan.decision import decide, forced, judge
from gpu_offload.orchestrator.plan.option import Decision, Limits, Option, PlanReport
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.plan.project import (
    PlanningError,
    code_files,
    code_sha256,
    file_sha256,
    own_model,
    pack_project,
)
from gpu_offload.orchestrator.plan.training_key import TrainingInputs, training_key, version_of
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.model_name import is_weights
from gpu_offload.orchestrator.workspace import Workspace, snapshot_of
from gpu_offload.remote_job.machine import cores, memory
from gpu_offload.remote_job.result import Calibration
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec, Weights

GIB = 2**30
SCRATCH = "scratch"


@dataclass
class Planning:
    """Plans the training that the settings describe. `offers` asks EC2 for its own; None: the built-in table."""

    settings: Settings
    store: ObjectStore
    workspace: Workspace
    console: Console
    offers: Callable[[], Sequence[Offer] | None] = lambda: None

    def plan(
        self,
        *,
        on: Literal["auto", "cpu", "ec2"] = "auto",
        calibrate: bool | None = None,
        only_if_it_matters: bool = False,
    ) -> Planned:
        """Decide where to train.

        Args:
            on: Where, if somebody decided already.
            calibrate: Measure this machine; None: if Ultralytics is installed.
            only_if_it_matters: Do not measure where the prior alone decides already.

        Raises:
            DatasetError: the dataset cannot be trained on.
            PlanningError: model or weights are not to be had.
            StoreError: the store did not answer.
        """
        snapshot = snapshot_of(self.settings, self.workspace)
        fingerprint = fingerprint_of(snapshot)
        weights = self._weights()
        model_file = self._model_file()
        inputs = self._inputs(snapshot, fingerprint, weights, model_file)
        key = training_key(inputs)
        version = version_of(key)
        spec = self._spec(inputs, key, weights)
        work = self._workload(snapshot)
        done = publish.manifest_of(self.store, version)
        measured = None
        limits = self._limits()
        past = tuple(history(self.store))
        if done is None and calibrate is not False and on != "ec2":
            prior = self._on_cpu(work, None, past)
            wanted = calibrate or not (only_if_it_matters and self._decided_by(prior, limits, on))
            measured = self._calibration(spec, snapshot, fingerprint, model_file, measure=wanted)
        cpu = self._on_cpu(work, measured, past)
        # Nobody asks EC2 about a training that is done, or that shall not run there.
        offers = self.offers() if done is None and on != "cpu" else None
        options = self._options(work, cpu, limits, past, TABLE if offers is None else offers)
        decision = self._decide(options, limits, on)
        report = PlanReport(
            fingerprint=fingerprint,
            training_key=key,
            already_trained=done.version if done else None,
            images=snapshot.images,
            dataset_bytes=snapshot.bytes,
            options=options,
            decision=decision,
            notes=cpu.notes,
        )
        return Planned(
            settings=self.settings,
            snapshot=snapshot,
            fingerprint=fingerprint,
            training_key=key,
            version=version,
            spec=spec,
            report=report,
            candidates=list_candidates(
                decision,
                options,
                on,
                self._machine(measured),
                escalates=offers is not None and on == "auto" and self._escalates(),
            ),
            is_forced=on != "auto",
            weights_path=Path(weights.path) if weights and weights.path else None,
            model_file=model_file,
            project=self._project(model_file),
        )

    def _escalates(self) -> bool:
        """Whether a run on this CPU that turns out too slow shall, and can, go to an instance."""
        if self.settings.limits.on_overrun != "escalate":
            return False
        from gpu_offload.orchestrator.plan.prerequisites import may_rent

        return may_rent(self.settings)

    def _limits(self) -> Limits:
        limits = self.settings.limits
        # A job on a runner is ended from outside; a machine of one's own has no such limit.
        on_runner = bool(os.environ.get("GITHUB_ACTIONS"))
        return Limits(
            deadline_s=limits.deadline.total_seconds(),
            max_cost_usd=limits.max_cost_usd,
            value_of_time_usd_per_hour=limits.value_of_time_usd_per_hour,
            ci_limit_s=limits.ci_limit.total_seconds() if on_runner else None,
        )

    def _weights(self) -> Weights | None:
        training = self.settings.training
        reference = training.model if training.init_from == SCRATCH else training.init_from
        if not is_weights(reference):
            return None
        from gpu_offload.remote_job.weights import resolve

        return resolve(reference, store=self.store, cache=self.workspace.weights)

    def _model_file(self) -> Path | None:
        """Return the model definition if it is a file of the user's, None if it is a name Ultralytics knows."""
        name = self.settings.training.model
        path = self.settings.root / name
        if path.is_file():
            return path
        if "/" in name and not is_weights(name):
            raise PlanningError(f"training.model: there is no file {name} (looked in {self.settings.root})")
        return None

    def _project(self, model_file: Path | None) -> bytes | None:
        root, entry = self.settings.root, self.settings.training.entrypoint
        files = {own_model(model_file): model_file} if model_file else {}
        if entry:
            files |= {file.relative_to(root).as_posix(): file for file in code_files(root, entry)}
        return pack_project(files) if files else None

    def _inputs(
        self, snapshot: Snapshot, fingerprint: str, weights: Weights | None, model_file: Path | None
    ) -> TrainingInputs:
        training = self.settings.training
        entry = training.entrypoint
        return TrainingInputs(
            fingerprint=fingerprint,
            task=str(snapshot.task),
            model=training.model,
            model_definition=file_sha256(model_file) if model_file else None,
            weights_sha256=weights.sha256 if weights else None,
            epochs=training.epochs,
            image_size=training.image_size,
            batch=training.batch,
            seed=training.seed,
            hyperparameters=training.hyperparameters,
            entrypoint=entry,
            entrypoint_sha256=code_sha256(self.settings.root, entry) if entry else None,
        )

    def _spec(self, inputs: TrainingInputs, key: str, weights: Weights | None) -> TrainingSpec:
        training = self.settings.training
        return TrainingSpec(
            run="plan",
            attempt=1,
            training_key=key,
            task=Task(inputs.task),
            dataset=DatasetRef(fingerprint=inputs.fingerprint, archive=f"datasets/{inputs.fingerprint}.tar"),
            model=inputs.model,
            weights=weights,
            epochs=inputs.epochs,
            image_size=inputs.image_size,
            batch=inputs.batch,
            seed=inputs.seed,
            hyperparameters=training.hyperparameters,
            entrypoint=inputs.entrypoint,
            speed=training.speed,
            output="",
        )

    def _workload(self, snapshot: Snapshot) -> Workload:
        training = self.settings.training
        pixels = sum(s.width * s.height for s in snapshot.samples)
        return workload(
            task=snapshot.task,
            model=training.model,
            image_size=training.image_size,
            batch=training.batch,
            epochs=training.epochs,
            train_images=snapshot.images["train"],
            val_images=snapshot.images["val"],
            hyperparameters=training.hyperparameters,
            megapixels=pixels / len(snapshot.samples) / 1e6 or None,
            dataset_bytes=snapshot.bytes,
        )

    def _machine(self, measured: Calibration | None) -> str:
        return f"cpu-{cores()}" + ("" if measured else "-prior")

    def _past(self, past: tuple[Ratio, ...], machine: str) -> tuple[Ratio, ...]:
        training = self.settings.training
        key = HistoryKey(machine, ultralytics_minor(), self.settings.dataset.path, family_of(training.model))
        return matching(past, key)

    def _on_cpu(self, work: Workload, measured: Calibration | None, past: tuple[Ratio, ...]) -> Estimate:
        known = self._past(past, self._machine(measured))
        if measured is None:
            return estimate_cpu_prior(work, cores(), history=known)
        exact = replace(work, gflops_640=max(measured.gflops, 1e-3) * (640 / work.image_size) ** 2)
        return estimate_cpu(exact, measured, history=known)

    @staticmethod
    def _decided_by(prior: Estimate, limits: Limits, on: str) -> bool:
        """Whether a measurement could not change the decision: the CPU fits even by the wide prior."""
        fits = prior.interval.high <= limits.cpu_limit[0] and limits.value_of_time_usd_per_hour == 0
        return on == "cpu" or fits

    def _calibration(
        self,
        spec: TrainingSpec,
        snapshot: Snapshot,
        fingerprint: str,
        model_file: Path | None,
        *,
        measure: bool,
    ) -> Calibration | None:
        if spec.entrypoint is not None:
            return None  # what a stranger's training takes is not in ours
        key = calibration_key(spec, len(snapshot.samples))
        kept = kept_calibration(self.workspace, key)
        if kept is not None or not measure or not can_calibrate():
            return kept
        tree = materialise(snapshot, self.workspace.tree(fingerprint))
        local = spec.model_copy(
            update={
                "dataset": DatasetRef(fingerprint=fingerprint, tree=str(tree)),
                "model": str(model_file) if model_file else spec.model,
            }
        )
        return calibrate(local, self.workspace, key, self.console)

    def _options(
        self,
        work: Workload,
        cpu: Estimate,
        limits: Limits,
        past: tuple[Ratio, ...],
        offers: Sequence[Offer],
    ) -> tuple[Option, ...]:
        here = judge(cpu_offer(cores(), round(memory() / GIB, 1)), cpu, limits)
        settings = self.settings.ec2
        markets = {"spot": {"spot"}, "on-demand": {"on-demand"}}.get(settings.market, {"spot", "on-demand"})
        rented = []
        for offer in offers:
            wanted = offer.instance_type in settings.instance_types and offer.region in settings.regions
            if wanted and offer.market in markets and offer.gpu is not None:
                known = self._past(past, offer.instance_type or "")
                estimate = estimate_gpu_prior(work, offer.gpu, offer.vcpus, history=known)
                rented.append(judge(offer, estimate, limits))
        return (here, *rented)

    def _decide(self, options: tuple[Option, ...], limits: Limits, on: str) -> Decision:
        epochs = self.settings.training.epochs
        if on == "cpu":
            return forced("cpu", options, limits, epochs=epochs)
        if on == "ec2":
            return forced("ec2", options, limits, epochs=epochs)
        return decide(options, limits, epochs=epochs)


def planning_of(
    settings: Settings, store: ObjectStore, console: Console, *, asks_ec2: bool = True
) -> Planning:
    """Return the planning of a project, beside its files. `asks_ec2` is False where there are no credentials."""

    def offers() -> Sequence[Offer] | None:
        from gpu_offload.orchestrator.offers.ec2 import ec2_offers

        return ec2_offers(settings.ec2, console) if asks_ec2 else None

    return Planning(settings, store, Workspace.of(settings.root), console, offers)
