"""A model that was pulled from a store, and what is said of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import one_line
from gpu_offload.orchestrator.registry import download
from gpu_offload.orchestrator.registry.index import entry_of, versions
from gpu_offload.orchestrator.registry.semver import version_text

if TYPE_CHECKING:
    from gpu_offload.client.model_client import Progress


@dataclass(frozen=True, slots=True)
class Pulled:
    """A verified model at `path`; `downloaded` is False if it was there already."""

    version: str
    path: Path
    sha256: str
    downloaded: bool
    semver: str | None = None
    """The version's number; None where the registry gave it none."""

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return asdict(self) | {"path": str(self.path)}

    def text(self) -> str:
        """Return it as text for people."""
        how = "downloaded and verified" if self.downloaded else "is there already"
        return one_line(f"{self.path}: version {version_text(self.version, self.semver)} {how}")


def pulled(
    store: ObjectStore,
    destination: Path,
    version: str,
    export: str | None,
    *,
    progress: "Progress | None",
    signer: str | None,
) -> Pulled:
    """Download a model, in the format that the destination's name means where none is given; see `download.pull`."""
    export = export or download.format_of(destination)
    manifest, path, downloaded = download.pull(
        store, version, destination, export=export, progress=progress, signer=signer
    )
    entry = entry_of(versions(store), manifest.version)
    sha256 = download.file_of(manifest, export).sha256
    return Pulled(manifest.version, path, sha256, downloaded, entry.semver if entry else None)
