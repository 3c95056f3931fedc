"""The training key: one digest of everything that decides what a training yields."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gpu_offload.remote_job.spec import TRAINING_VERSION

VERSION_LENGTH = 16
"""Hex digits of the training key that name a version: 64 bits, enough for any one repository."""


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """What decides the result of a training; where and when it runs does not.

    The sha256 values are of the user's own model definition, code and requirements; None where there are none.
    """

    fingerprint: str
    task: str
    model: str
    model_definition: str | None
    weights_sha256: str | None
    epochs: int
    image_size: int
    batch: int
    seed: int
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    entrypoint: str | None = None
    entrypoint_sha256: str | None = None
    requirements_sha256: str | None = None
    training_version: str = TRAINING_VERSION


def training_key(inputs: TrainingInputs) -> str:
    """Return 64 hex digits: sha256 over the inputs as canonical JSON (sorted keys, no spaces, ASCII)."""
    values = asdict(inputs)
    if inputs.requirements_sha256 is None:
        # Added in a later version: the keys of trainings without requirements must not change.
        del values["requirements_sha256"]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def version_of(key: str) -> str:
    """Return the name under which the model with this training key is published."""
    return key[:VERSION_LENGTH]
