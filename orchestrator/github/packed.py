"""Packs what a training on a runner hands to the job `keep`: the files of its version, or of its unfinished runs."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.store.errors import ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.web import asset_name
from gpu_offload.orchestrator.estimate.history import KEPT, KeptTimings, timings
from gpu_offload.orchestrator.github.cached_store import KeptFolder, unfinished_key
from gpu_offload.orchestrator.github.release import ALIASES
from gpu_offload.orchestrator.github.run_archive import pack
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import INDEX_KEY, model_key, to_json
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import RUN_KEY_LENGTH, RUN_PREFIX
from gpu_offload.remote_job.result import PREDICTIONS


@dataclass(frozen=True, slots=True)
class Packed:
    """What a training leaves to keep: the version that it published, or its unfinished runs with a checkpoint."""

    version: str | None = None
    unfinished: int = 0
    moved: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that is not kept already."""
        return not (self.version or self.unfinished or self.moved)


def pack_for_keeping(store: KeptFolder, training_key: str, folder: Path) -> Packed:
    """Write what is new in a store into `folder`, each object under its name in the release. Raises StoreError."""
    folder.mkdir(parents=True, exist_ok=True)
    version = version_of(training_key)
    manifest = model_key(version, "manifest.json")
    kept = _text(store.kept, manifest)
    published = publish.manifest_of(store, version)
    if published is None:
        prefix = f"{RUN_PREFIX}{training_key[:RUN_KEY_LENGTH]}-"
        journal = Journal(store)
        # A damaged checkpoint is none: nothing resumes from it, and the job's other results are kept.
        count = sum(journal.read(run.id).checkpoint is not None for run in journal.runs_of(training_key))
        if count:
            pack(store, prefix, folder / asset_name(unfinished_key(training_key)))
        return Packed(unfinished=count)
    keys = [INDEX_KEY, *ALIASES, manifest]
    if kept is None:
        keys += [model_key(version, file.name) for file in published.files]
        keys.append(model_key(version, PREDICTIONS))
        own = [t for t in timings(store) if t.run.startswith(f"{training_key[:RUN_KEY_LENGTH]}-")]
        # Times of other trainings are in the release already.
        (folder / asset_name(KEPT)).write_bytes(to_json(KeptTimings(timings=tuple(own[-1:]))))
    for key in keys:
        # There may be no picture; no version may have been good enough for `stable` yet, or each one was.
        with suppress(ObjectMissingError):
            store.download(key, folder / asset_name(key))
    moved = any(_text(store.kept, key) != _text(store, key) for key in (INDEX_KEY, *ALIASES))
    return Packed(version if kept is None else None, moved=moved)


def _text(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.read(key)[0]
    except ObjectMissingError:
        return None
