"""The store of a project, and its public address."""

import os.path
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from gpu_offload.infra.github.release_store import open_release
from gpu_offload.infra.store.errors import StoreError, StoreMissingError, StoreUrlError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.infra.store.s3_credentials import is_elsewhere
from gpu_offload.orchestrator.cost.traffic import StorePlace
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.project_states import renamed_note
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.state import check_untracked, make_folder, on_runner, prepare_state


def store_of(settings: Settings, *, unsigned: bool = False) -> ObjectStore:
    """Open the configured store. Raises StateError if the content of its folder may have come with the checkout."""
    check_store_folder(settings)
    return open_store(
        settings.store_url,
        endpoint_url=settings.store.endpoint_url,
        region=settings.store.region,
        unsigned=unsigned,
    )


def existing_store_of(settings: Settings) -> ObjectStore:
    """Open the configured store to read from it. Raises StoreMissingError: a folder outside of the project is missing."""
    store = store_of(settings)
    folder = settings.configured_store_folder
    if folder is not None and not folder.is_relative_to(settings.root.absolute()):
        check_exists(store)
    return store


def check_exists(store: ObjectStore) -> None:
    """Refuse a folder store that does not exist. Raises StoreMissingError."""
    if isinstance(store, FolderStore) and not store.root.is_dir():
        raise StoreMissingError(
            f"there is no folder {store.root}: correct the store's address, or mount its disk; `offload train` makes a new store"
        )


FIT_SERVERS = (
    "use a server that honours conditional writes (AWS, R2, a recent MinIO, Ceph), sftp: or a folder"
)


def check_conditional_writes(settings: Settings, store: ObjectStore) -> None:
    """Refuse a server outside AWS that would let two machines overwrite each other's documents. Raises StoreError."""
    from gpu_offload.infra.store.probe import probe_store

    # AWS honours conditional writes; other servers may ignore them silently.
    if not is_elsewhere(settings.store.endpoint_url):
        return
    if faults := probe_store(store).faults:
        raise StoreError(f"{store.url}: {'; '.join(faults)}. Nothing was started; {FIT_SERVERS}")


def check_store_folder(settings: Settings) -> None:
    """Refuse a folder store that git may have filled; take over an earlier version's `.offload`. Raises StateError."""
    folder = settings.configured_store_folder
    if folder is None:
        return
    state = prepare_state(settings.root, note=Console().note)
    check_untracked(folder, settings.root)
    actual = Path(settings.store_url.removeprefix("file:"))
    there = next(path for path in (actual, *actual.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise StoreUrlError(
            f"store.url: {there} is not a folder, so there can be no store at {actual}; write file:FOLDER"
        )
    if actual.is_relative_to(state):
        _warn_of_rename(settings.root)
        make_folder(state, *actual.relative_to(state).parts)


@cache
def _warn_of_rename(project: Path) -> None:
    """Warn once if a project without models seems to be renamed."""
    if not on_runner(os.environ) and (renamed := renamed_note(project)):
        Console().warning(renamed)


def store_place(settings: Settings, store: ObjectStore, environment: Mapping[str, str]) -> StorePlace:
    """Return where the store is, with the bucket's region, else that of the settings or the environment."""
    if not settings.store_url.startswith("s3:"):
        return StorePlace()
    if is_elsewhere(settings.store.endpoint_url):
        return StorePlace(outside=True)
    configured = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    from gpu_offload.infra.store.s3 import S3Store

    known = store.region() if isinstance(store, S3Store) else None
    return StorePlace(in_aws=True, region=known or settings.store.region or configured or None)


def store_to_change(url: str) -> ObjectStore:
    """Open a store by its URL to change it; a GitHub release with the token of the environment."""
    return open_release(url) or open_store(url)


def public_address(settings: Settings, store: ObjectStore, key: str) -> str | None:
    """Return the public address of an object, from the settings or from the store."""
    if settings.store.public_url:
        return open_store(settings.store.public_url).public_url(key)
    return store.public_url(key)
