"""The inputs of a training (dataset, model, weights, the user's code), read before it is estimated, and their key."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gpu_offload.dataset.decoding import decode_seconds
from gpu_offload.dataset.fingerprint import fingerprint as fingerprint_of
from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.orchestrator.plan.checkpoint import check_checkpoint
from gpu_offload.orchestrator.plan.code import Code, read_code
from gpu_offload.orchestrator.plan.definition import check_definition
from gpu_offload.orchestrator.plan.model import check_weights, layers_of, model_file
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.plan.requirements import Requirements, read_requirements
from gpu_offload.orchestrator.plan.training_key import TrainingInputs, training_key
from gpu_offload.orchestrator.plan.warm_start import WarmStart, find_start, is_version
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.model_name import is_weights
from gpu_offload.orchestrator.workspace import Workspace, snapshot_of
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec, Weights
from gpu_offload.remote_job.staged_dataset import dataset_key

SCRATCH = "scratch"
ULTRALYTICS_LICENSE = "AGPL-3.0"


@dataclass(frozen=True)
class PlanInputs:
    """Everything that decides a training's result."""

    settings: Settings
    snapshot: Snapshot
    fingerprint: str
    weights: Weights | None
    model_file: Path | None
    """The model definition where it is a file of the user's."""
    code: Code | None
    """The user's training code, None for Ultralytics' trainings."""
    requirements: Requirements | None
    """What that code needs installed."""
    start: WarmStart | None = None
    """Where it starts, for a training that was to continue a published version."""

    @cached_property
    def definition_sha256(self) -> str | None:
        """The digest of the model definition where it is a file of the user's."""
        return sha256_of(self.model_file) if self.model_file else None

    @cached_property
    def key(self) -> str:
        """The training key."""
        training = self.settings.training
        return training_key(
            TrainingInputs(
                fingerprint=self.fingerprint,
                task=str(self.snapshot.task),
                model=training.model,
                model_definition=self.definition_sha256,
                weights_sha256=self.weights.sha256 if self.weights else None,
                epochs=training.epochs,
                image_size=training.image_size,
                batch=training.batch,
                seed=training.seed,
                hyperparameters=training.hyperparameters,
                entrypoint=training.entrypoint,
                entrypoint_sha256=self.code.sha256 if self.code else None,
                requirements_sha256=self.requirements.sha256 if self.requirements else None,
            )
        )

    def starting(self, store: ObjectStore, cache: Path) -> "PlanInputs":
        """Return the inputs of a training that continues a published version where it can, else begins from scratch."""
        start = find_start(self.settings.training, store, self.snapshot, cache, self.key)
        settings = self.settings.model_copy(update={"training": start.training})
        return replace(self, settings=settings, weights=start.weights, start=start)

    @property
    def exports(self) -> tuple[str, ...]:
        """Formats that the model is written in: by default safetensors for Ultralytics' models, and ONNX for detectors."""
        wanted = self.settings.registry.exports
        if wanted is None:
            if self.code is not None:
                return ()
            return ("onnx", "safetensors") if Task(self.snapshot.task) is Task.DETECT else ("safetensors",)
        return wanted

    @cached_property
    def workload(self) -> Workload:
        """The work of the training, for its estimate."""
        training = self.settings.training
        return workload(
            task=self.snapshot.task,
            model=training.model,
            image_size=training.image_size,
            batch=training.batch,
            epochs=training.epochs,
            train_images=self.snapshot.images["train"],
            val_images=self.snapshot.images["val"],
            hyperparameters=training.hyperparameters,
            decode=decode_seconds(self.snapshot),
            dataset_bytes=self.snapshot.bytes,
            exports=len(self.exports),
        )

    @property
    def license(self) -> str | None:
        """The SPDX expression of code and weights: https://www.ultralytics.com/license for Ultralytics' own."""
        return self.settings.training.license or (None if self.code else ULTRALYTICS_LICENSE)

    @property
    def license_note(self) -> str:
        """The licence in a sentence, for the receipt."""
        if self.license is None:
            return (
                "licence of the model: not stated; training.license says which one your code and weights have"
            )
        theirs = self.settings.training.license is None
        return f"licence of the model: {self.license}" + (
            ", as Ultralytics' code and weights" if theirs else ""
        )

    def spec(self) -> TrainingSpec:
        """Return the training as the training module reads it; a run fills in where it runs."""
        training = self.settings.training
        return TrainingSpec(
            run="plan",
            attempt=1,
            training_key=self.key,
            task=Task(self.snapshot.task),
            dataset=DatasetRef(fingerprint=self.fingerprint, archive=dataset_key(self.fingerprint)),
            model=training.model,
            weights=self.weights,
            epochs=training.epochs,
            image_size=training.image_size,
            batch=training.batch,
            seed=training.seed,
            hyperparameters=training.hyperparameters,
            entrypoint=training.entrypoint,
            license=self.license,
            device=training.device,
            speed=training.speed,
            exports=self.exports,
            exports_required=self.settings.registry.on_failed_export == "fail",
            output="",
        )

    def local_spec(self, workspace: Workspace) -> TrainingSpec:
        """Return the training as its steps are measured here: with the training tree, which is made where it is missing."""
        tree = materialise(self.snapshot, workspace.tree(self.fingerprint))
        return self.spec().model_copy(
            update={
                "dataset": DatasetRef(fingerprint=self.fingerprint, tree=str(tree)),
                "model": str(self.model_file or self.settings.training.model),
                "epochs": self.workload.measured_epochs,
            }
        )


@dataclass(frozen=True)
class ProjectFiles:
    """What a training takes from the project beside its dataset."""

    code: Code | None
    requirements: Requirements | None
    definition: Path | None


def read_project(settings: Settings) -> ProjectFiles:
    """Read the training code, its requirements and the model definition. Raises PlanningError."""
    root, training = settings.root, settings.training
    code = read_code(root, training.entrypoint, training.include) if training.entrypoint else None
    requirements = read_requirements(root, training.requirements) if training.requirements else None
    definition = model_file(root, training.model, is_own=code is not None)
    if code is None:
        layers = check_definition(definition, training.model) if definition else layers_of(training.model)
        _check_frozen(training.hyperparameters.get("freeze"), layers)
    return ProjectFiles(code, requirements, definition)


def _check_frozen(freeze: Any, layers: int | None) -> None:
    """Refuse to freeze every layer of a model. Raises PlanningError."""
    frozen = range(freeze) if isinstance(freeze, int) else freeze or ()
    if layers is not None and all(layer in frozen for layer in range(layers)):
        raise PlanningError(
            f"training.hyperparameters.freeze leaves none of the model's {layers} layers to train; write fewer of them"
        )


def read_inputs(settings: Settings, store: ObjectStore, workspace: Workspace) -> PlanInputs:
    """Read everything that a training depends on. Raises DatasetError, PlanningError (model, weights, code), StoreError."""
    training, project = settings.training, read_project(settings)
    snapshot = snapshot_of(settings, workspace)
    continues = is_version(training.init_from)
    inputs = PlanInputs(
        settings=settings,
        snapshot=snapshot,
        fingerprint=fingerprint_of(snapshot),
        weights=None if continues else _weights(settings, store, workspace, snapshot.task),
        model_file=project.definition,
        code=project.code,
        requirements=project.requirements,
    )
    return inputs.starting(store, workspace.weights) if continues else inputs


def _weights(settings: Settings, store: ObjectStore, workspace: Workspace, task: Task) -> Weights | None:
    training = settings.training
    reference = training.model if training.init_from == SCRATCH else training.init_from
    if not is_weights(reference):
        return None
    if training.init_from != SCRATCH:
        check_weights("training.init-from", reference)
    from gpu_offload.remote_job.weights import resolve

    found = resolve(reference, store=store, cache=workspace.weights)
    if training.entrypoint is None and found is not None and found.path is not None:
        is_model = reference == training.model
        setting = f"training.{'model' if is_model else 'init-from'} {reference.partition('#')[0]}"
        check_checkpoint(Path(found.path), setting, task if is_model else None)
    return found
