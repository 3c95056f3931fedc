"""What an instance reads from the store, put there before it is launched: dataset, weights, the user's own code.

    datasets/<fingerprint>.tar          the training tree, the same bytes from every machine
    runs/<run>/inputs/<sha256>.pt       starting weights
    runs/<run>/inputs/<sha256>.tar      model definition and training code of the user's

Whoever drives the run later, on whatever machine, needs no more than this.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.dataset.archive import pack
from gpu_offload.infra.store.errors import ObjectExistsError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.plan.candidate import Project
from gpu_offload.orchestrator.run.record import RunRecord, run_key


def weights_key(run: str, sha256: str) -> str:
    """Return where a run's starting weights are staged."""
    return run_key(run, f"inputs/{sha256}.pt")


def project_key(run: str, project: Project) -> str:
    """Return where a run's own code is staged."""
    return run_key(run, f"inputs/{project.sha256}.tar")


@dataclass
class Staging:
    """Puts a run's inputs into the store. Harmless to repeat; what is there is not sent again."""

    store: ObjectStore
    console: Console
    tree: Callable[[], Path]
    """Makes the training tree, if it is not there yet, and returns it."""
    weights: Path | None = None
    project: bytes | None = None
    """What `pack_project` packed."""

    def stage(self, run: RunRecord) -> None:
        """See that everything is in the store.

        Raises:
            StoreError: it could not be put there.
            DatasetError: the dataset changed under us.
        """
        key = run.spec.dataset.archive or f"datasets/{run.fingerprint}.tar"
        if self.store.stat(key) is None:
            self._stage_dataset(key)
        if self.weights is not None and run.spec.weights is not None:
            target = weights_key(run.id, run.spec.weights.sha256)
            if self.store.stat(target) is None:
                self.store.upload(target, self.weights)
        if self.project is not None and run.project is not None:
            self.store.create(project_key(run.id, run.project), self.project)

    def _stage_dataset(self, key: str) -> None:
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            archive = Path(scratch) / "dataset.tar"
            pack(self.tree(), archive)
            self.console.note(f"staging the dataset, once: {human_bytes(archive.stat().st_size)}")
            try:
                self.store.upload(key, archive, create=True)
            except ObjectExistsError:
                # An archive of another version of ours; the instance verifies every file in it against
                # the fingerprint, so it serves as well.
                self.console.detail(f"{key} is there already")
