"""Where a training starts from: random weights, named weights, or a published version that it continues."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.registry.download import resolve
from gpu_offload.orchestrator.registry.index import manifest_of, versions
from gpu_offload.orchestrator.registry.manifest import IndexEntry, Manifest, RegistryError, model_key
from gpu_offload.orchestrator.settings.model_name import VERSION_PATTERN
from gpu_offload.orchestrator.settings.sections import TrainingSettings
from gpu_offload.remote_job.spec import Weights

FEWER = 0.5
"""Share of the epochs that a warm start takes unless the configuration says otherwise; see `benchmarks/warm_start.py`."""

PATIENCE = 0.25
"""Share of a warm start's epochs without a better validation after which it ends, because it only over-fits then."""

LEAST_PATIENCE = 5


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Where a training starts."""

    weights: Weights | None
    training: TrainingSettings
    """The settings, with the epochs and the patience that follow."""
    recipe: str | None = None
    """The training key of the same from scratch: versions with it are of the same data and settings."""
    version: str | None = None
    """The version that it continues, None where it continues none."""
    warm_starts: int = 0
    """How many trainings in a row continued another one, this one included."""
    note: str = ""
    """A sentence for the receipt; empty where no version was asked for."""


def is_version(init_from: str) -> bool:
    """Whether `training.init-from` names a published version."""
    return re.fullmatch(VERSION_PATTERN, init_from, re.ASCII) is not None


def find_start(
    training: TrainingSettings, store: ObjectStore, snapshot: Snapshot, cache: Path, recipe: str
) -> WarmStart:
    """Return where a training that continues a version starts.

    A repeated training (same data, same settings) keeps its parent: `stable`, which it moved, would make it another
    training each time. Raises StoreError; PlanningError: there is no such version; CorruptObjectError: the version's file is
    not what its manifest says.
    """
    if (known := _trained(store, recipe)) is not None:
        if known.init_from is None:
            return WarmStart(None, training, recipe, note=f"version {known.version} was trained from scratch")
        before = manifest_of(store, known.init_from)
        key = model_key(known.init_from, before.model.name if before else "model.pt")
        weights = Weights(sha256=known.weights_sha256 or "", key=key)
        return _warm(training, recipe, known.init_from, known.warm_starts, weights)
    wanted = training.init_from
    try:
        parent = resolve(store, wanted)
    except RegistryError as error:
        if wanted != "stable":
            # A first training has no stable version yet; a version that is named was meant to be there.
            raise PlanningError(
                f'training.init-from: {error}; name another version, or write "stable"'
            ) from None
        return WarmStart(None, training, recipe, note=f"from scratch, not from {wanted}: {error}")
    if (why := _unfit(training, snapshot, parent)) is not None:
        return WarmStart(
            None, training, recipe, note=f"from scratch, not from {wanted} ({parent.version}): {why}"
        )
    model, key = parent.model, model_key(parent.version, parent.model.name)
    path = cache / f"{model.sha256[:16]}-{model.name}"
    if not (path.is_file() and sha256_of(path) == model.sha256):
        store.download(key, path, size=model.size, sha256=model.sha256)
    weights = Weights(sha256=model.sha256, path=str(path), key=key)
    return _warm(training, recipe, parent.version, parent.warm_starts + 1, weights)


def _trained(store: ObjectStore, recipe: str) -> Manifest | None:
    """Return the newest version of the same data and settings that is there."""

    def is_same(entry: IndexEntry) -> bool:
        return recipe in {entry.recipe, entry.training_key} and not entry.deleted

    found = (manifest_of(store, e.version) for e in reversed(versions(store)) if is_same(e))
    return next((manifest for manifest in found if manifest is not None), None)


def _unfit(training: TrainingSettings, snapshot: Snapshot, parent: Manifest) -> str | None:
    """Return why a version's weights are no start for this training, None where they are."""
    if parent.task != str(snapshot.task):
        return f"its task is {parent.task}"
    if parent.classes is not None and parent.classes != tuple(snapshot.classes):
        return "the classes changed"
    if parent.base_model != training.base_model:
        return f"its model is {parent.base_model}"
    if parent.warm_starts >= training.max_warm_starts:
        return (
            f"{parent.warm_starts} trainings in a row continued another one; so that errors do not add up, this one begins "
            "anew, and is compared with stable before it is published"
        )
    return None


def _warm(
    training: TrainingSettings, recipe: str, version: str, warm_starts: int, weights: Weights
) -> WarmStart:
    epochs = training.warm_epochs or math.ceil(training.epochs * FEWER)
    hyperparameters = dict(training.hyperparameters)
    if training.entrypoint is None:
        patience = max(LEAST_PATIENCE, math.ceil(epochs * PATIENCE))
        # The user's own patience wins.
        hyperparameters = {"patience": patience, **hyperparameters}
    note = f"continues version {version} (sha256 {weights.sha256[:16]}): {epochs} epochs in place of {training.epochs}"
    if "patience" in hyperparameters:
        note += f", fewer if {hyperparameters['patience']} in a row do not improve the validation"
    told = training.model_copy(update={"epochs": epochs, "hyperparameters": hyperparameters})
    return WarmStart(weights, told, recipe, version, warm_starts, note)
