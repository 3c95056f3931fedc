"""Documents of the registry: manifest, index, alias."""

import json
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.remote_job.result import Artifact
from gpu_offload.remote_job.wire import Wire

STABLE = "stable"

INDEX_KEY = "index.json"

T = TypeVar("T", bound=Wire)


class ManifestEstimate(Wire):
    """What was estimated, and what it took, in seconds."""

    estimated: Interval
    actual: float


class Manifest(Wire):
    """Everything about a published version. Public, so it names no host and no account."""

    format: Literal[1] = 1
    version: str
    training_key: str
    fingerprint: str
    run: str
    commit: str | None = None
    repository: str | None = None
    created_at: float
    model: Artifact
    """Its name is `model` and the suffix that the training chose: `model.pt` from Ultralytics."""
    license: str | None = None
    """SPDX expression of code and weights, as far as it is known: Ultralytics' models are AGPL-3.0."""
    task: str
    base_model: str
    epochs: int
    epochs_completed: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] = Field(default_factory=dict)
    seconds: ManifestEstimate
    where: str
    cost_usd: float
    environment: dict[str, Any] = Field(default_factory=dict)


class IndexEntry(Wire):
    """A version as the index lists it."""

    version: str
    created_at: float
    sha256: str
    size: int
    metrics: dict[str, float]
    commit: str | None = None


class Index(Wire):
    """Every version, oldest first."""

    format: Literal[1] = 1
    versions: tuple[IndexEntry, ...] = ()


class Alias(Wire):
    """Which version a name means now."""

    format: Literal[1] = 1
    name: str
    version: str
    sha256: str
    moved_at: float


class RegistryError(OffloadError):
    """The registry does not hold what was asked for, or holds something that it should not."""


def model_key(version: str, name: str = "model.pt") -> str:
    """Return the store key of a version's file."""
    return f"models/{version}/{name}"


def alias_key(name: str) -> str:
    """Return the store key of an alias."""
    return f"aliases/{name}.json"


def to_json(document: Wire) -> bytes:
    """Return a document as the registry stores it."""
    return (json.dumps(document.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def parse(kind: type[T], key: str, body: bytes) -> T:
    """Read a document of the registry."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise RegistryError(
            f"{key} is not a {kind.__name__} that this version understands: {error}"
        ) from error
