"""A picture of predictions beside a published model."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.release import PREDICTIONS
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.registry import download
from gpu_offload.orchestrator.registry.manifest import RegistryError, model_key
from gpu_offload.orchestrator.registry.stores import public_address
from gpu_offload.orchestrator.settings.load import Settings

PICTURES = 8
TIMEOUT_S = 300


def publish_pictures(planned: Planned, store: ObjectStore, version: str, console: Console) -> str | None:
    """Draw what a model sees on validation images, beside the model in the store; return the picture's address.

    None where it would not be public, for a user's own training, on a machine without Ultralytics, and where drawing failed:
    a picture is no reason for a published model to look failed. The job `keep` publishes a `KeptFolder`'s later.
    """
    if importlib.util.find_spec("ultralytics") is None or planned.settings.training.entrypoint is not None:
        return None
    if not isinstance(store, KeptFolder) and not is_public(planned.settings, store, version):
        return None
    images = [s.image for s in planned.snapshot.samples if s.split == "val"][:PICTURES]
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        model, picture = Path(scratch) / "model.pt", Path(scratch) / PREDICTIONS
        try:
            download.pull(store, version, model)
            command = [
                sys.executable,
                "-P",
                "-m",
                "gpu_offload.remote_job.yolo.prediction",
                str(model),
                str(picture),
            ]
            command += [str(planned.settings.dataset_path / image) for image in images]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
            key = model_key(version, PREDICTIONS)
            store.upload(key, picture, create=True)
            return public_address(planned.settings, store, key)
        except (subprocess.SubprocessError, OSError, StoreError, RegistryError) as error:
            console.note(f"no picture of predictions: {error}")
            return None


def is_public(settings: Settings, store: ObjectStore, version: str) -> bool:
    """Whether a published version can be read without credentials."""
    address = public_address(settings, store, model_key(version, "manifest.json"))
    if address is None:
        return False
    folder, _, name = address.rpartition("/")
    try:
        open_store(folder).read(name)
    except StoreError:
        return False
    return True
