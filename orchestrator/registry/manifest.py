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
"""Aliases. The candidate is the newest version that was not good enough for `stable`."""

INDEX_KEY, CARD = "index.json", "README.md"
"""The index; and the model card beside a model, as the Hugging Face Hub names it."""

MODEL_NAME = re.compile(r"model(\.[A-Za-z0-9]{1,16}){0,2}")
"""Names of model files. They become paths on the machine that pulls them."""

LONGEST, LONGEST_ALIAS = 4 << 20, 16 << 20
"""Bytes of a manifest, and of an alias with its history: an application's client reads no longer ones."""

T = TypeVar("T", bound=Wire)
Cause = Literal["publish", "promote", "yank", "rollback"]
Usd = Annotated[float, Field(ge=0, le=1e9)]
MetricName = Annotated[str, Field(max_length=LONGEST_NAME)]
Metrics = Annotated[dict[MetricName, float], Field(max_length=MOST_METRICS)]
"""Metrics by name. They are bounded because a training chooses the names, and applications read them with each index."""


class Document(Wire):
    """A document of the registry. NaN and infinity are written as such."""

    model_config = ConfigDict(ser_json_inf_nan="constants")


class ManifestEstimate(Wire):
    """Estimated and actual seconds of a training."""

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
    """When its run began, Unix seconds; None in old manifests."""
    model: Artifact
    """Named `model` with the suffix that the training chose: `model.pt` from Ultralytics."""
    license: str | None = None
    """SPDX expression of code and weights, if known: Ultralytics' models are AGPL-3.0."""
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
    """Names in the order of their numbers; None in old manifests, as the fields below."""
    images: dict[str, int] | None = None
    image_size: int | None = None
    batch: int | None = None
    seed: int | None = None
    hyperparameters: dict[str, Any] | None = None
    weights_sha256: str | None = None
    """The sha256 of the weights that it started from; None: random ones, or unknown."""
    init_from: str | None = None
    warm_starts: int = 0
    """How many trainings in a row started from the version before, this one included; 0: it did not."""
    recipe: str | None = None
    """The training key of the same training from scratch; None if the settings ask for no warm start."""
    exports: tuple[Export, ...] = ()
    failed_exports: dict[str, str] = Field(default_factory=dict)
    """Why an export that was asked for is missing, by format."""

    @property
    def files(self) -> tuple[Artifact, ...]:
        """The model and its exports."""
        return (self.model, *(export.file for export in self.exports))

    @property
    def has_plain_names(self) -> bool:
        """Whether its files have distinct names of the form that we give, which are safe as paths."""
        names = [file.name for file in self.files]
        return all(map(MODEL_NAME.fullmatch, names)) and len(set(names)) == len(names)


class Yank(Wire):
    """When and why a version was withdrawn."""

    at: float
    by: str
    why: str
    reverted: bool = False
    """Its data was reverted; it may be used again once its data is back."""


class Named(Document):
    """A version as the index and the aliases name it. Old documents lack the fields with a default."""

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
    """The share of installations that get it; the others stay with the version before."""
    cause: Cause = "publish"
    by: str = ""
    why: str = ""
    evidence: dict[str, Any] | None = None
    commit: str | None = None
    """The commit that took data back, for a rollback; None if a person asked for it."""


class Alias(Named):
    """The version that a name means now, and its history: all that an application's client reads."""

    format: Literal[1] = 1
    name: str
    moved_at: float
    rollout: float = 1.0
    minimum: str | None = None
    """The lowest version that an installation may still use."""
    yanked: dict[str, str] = Field(default_factory=dict)
    """Versions of the index that must not be used, with the reason, when the alias was written."""
    serial: int = 0
    """Grows with each change, so that an application recognises the outdated answer of a cache."""
    history: tuple[Move, ...] = ()
    """Oldest first; the last is what the alias means now."""

    @property
    def moves(self) -> tuple[Move, ...]:
        """The history; of an alias without one, its single move."""
        return self.history or (Move(at=self.moved_at, **self.names, why="before histories were kept"),)

    def at(self, time: float) -> Move | None:
        """Return the alias's last move at a time (Unix seconds), None if it did not exist yet."""
        return next((move for move in reversed(self.moves) if move.at <= time), None)

    def has_meant(self, version: str) -> bool:
        """Whether the alias means or meant a version."""
        return any(move.version == version for move in self.moves)

    def rollback_since(self, began_at: float, knows: Callable[[str], bool]) -> Move | None:
        """Return the newest rollback after a training began (Unix seconds) that its commit does not contain, else None."""
        later = (move for move in reversed(self.moves) if move.cause == "rollback" and move.at > began_at)
        return next((move for move in later if move.commit is None or not knows(move.commit)), None)


class RegistryError(OffloadError):
    """The registry lacks what was asked for, or a document of it is wrong."""


def model_key(version: str, name: str = "model.pt") -> str:
    """Return the store key of a version's file."""
    return f"models/{version}/{name}"


def alias_key(name: str) -> str:
    """Return the store key of an alias."""
    return f"aliases/{name}.json"


def to_json(document: Wire) -> bytes:
    """Return a document as the registry stores it: a manifest indented for people, others compact."""
    wide = isinstance(document, Manifest)
    return (document.model_dump_json(indent=1 if wide else None, exclude_none=not wide) + "\n").encode()


def parse(kind: type[T], key: str, body: bytes) -> T:
    """Parse a document of the registry. Raises RegistryError if it is too long or of another form."""
    if kind is not Index and len(body) > (LONGEST_ALIAS if kind is Alias else LONGEST):
        raise RegistryError(f"{key} has {len(body):,} bytes, more than any {kind.__name__}: it was replaced")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        text = f"{key} is no {kind.__name__} that this version understands ({faults_text(error)})"
        raise RegistryError(text) from error
