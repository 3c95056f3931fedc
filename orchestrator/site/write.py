"""Writes a model's page and feed into a folder or the store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.registry.stores import public_address
from gpu_offload.orchestrator.registry.swap import swap
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.site.content import read_site
from gpu_offload.orchestrator.site.feed import feed_xml
from gpu_offload.orchestrator.site.page import FEED, PAGE, site_html
from gpu_offload.remote_job.files import durable

FOLDER = "site"
"""Where page and feed are in the store."""


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """The addresses of page and feed."""

    page: str
    feed: str

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {"page": self.page, "feed": self.feed}

    def text(self) -> str:
        """Return it as text for people."""
        return f"page: {self.page}\nfeed: {self.feed}"


def write_site(
    store: ObjectStore, settings: Settings, folder: Path | None, *, is_private: bool = False
) -> WrittenPage:
    """Write page and feed into a folder, or below `site/` in the store (None). Raises StoreError, RegistryError."""

    def address(key: str) -> str | None:
        return public_address(settings, store, key)

    index = address("index.json")
    base = index.removesuffix("/index.json") if index else None
    there = address(f"{FOLDER}/{PAGE}") if folder is None else None
    home = there.removesuffix(f"/{PAGE}") if there else None
    site = read_site(
        store, address=address, base=base, home=home, is_private=is_private, project=settings.root.name
    )
    files = {PAGE: site_html(site).encode(), FEED: feed_xml(site)}
    if folder is None:
        for key, body in files.items():
            _replace(store, f"{FOLDER}/{key}", body)
        keys = (f"{FOLDER}/{PAGE}", f"{FOLDER}/{FEED}")
        return WrittenPage(*(address(key) or f"{store.url}/{key}" for key in keys))
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        durable.write(folder / name, body)
    return WrittenPage(str(folder / PAGE), str(folder / FEED))


def _replace(store: ObjectStore, key: str, body: bytes) -> None:
    """Write a document that others may write at the same time; a publisher's role may only do it conditionally."""
    swap(store, key, lambda _there: body)


def update_site(
    store: ObjectStore, settings: Settings, console: Console, *, is_private: bool = False
) -> None:
    """Write the page again after a publication, where the configuration says so; a failure is a warning."""
    if settings.registry.site != "store":
        return
    try:
        written = write_site(store, settings, None, is_private=is_private)
    except (StoreError, RegistryError) as error:
        console.warning(f"the model's page was not written: {error}")
    else:
        console.note(f"page of the model: {written.page}")
