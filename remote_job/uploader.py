"""Fetches a training's inputs and uploads what it writes, in processes of their own; see docs/instance.md.

The training itself has neither network nor credentials. Another user, who can read its files and not write them,
talks to the store.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job import data, log, requirements, weights
from gpu_offload.remote_job.files.checkpoint import MANIFEST, Checkpoints
from gpu_offload.remote_job.interruption import Interruption
from gpu_offload.remote_job.mirror.inputs import InputFolder
from gpu_offload.remote_job.mirror.session import Mirror
from gpu_offload.remote_job.mirror.target import MirrorError
from gpu_offload.remote_job.mirror.trouble import RefusedByStoreError, Trouble
from gpu_offload.remote_job.progress import Progress
from gpu_offload.remote_job.spec import SpecError, TrainingSpec
from gpu_offload.remote_job.train import outcome_reported, spec_faults

LOOK_INTERVAL = 0.1
"""Seconds between two looks for a new checkpoint, or for the training's end."""


def fetch(
    spec: TrainingSpec,
    store: ObjectStore,
    inputs: InputFolder,
    *,
    emit: Callable[[str], None],
    interruption: Interruption,
    denied_s: float,
) -> None:
    """Download everything that a training needs to `inputs`, verified; only its result if the store has that already.

    Meanwhile the heartbeat reports that the attempt is starting. A later attempt ends it, as do SIGINT and SIGTERM. `emit`
    gets each progress event as a line of JSON. `denied_s` is as for `mirror`.

    Raises:
        SpecError: The spec is faulty.
        InterruptedTrainingError: It was stopped and can be started again.
        RefusedByStoreError: The store denied the heartbeat for that long.
        SupersededError: A later attempt of the run is under way.
        CheckpointMismatchError: The run in the store belongs to another training.
    """
    if faults := spec_faults(spec, has_store=True):
        raise SpecError(faults)
    here = spec.model_copy(update={"output": str(inputs.folder)})
    with log.to(inputs.folder / "log.txt"), interruption.signals():
        progress = Progress(here, emit)
        trouble = Trouble(inputs.note_trouble, interruption.request, denied_s)
        mirror = Mirror(store, here, warn=print, stop=interruption.request, trouble=trouble)
        with outcome_reported(progress, mirror), interruption.unwrapped(), interruption.at_once():
            began = time.perf_counter()
            progress.event("start", epochs=spec.epochs, message=f"attempt {spec.attempt}")
            mirror.start()
            if mirror.fetch_result():
                progress.update(state="finished", epochs_completed=spec.epochs)
                return
            mirror.fetch_checkpoint(Checkpoints.of(spec, inputs.folder, print))
            tree = data.tree(spec.dataset, store=store, output=inputs.folder)
            data.remove_caches(tree)
            folder = inputs.folder / "weights"
            start = weights.local(spec.weights, store=store, folder=folder) if spec.weights else None
            equipped = requirements.with_packages(spec, inputs.folder / "packages")
            inputs.write_spec(equipped, tree=tree, weights=start)
            progress.stage("fetch", time.perf_counter() - began)


def mirror(
    spec: TrainingSpec, store: ObjectStore, inputs: InputFolder, *, until: Path, denied_s: float
) -> None:
    """Send what a training writes to its output, as it writes it, until there is a file `until`; then the rest.

    The training is stopped, through `inputs`, when a later attempt starts or the store has denied its files for `denied_s`
    seconds. Only the training renews its heartbeat: when it hangs or dies, the heartbeat ends.

    Raises:
        MirrorError: Not everything has arrived.
        RefusedByStoreError: The same, and the store denied it for `denied_s`.
        SupersededError: A later attempt of the run is under way.
    """
    trouble = Trouble(inputs.note_trouble, inputs.ask_to_stop, denied_s)
    sender = Mirror(
        store,
        spec,
        warn=_complain,
        stop=inputs.ask_to_stop,
        known=inputs.manifest(),
        trouble=trouble,
    )
    sender.start()
    manifest = Path(spec.output) / "checkpoint" / MANIFEST
    seen: int | None = None
    while not until.exists():
        if (mark := _modified(manifest)) != seen:
            seen = mark
            sender.checkpoint_saved()
        time.sleep(LOOK_INTERVAL)
    missing: MirrorError | None = None
    try:
        # Exit code 0 without a result: the process was ended by code of the user's, such as os._exit(0).
        if not sender.send_result() and _ended_well(until):
            sender.report_failure("the training process exited with code 0 and without a result")
    except MirrorError as error:
        missing = error
    finally:
        complete = sender.close()
    if missing is None and not complete:
        missing = MirrorError("the newest checkpoint did not reach the store")
    if missing is not None:
        raise RefusedByStoreError(sender.given_up) if sender.given_up else missing


def _ended_well(until: Path) -> bool:
    """Return whether the training's exit code, which is what `until` holds, is 0."""
    with contextlib.suppress(OSError):
        return until.read_text().strip() == "0"
    return False


def _modified(path: Path) -> int | None:
    """Return when a name last became another file, in ns; None where there is none."""
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None


def _complain(line: str) -> None:
    sys.stderr.write(f"{line}\n")
