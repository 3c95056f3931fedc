"""The folder of a training's inputs, which a process with access to the store has downloaded.

<folder>/spec.json      a spec whose inputs are all local and whose store is none; written last
<folder>/dataset/       the training tree
<folder>/weights/       starting weights
<folder>/packages/      what the project's requirements name
<folder>/checkpoint/    the store's checkpoint
<folder>/progress.jsonl, log.txt, heartbeat.json    the traces of the download
<folder>/stop           why the training should stop; absent until it should
<folder>/trouble        what the store refuses at the moment
"""

import contextlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.files.checkpoint import MANIFEST
from gpu_offload.remote_job.result import CheckpointManifest
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec

STOP_INTERVAL = 0.5
"""Seconds between two looks for the file `stop`."""


@dataclass(frozen=True, slots=True)
class InputFolder:
    """A folder of inputs. The training process can read it and not write to it."""

    folder: Path

    @property
    def spec(self) -> Path:
        """The file of the spec to train by."""
        return self.folder / "spec.json"

    def write_spec(self, spec: TrainingSpec, *, tree: Path, weights: Path | None) -> None:
        """Write the spec to train by; from then on the inputs are complete."""
        local = spec.model_copy(
            update={
                "store": None,
                "dataset": DatasetRef(fingerprint=spec.dataset.fingerprint, tree=str(tree)),
                "weights": spec.weights
                and spec.weights.model_copy(update={"path": str(weights), "key": None}),
            }
        )
        durable.write(self.spec, local.model_dump_json(indent=1).encode())

    def manifest(self) -> CheckpointManifest | None:
        """Return the manifest of the checkpoint that was downloaded, None without one."""
        try:
            return CheckpointManifest.model_validate_json(
                (self.folder / "checkpoint" / MANIFEST).read_bytes()
            )
        except (OSError, ValidationError):
            return None

    def continue_traces(self, output: Path) -> bool:
        """Begin a training's progress and log with those of the download; return whether there were any."""
        continued = False
        output.mkdir(parents=True, exist_ok=True)
        for name in ("progress.jsonl", "log.txt"):
            if (self.folder / name).is_file() and not (output / name).exists():
                shutil.copyfile(self.folder / name, output / name)
                continued = True
        return continued

    def ask_to_stop(self, reason: str) -> None:
        """Ask the training to stop, whose process may be another user's; the first reason counts."""
        if not (self.folder / "stop").exists():
            durable.write(self.folder / "stop", reason.encode(), durable=False)

    def note_trouble(self, text: str) -> None:
        """Note what the store refuses, for a driver that looks; an empty text once it takes everything."""
        if text:
            durable.write(self.folder / "trouble", text.encode(), durable=False)
        else:
            (self.folder / "trouble").unlink(missing_ok=True)

    def watch(self, stop: Callable[[str], None]) -> Callable[[], None]:
        """Look for the file `stop` in the background and pass its reason on; return a function that ends the watch."""
        closed = threading.Event()

        def look() -> None:
            while not closed.wait(STOP_INTERVAL):
                with contextlib.suppress(FileNotFoundError):
                    stop((self.folder / "stop").read_text(encoding="utf-8", errors="replace"))
                    return

        threading.Thread(target=look, name="stop-watch", daemon=True).start()
        return closed.set
