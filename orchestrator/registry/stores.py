"""The store of a project, and its public address."""

from pathlib import Path

from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.state import check_untracked, made, prepare_state


def store_of(settings: Settings, *, unsigned: bool = False) -> ObjectStore:
    """Open the configured store. Raises StateError where what is in its folder may have come with the checkout."""
    check_store_folder(settings)
    return open_store(
        settings.store_url,
        endpoint_url=settings.store.endpoint_url,
        region=settings.store.region,
        unsigned=unsigned,
    )


def check_store_folder(settings: Settings) -> None:
    """Refuse a folder store that git may have filled, and take over what an earlier version kept in `.offload`.

    Raises:
        StateError: Git tracks files in the folder, or it is reached over a link in the checkout.
    """
    folder = settings.configured_store_folder
    if folder is None:
        return
    state = prepare_state(settings.root, note=Console().note)
    check_untracked(folder, settings.root)
    actual = Path(settings.store_url.removeprefix("file:"))
    if actual.is_relative_to(state):
        made(state, *actual.relative_to(state).parts)


def public_address(settings: Settings, store: ObjectStore, key: str) -> str | None:
    """Return where anybody reads an object of the store, as the settings say or as the store itself does."""
    if settings.store.public_url:
        return open_store(settings.store.public_url).public_url(key)
    return store.public_url(key)
