"""What an instance reads from the store, staged before it is launched: dataset, weights, the user's own code.

datasets/<fingerprint>.tar          the training tree, the same bytes from every machine
runs/<run>/inputs/<fingerprint>.tar the same, for a run that found the shared one damaged
runs/<run>/inputs/<sha256>.pt       starting weights
runs/<run>/inputs/<sha256>.tar      model definition and training code of the user's
<key>.json                          beside archive and weights: size and etag, noted after the upload
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from gpu_offload.dataset.archive import pack
from gpu_offload.infra.store.errors import ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.plan.candidate import Project
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.remote_job.wire import Wire


def weights_key(run: str, sha256: str) -> str:
    """Return where a run's starting weights are staged."""
    return run_key(run, f"inputs/{sha256}.pt")


def project_key(run: str, project: Project) -> str:
    """Return where a run's own code is staged."""
    return run_key(run, f"inputs/{project.sha256}.tar")


def dataset_keys(run: RunRecord) -> tuple[str, str]:
    """Return where a run's dataset is staged: for all runs; and for this one, where that copy is damaged."""
    shared = run.spec.dataset.archive or f"datasets/{run.fingerprint}.tar"
    return shared, run_key(run.id, f"inputs/{run.fingerprint}.tar")


def staged_dataset(store: ObjectStore, run: RunRecord) -> str:
    """Return the key that an instance of a run reads its dataset from."""
    shared, own = dataset_keys(run)
    return own if store.stat(own) is not None else shared


def note_key(key: str) -> str:
    """Return where size and etag of a staged object are noted."""
    return f"{key}.json"


class StagedNote(Wire):
    """What the store said of an object right after it was staged."""

    format: Literal[1] = 1
    size: int
    etag: str


@dataclass
class Staging:
    """Puts a run's inputs into the store. Harmless to repeat; what is there undamaged is not sent again."""

    store: ObjectStore
    console: Console
    tree: Callable[[], Path]
    """Makes the training tree, if it is not there yet, and returns it."""
    weights: Path | None = None
    project: bytes | None = None
    """What `pack_project` packed."""

    def stage(self, run: RunRecord) -> None:
        """Put everything into the store. Raises StoreError; DatasetError: the dataset changed meanwhile."""
        if not any(self._is_whole(key) for key in dataset_keys(run)):
            self._stage_dataset(*dataset_keys(run))
        if self.weights is not None and run.spec.weights is not None:
            target = weights_key(run.id, run.spec.weights.sha256)
            if not self._is_whole(target):
                self._upload(target, self.weights)
        if self.project is not None and run.project is not None:
            self._put_project(project_key(run.id, run.project), self.project)

    def _is_whole(self, key: str) -> bool:
        """Whether an object has the size and etag noted when it was staged; a damaged one would waste an instance."""
        info = self.store.stat(key)
        if info is None:
            return False
        try:
            note = StagedNote.model_validate_json(self.store.read(note_key(key))[0])
        except (ObjectMissingError, ValidationError):
            return False  # it costs an upload, which is free, and no instance
        if (note.size, note.etag) == (info.size, info.etag):
            return True
        self.console.warning(f"{key} changed since it was staged; staging it again")
        return False

    def _upload(self, key: str, path: Path, *, create: bool = False) -> None:
        info = self.store.upload(key, path, create=create)
        body = StagedNote(size=info.size, etag=info.etag).model_dump_json().encode()
        try:
            self.store.create(note_key(key), body)
        except ObjectExistsError:
            self.store.replace(note_key(key), body, self.store.read(note_key(key))[1])

    def _put_project(self, key: str, project: bytes) -> None:
        try:
            whole = self.store.read(key)[0] == project
        except ObjectMissingError:
            whole = False
        if not whole:
            self.store.put(key, project)

    def _stage_dataset(self, shared: str, own: str) -> None:
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            archive = Path(scratch) / "dataset.tar"
            pack(self.tree(), archive)
            self.console.note(f"staging the dataset: {human_bytes(archive.stat().st_size)}")
            try:
                self._upload(shared, archive, create=True)
            except ObjectExistsError:
                # It is damaged, or nothing was noted of it. The role may not replace it, so the run gets its own.
                self._upload(own, archive)
