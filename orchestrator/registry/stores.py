"""The store of a project, and its public address."""

from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.settings.load import Settings


def store_of(settings: Settings) -> ObjectStore:
    """Open the configured store."""
    return open_store(
        settings.store_url, endpoint_url=settings.store.endpoint_url, region=settings.store.region
    )


def public_address(settings: Settings, store: ObjectStore, key: str) -> str | None:
    """Return where anybody reads an object of the store, as the settings say or as the store itself does."""
    if settings.store.public_url:
        return open_store(settings.store.public_url).public_url(key)
    return store.public_url(key)
