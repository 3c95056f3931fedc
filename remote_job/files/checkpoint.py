"""Checkpoints on disk: complete at any instant, verified before they count, the last two kept.

Each checkpoint is a content-named file beside a manifest of its own (`epoch-0003-1a2b3c4d.pt`,
`epoch-0003-1a2b3c4d.json`); `manifest.json` is a copy of the newest one. Content names make a repeated epoch
harmless: a new file never replaces one that a manifest still names.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.files.artifact import fault
from gpu_offload.remote_job.result import Artifact, CheckpointManifest
from gpu_offload.remote_job.spec import TrainingSpec

MANIFEST = "manifest.json"
KEEP = 2
_POSITION = attrgetter("position")


class CheckpointMismatchError(OffloadError):
    """The folder holds the checkpoint of another training."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint: its manifest and the files that the manifest names."""

    manifest: CheckpointManifest
    last: Path
    best: Path | None


class Checkpoints:
    """The checkpoints of one run below one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        attempt: int,
        training_key: str,
        epochs: int,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.folder = folder
        self._run = run
        self._attempt = attempt
        self._training_key = training_key
        self._epochs = epochs
        self._warn = warn
        self._best: Artifact | None = None

    @classmethod
    def of(
        cls, spec: TrainingSpec, folder: Path, warn: Callable[[str], None] = lambda _text: None
    ) -> "Checkpoints":
        """Return the checkpoints of a training, in `checkpoint` below a folder."""
        return cls(
            folder / "checkpoint",
            run=spec.run,
            attempt=spec.attempt,
            training_key=spec.training_key,
            epochs=spec.epochs,
            warn=warn,
        )

    def save(
        self,
        last: bytes | memoryview,
        *,
        epochs_completed: int,
        seconds: float,
        batches_completed: int = 0,
        best: bytes | memoryview | None = None,
        curves: Mapping[str, tuple[float, ...]] | None = None,
    ) -> CheckpointManifest:
        """Store a checkpoint, make it the newest, and drop what is older than the previous one.

        Args:
            last: The serialised training state.
            epochs_completed: Epochs that are behind it.
            seconds: Wall seconds of training behind it, over all attempts.
            batches_completed: Batches of the epoch in progress that are behind it too.
            best: The serialised best model where this checkpoint brings a new one; otherwise the last
                one stays.
            curves: Metrics and losses of the epochs behind it, by name.
        """
        stem = f"epoch-{epochs_completed:04d}"
        if batches_completed:
            stem += f"b{batches_completed:06d}"
        # Files first, then manifests: a process killed in between leaves files that no manifest names.
        last_file = self._store(stem, last)
        if best is not None:
            self._best = self._store(f"best-{epochs_completed:04d}", best)
        manifest = CheckpointManifest(
            run=self._run,
            attempt=self._attempt,
            training_key=self._training_key,
            epochs_completed=epochs_completed,
            batches_completed=batches_completed,
            epochs=self._epochs,
            last=last_file,
            best=self._best,
            seconds=seconds,
            curves=dict(curves or {}),
        )
        self.adopt(manifest)
        self._prune(manifest)
        return manifest

    def adopt(self, manifest: CheckpointManifest) -> None:
        """Make a checkpoint whose files are in the folder the newest one."""
        body = manifest.model_dump_json(indent=1).encode()
        durable.write(self.folder / f"{Path(manifest.last.name).stem}.json", body)
        durable.write(self.folder / MANIFEST, body)
        self._best = manifest.best

    def take(self, others: "Checkpoints") -> None:
        """Copy the newest checkpoint of another folder if it is further than ours.

        Raises CheckpointMismatchError where either belongs to a training with another key.
        """
        theirs, ours = others.load(), self.load()
        if theirs is None or (ours is not None and ours.manifest.position >= theirs.manifest.position):
            return
        for path in filter(None, (theirs.last, theirs.best)):
            durable.copy(path, self.folder / path.name)
        self.adopt(theirs.manifest)

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none.

        A damaged one is skipped with a warning. Raises CheckpointMismatchError where the checkpoint
        belongs to a training with another key.
        """
        if not self.folder.is_dir():
            return None
        durable.sweep(self.folder)
        damaged: list[CheckpointManifest] = []
        for manifest in sorted(self._manifests(), key=_POSITION, reverse=True):
            if manifest.training_key != self._training_key:
                raise CheckpointMismatchError(
                    f"{self.folder}: holds the checkpoint of another training (key {manifest.training_key}, "
                    f"this one's is {self._training_key}); use another output folder, or remove this one"
                )
            faults = (fault(self.folder, artifact) for artifact in manifest.artifacts)
            found = next(filter(None, faults), None)
            if found is None:
                # Else manifest.json would go on naming the damaged one.
                if damaged:
                    self.adopt(manifest)
                    for other in damaged:
                        (self.folder / f"{Path(other.last.name).stem}.json").unlink(missing_ok=True)
                self._best = manifest.best
                best = self.folder / manifest.best.name if manifest.best else None
                return Checkpoint(manifest, self.folder / manifest.last.name, best)
            damaged.append(manifest)
            self._warn(
                f"checkpoint after epoch {manifest.epochs_completed} is damaged and was skipped: {found}"
            )
        return None

    def _store(self, stem: str, data: bytes | memoryview) -> Artifact:
        digest = hashlib.sha256(data).hexdigest()
        artifact = Artifact(name=f"{stem}-{digest[:8]}.pt", size=len(data), sha256=digest)
        durable.write(self.folder / artifact.name, data)
        return artifact

    def _manifests(self) -> Iterable[CheckpointManifest]:
        """Yield the readable manifests, `manifest.json` and the checkpoints' own, each once."""
        seen: list[CheckpointManifest] = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                manifest = CheckpointManifest.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                self._warn(f"{path}: not a checkpoint manifest, skipped ({str(error).splitlines()[0]})")
                continue
            if manifest not in seen:
                seen.append(manifest)
                yield manifest

    def _prune(self, newest: CheckpointManifest) -> None:
        """Remove all but the newest checkpoints; manifests go first, so that none names a missing file.

        Damaged ones may be as far as the newest, and are still there where no whole one was.
        """
        others = sorted((m for m in self._manifests() if m != newest), key=_POSITION, reverse=True)
        kept = [newest, *others][:KEEP]
        names = {artifact.name for manifest in kept for artifact in manifest.artifacts}
        manifests = {MANIFEST, *(f"{Path(manifest.last.name).stem}.json" for manifest in kept)}
        for path in sorted(self.folder.glob("*.json")):
            if path.name not in manifests:
                path.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("*.pt")):
            if path.name not in names:
                path.unlink(missing_ok=True)
