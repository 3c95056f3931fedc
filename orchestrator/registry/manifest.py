"""Documents of the registry: manifest, index, alias."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.remote_job.result import LONGEST_NAME, MOST_METRICS, Artifact, Export
from gpu_offload.remote_job.wire import Wire, faults_text

STABLE, CANDIDATE = "stable", "candidate"
"""Aliases. The candidate is the last version that was published and not found good enough for `stable`."""

INDEX_KEY, CARD = "index.json", "README.md"
"""The index; and the model card beside a model, as the Hugging Face Hub names it."""

MODEL_NAME = re.compile(r"model(\.[A-Za-z0-9]{1,16}){0,2}")
"""Names of a model's file: they become paths on the machine that pulls it."""

LONGEST, LONGEST_ALIAS = 4 << 20, 16 << 20
"""Bytes of a manifest, and of an alias with its history: what an application's client reads at most. The index grows."""

T = TypeVar("T", bound=Wire)
Cause = Literal["publish", "promote", "yank", "rollback"]
Usd = Annotated[float, Field(ge=0, le=1e9)]
MetricName = Annotated[str, Field(max_length=LONGEST_NAME)]
Metrics = Annotated[dict[MetricName, float], Field(max_length=MOST_METRICS)]
"""Metrics by name. A training's own words are bounded: every application reads them again with each look at the index."""


class Document(Wire):
    """A document of the registry. A figure that is not finite stays what it is."""

    model_config = ConfigDict(ser_json_inf_nan="constants")


class ManifestEstimate(Wire):
    """What was estimated, and what it took, in seconds."""

    estimated: Interval
    revised: Interval | None = None
    actual: float


class Manifest(Document):
    """Everything about a published version. Public, so it names no host and no account."""

    format: Literal[1] = 1
    version: str
    training_key: str
    fingerprint: str
    run: str
    commit: str | None = None
    repository: str | None = None
    created_at: float
    began_at: float | None = None
    """When its run began, Unix seconds; None in manifests of before."""
    model: Artifact
    """Its name is `model` and the suffix that the training chose: `model.pt` from Ultralytics."""
    license: str | None = None
    """SPDX expression of code and weights, as far as it is known: Ultralytics' models are AGPL-3.0."""
    task: str
    base_model: str
    epochs: int
    epochs_completed: int
    metrics: Metrics
    per_class: dict[str, Metrics] = Field(default_factory=dict)
    seconds: ManifestEstimate
    where: str = Field(max_length=200)
    cost_usd: Usd
    environment: dict[str, Any] = Field(default_factory=dict)
    parent: str | None = None
    """The version that `stable` meant when this one was published."""
    classes: tuple[str, ...] | None = None
    """Names in the order of their numbers; None in manifests of before, as the fields below."""
    images: dict[str, int] | None = None
    image_size: int | None = None
    batch: int | None = None
    seed: int | None = None
    hyperparameters: dict[str, Any] | None = None
    weights_sha256: str | None = None
    """Of the weights that it started from; None: from random ones, or not known."""
    init_from: str | None = None
    warm_starts: int = 0
    """How many trainings in a row continued another one, this one included; 0: it began from other weights."""
    recipe: str | None = None
    """The training key of the same from scratch; None where it did not matter."""
    exports: tuple[Export, ...] = ()
    failed_exports: dict[str, str] = Field(default_factory=dict)
    """Why it is not there in a format that was asked for, by format."""

    @property
    def files(self) -> tuple[Artifact, ...]:
        """The model and its exports."""
        return (self.model, *(export.file for export in self.exports))

    @property
    def has_plain_names(self) -> bool:
        """Whether its files are named as ours are, each otherwise: names become paths on the machine that pulls it."""
        names = [file.name for file in self.files]
        return all(map(MODEL_NAME.fullmatch, names)) and len(set(names)) == len(names)


class Yank(Wire):
    """Why a version must not be used any more."""

    at: float
    by: str
    why: str
    reverted: bool = False
    """Because its data was reverted; it may be used again as soon as its data is back."""


class Named(Document):
    """A version as index and aliases name it. Here and below, old documents lack what has a default."""

    version: str
    sha256: str
    size: int | None = None
    semver: str | None = None
    """Its number, such as 1.4.0; given once, by the registry."""
    file: str = "model.pt"
    """The model's name below the version."""
    exports: dict[str, Artifact] = Field(default_factory=dict)

    @property
    def names(self) -> dict[str, Any]:
        """The fields by which another document names the same version."""
        return {name: getattr(self, name) for name in Named.model_fields}


class IndexEntry(Named):
    """A version as the index lists it."""

    created_at: float
    size: int
    metrics: Metrics
    commit: str | None = None
    training_key: str | None = None
    recipe: str | None = None
    fingerprint: str | None = None
    parent: str | None = None
    where: str | None = Field(default=None, max_length=200)
    cost_usd: Usd | None = None
    yanked: Yank | None = None
    cleared_at: float | None = None
    """When a yank was taken back, Unix seconds."""
    deleted: bool = False
    """Its files are gone; its number stays taken."""

    @property
    def judged_at(self) -> float:
        """When it was last yanked, or a yank taken back; 0 where neither was."""
        return max(self.yanked.at if self.yanked else 0.0, self.cleared_at or 0.0)

    @property
    def is_usable(self) -> bool:
        """Whether an alias may mean it."""
        return self.yanked is None and not self.deleted


class Index(Document):
    """Every version, oldest first."""

    format: Literal[1] = 1
    versions: tuple[IndexEntry, ...] = ()


class Move(Named):
    """A move of an alias to a version: its time, author, reason and evidence."""

    at: float
    rollout: float = Field(default=1.0, ge=0, le=1)
    """The share of installations that it is meant for; the others stay with the version before."""
    cause: Cause = "publish"
    by: str = ""
    why: str = ""
    evidence: dict[str, Any] | None = None
    commit: str | None = None
    """Of a rollback: the commit that took data back; None where a person asked for it."""


class Alias(Named):
    """Which version a name means now and meant before: all that an application reads (`client.model_client`)."""

    format: Literal[1] = 1
    name: str
    moved_at: float
    rollout: float = 1.0
    minimum: str | None = None
    """The lowest version that an installation may still use."""
    yanked: dict[str, str] = Field(default_factory=dict)
    """Why, by version: the index's yanks when the alias was written."""
    serial: int = 0
    """Grows with each change, so that an application recognises the outdated answer of a cache."""
    history: tuple[Move, ...] = ()
    """Oldest first; the last is what the alias means now."""

    @property
    def moves(self) -> tuple[Move, ...]:
        """The history; for an alias of the earlier format, its one move."""
        return self.history or (Move(at=self.moved_at, **self.names, why="before histories were kept"),)

    def at(self, time: float) -> Move | None:
        """Return what the alias meant at a time (Unix seconds), None where it did not exist yet."""
        return next((move for move in reversed(self.moves) if move.at <= time), None)

    def has_meant(self, version: str) -> bool:
        """Whether the alias means a version, or did."""
        return any(move.version == version for move in self.moves)

    def rollback_since(self, began_at: float, knows: Callable[[str], bool]) -> Move | None:
        """Return the newest rollback after a training began (Unix seconds) that its commit does not know, else None."""
        later = (move for move in reversed(self.moves) if move.cause == "rollback" and move.at > began_at)
        return next((move for move in later if move.commit is None or not knows(move.commit)), None)


class RegistryError(OffloadError):
    """The registry does not hold what was asked for, or holds something that it should not."""


def model_key(version: str, name: str = "model.pt") -> str:
    """Return the store key of a version's file."""
    return f"models/{version}/{name}"


def alias_key(name: str) -> str:
    """Return the store key of an alias."""
    return f"aliases/{name}.json"


def to_json(document: Wire) -> bytes:
    """Return a document as the registry stores it: a manifest for people, too, others in few bytes."""
    wide = isinstance(document, Manifest)
    return (document.model_dump_json(indent=1 if wide else None, exclude_none=not wide) + "\n").encode()


def parse(kind: type[T], key: str, body: bytes) -> T:
    """Read a document of the registry. Raises RegistryError where it is another one, or longer than it can be."""
    if kind is not Index and len(body) > (LONGEST_ALIAS if kind is Alias else LONGEST):
        raise RegistryError(f"{key} has {len(body):,} bytes, more than any {kind.__name__}: it was replaced")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        text = f"{key} is no {kind.__name__} that this version understands ({faults_text(error)})"
        raise RegistryError(text) from error
