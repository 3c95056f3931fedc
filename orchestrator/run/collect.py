"""Collects a staged result: verifies it, publishes it, and keeps what the estimator learns from it."""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.store.errors import CorruptObjectError, ObjectMissingError, StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import MODEL_NAME, Manifest, ManifestEstimate, RegistryError
from gpu_offload.orchestrator.run.activity import run_seconds
from gpu_offload.orchestrator.run.backend import Ending
from gpu_offload.orchestrator.run.events import events_of
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.record import Collected, RunRecord, run_key
from gpu_offload.orchestrator.run.revision import first_revision
from gpu_offload.orchestrator.run.timing import record_timing
from gpu_offload.remote_job.result import TrainingResult, metrics_fault


class UnfitResultError(RegistryError):
    """The training ended with a result that does not count; the same code would yield it again."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Brings the result of one run from its staging area into the registry."""

    run: RunRecord
    journal: Journal
    console: Console
    clock: Callable[[], float]
    rules: publish.Rules = publish.DEFAULT
    """Rules by which the registry numbers and promotes what is published."""

    def collect(self, result: TrainingResult) -> Ending | None:
        """Verify a staged result and journal that; or discard it and return how its attempt ended."""
        self.console.stage("verifying the result")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            verified = self._verified(result, Path(scratch))
        if not isinstance(verified, Path):
            return verified
        note = Collected(at=self.clock(), attempt=result.attempt, model_sha256=result.model.sha256)
        self.journal.record_collected(self.run.id, note)
        return None

    def publish(
        self, result: TrainingResult, observation: Observation, cost_usd: Callable[[], float]
    ) -> Ending | None:
        """Publish a collected result; or discard it, where it was damaged since, and return how its attempt ended."""
        self.console.stage(f"publishing version {self.run.version}")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            # Once more: it can have been collected by another driver, long ago.
            model = self._verified(result, Path(scratch))
            if not isinstance(model, Path):
                return model
            manifest = self._manifest(result, observation, cost_usd())
            publish.publish(self.journal.store, manifest, model, note=self.console.note, rules=self.rules)
        for cause in result.causes:
            self.console.warning(f"it finds next to nothing, likely because {cause}")
        return None

    def complete(self, observation: Observation) -> float:
        """Finish an interrupted publication and record the times; return when it published, Unix seconds."""
        store, at = self.journal.store, self.clock()
        manifest = publish.manifest_of(store, self.run.version)
        if manifest is not None:
            publish.complete(store, manifest, rules=self.rules)
            if manifest.run == self.run.id:
                at = manifest.created_at
        if observation.result is not None:
            # A role that can publish can lack this permission, and a missing record of times is no failure.
            with contextlib.suppress(StoreDeniedError):
                events = events_of(store, self.run.id, observation.result.attempt)
                record_timing(store, self.run, observation.result, observation.attempts, events, now=at)
        return at

    def _verified(self, result: TrainingResult, scratch: Path) -> Path | Ending:
        """Read the staged model back; discard a result that does not count, and return how its attempt ended."""
        try:
            return verify_staged(self.journal.store, self.run, result, scratch)
        except UnfitResultError as error:
            return "failed", str(error)  # training again would yield it again
        except (CorruptObjectError, ObjectMissingError) as error:
            # Not the end of the run: the training resumes from its checkpoint, and writes the result again.
            self.console.warning(f"the staged result does not count and is discarded: {error}")
            return "died", f"its result did not count: {error}"

    def _manifest(self, result: TrainingResult, observation: Observation, cost_usd: float) -> Manifest:
        run, now = self.run, self.clock()
        attempt = next((a for a in observation.attempts if a.record.number == result.attempt), None)
        offer = attempt.record.offer if attempt else None
        first = first_revision(run, events_of(self.journal.store, run.id, result.attempt))
        return Manifest(
            version=run.version,
            training_key=run.training_key,
            fingerprint=run.fingerprint,
            run=run.id,
            commit=run.commit,
            repository=run.repository,
            created_at=now,
            began_at=run.created_at,
            model=result.model,
            init_from=run.origin.version if run.origin else None,
            warm_starts=run.origin.warm_starts if run.origin else 0,
            recipe=run.origin.recipe if run.origin else None,
            exports=result.exports,
            failed_exports=result.failed_exports,
            license=run.spec.license,
            task=result.task,
            base_model=run.spec.base_model,
            epochs=result.epochs,
            epochs_completed=result.epochs_completed,
            metrics=result.metrics,
            per_class=result.per_class,
            seconds=ManifestEstimate(
                estimated=run.estimate,
                revised=first[0].interval if first else None,
                actual=run_seconds(run, observation.attempts, now),
            ),
            where=(offer.instance_type or offer.where) if offer else "cpu",
            cost_usd=cost_usd,
            environment=result.environment,
            classes=run.classes,
            images=run.images,
            image_size=run.spec.image_size,
            batch=run.spec.batch,
            seed=run.spec.seed,
            hyperparameters=run.spec.hyperparameters,
            weights_sha256=run.spec.weights.sha256 if run.spec.weights else None,
        )


def verify_staged(store: ObjectStore, run: RunRecord, result: TrainingResult, scratch: Path) -> Path:
    """Read a staged model and its exports back whole and return the model's path in `scratch`.

    Raises UnfitResultError: another training's result, or too few epochs; CorruptObjectError; ObjectMissingError.
    """
    faults = []
    if result.training_key != run.training_key:
        faults.append(f"it is of the training {result.training_key[:16]}, not {run.training_key[:16]}")
    if result.task != run.spec.task:
        faults.append(f"it is a model for {result.task}, not for {run.spec.task}")
    if result.epochs_completed < run.spec.epochs and not result.stopped_early:
        faults.append(
            f"it completed {result.epochs_completed} of {run.spec.epochs} epochs, and would again: call "
            "`context.epoch(...)` once for each epoch, and say so where the training stops early"
        )
    for metrics in (result.metrics, *result.per_class.values()):
        if fault := metrics_fault(metrics):
            faults.append(fault)
            break
    files = (result.model, *(export.file for export in result.exports))
    names = [file.name for file in files]
    if not all(map(MODEL_NAME.fullmatch, names)) or len(set(names)) < len(names):
        faults.append(f"{', '.join(names)!r}: no names for a model and its exports")
    if run.spec.exports_required:
        faults += [f"no export to {name}: {why}" for name, why in result.failed_exports.items()]
    if faults:
        raise UnfitResultError(f"the staged result of run {run.id} does not count: " + "; ".join(faults))
    for file in files:
        store.download(
            run_key(run.id, f"result/{file.name}"), scratch / file.name, size=file.size, sha256=file.sha256
        )
    return scratch / result.model.name
