"""The content of a model's page, from the registry and the run of the version in use."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import ValidationError

from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.index import entry_of, manifest_of, versions
from gpu_offload.orchestrator.registry.manifest import (
    CANDIDATE,
    STABLE,
    Alias,
    IndexEntry,
    Manifest,
    model_key,
)
from gpu_offload.orchestrator.report.picture import LARGEST_PICTURE, PNG, read_picture
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.remote_job.result import PREDICTIONS, TrainingResult


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A model and its versions, newest first."""

    name: str
    """Of the model: its repository, or its project."""
    versions: tuple[IndexEntry, ...] = ()
    stable: Alias | None = None
    """The alias, None where there is none; `candidate` likewise."""
    candidate: Alias | None = None
    manifest: Manifest | None = None
    """Of the version in use, else of the newest one that is there."""
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of its training, where its run is still in the store."""
    picture: bytes | None = None
    address: Callable[[str], str | None] = lambda _: None
    """The public address of a file by its key, None where there is none."""
    home: str | None = None
    """The public address of the page's own folder, None where it is not known."""
    base: str | None = None
    """The public address of the store, for an application's client."""

    @property
    def shown(self) -> IndexEntry | None:
        """The entry of the manifest's version."""
        return entry_of(self.versions, self.manifest.version) if self.manifest else None

    def state(self, entry: IndexEntry) -> str:
        """Return what a version is now, in a word or two."""
        if entry.deleted:
            return "deleted"
        if entry.yanked is not None:
            return f"yanked: {entry.yanked.why}"
        names = ((STABLE, self.stable), (CANDIDATE, self.candidate))
        meant = (name for name, alias in names if alias is not None and alias.version == entry.version)
        return next(meant, "")


def read_site(
    store: ObjectStore,
    *,
    address: Callable[[str], str | None],
    base: str | None,
    home: str | None = None,
    is_private: bool = False,
    project: str,
) -> ModelPage:
    """Read what is published; `home` is the page's own public address. Raises StoreError, RegistryError."""
    entries = versions(store)
    stable, candidate = alias_of(store, STABLE), alias_of(store, CANDIDATE)
    usable = [entry.version for entry in reversed(entries) if entry.is_usable]
    wanted = [stable.version] if stable is not None and stable.version in usable else usable
    found = (manifest_of(store, version) for version in wanted)
    manifest = next((each for each in found if each is not None), None)
    name = (manifest.repository if manifest else None) or project
    result = _result(store, manifest) if manifest else None
    picture = None if manifest is None or is_private else _picture(store, manifest, result)
    return ModelPage(
        name=name,
        versions=tuple(reversed(entries)),
        stable=stable,
        candidate=candidate,
        manifest=manifest,
        curves=result.curves if result else {},
        picture=picture,
        address=address,
        home=home,
        base=base,
    )


def _result(store: ObjectStore, manifest: Manifest) -> TrainingResult | None:
    """Return the result that a version was published from; pruned, private or another's: None."""
    with suppress(StoreError, ValidationError):
        body, _ = store.read(run_key(manifest.run, "result/result.json"))
        result = TrainingResult.model_validate_json(body)
        return result if result.training_key == manifest.training_key else None
    return None


def _picture(store: ObjectStore, manifest: Manifest, result: TrainingResult | None) -> bytes | None:
    if (drawn := read_picture(store, manifest.run, result)) is not None:
        return drawn
    with suppress(StoreError):
        # The copy of the version outlives its run.
        key = model_key(manifest.version, PREDICTIONS)
        info = store.stat(key)
        if info is not None and info.size <= LARGEST_PICTURE:
            body, _ = store.read(key)
            return body if body.startswith(PNG) else None
    return None
