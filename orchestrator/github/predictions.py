"""The picture of predictions beside a published model."""

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry.manifest import model_key
from gpu_offload.orchestrator.registry.stores import public_address
from gpu_offload.orchestrator.report.content import Report
from gpu_offload.orchestrator.report.picture import read_picture
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.remote_job.result import PREDICTIONS


def publish_picture(settings: Settings, store: ObjectStore, report: Report, console: Console) -> str | None:
    """Publish the picture that a training drew beside its model; return its address.

    None if there is no picture, or the store is private or refuses it. The job `keep` publishes that of a `KeptFolder`.
    """
    version = report.run.version
    if not isinstance(store, KeptFolder) and not is_public(settings, store, version):
        return None
    body = read_picture(store, report.run.id, report.result)
    if body is None:
        return None
    key = model_key(version, PREDICTIONS)
    try:
        store.create(key, body)
    except StoreError as error:
        console.note(f"no picture of predictions: {error}")
        return None
    return public_address(settings, store, key)


def is_public(settings: Settings, store: ObjectStore, version: str) -> bool:
    """Whether a published version can be read without credentials."""
    address = public_address(settings, store, model_key(version, "manifest.json"))
    if address is None:
        return False
    # Only a request without credentials shows what the bucket's policy allows.
    folder, _, name = address.rpartition("/")
    try:
        open_store(folder).read(name)
    except StoreError:
        return False
    return True
