"""The number of a version, and the rule by which a model that follows another is numbered."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpu_offload.orchestrator.estimate.history import family_of
from gpu_offload.orchestrator.registry.manifest import Manifest

Bump = Literal["major", "minor", "patch"]
FIRST = "1.0.0"
SEMVER = re.compile(r"v?(0|[1-9]\d{0,6})\.(0|[1-9]\d{0,6})\.(0|[1-9]\d{0,6})", re.ASCII)
"""https://semver.org, without pre-releases and builds; git tags put a `v` before it."""

LINE = re.compile(r"v?(0|[1-9]\d{0,6})(?:\.(0|[1-9]\d{0,6}))?(?:\.(0|[1-9]\d{0,6}))?", re.ASCII)
"""A version, or the beginning of one: 1, 1.4, 1.4.0."""


@dataclass(frozen=True, slots=True)
class VersionChange:
    """How far a model is from its parent, and why."""

    bump: Bump
    why: str


def change_of(new: Manifest, parent: Manifest) -> VersionChange:
    """Return how a model differs from its parent. A field that an old manifest lacks counts as unchanged.

    major: task, classes, model family or image size, so that an application may have to change; minor: the data; patch:
    settings or seed.
    """
    reasons = []
    if new.task != parent.task:
        reasons.append(f"task {parent.task} became {new.task}")
    if None not in (new.classes, parent.classes) and new.classes != parent.classes:
        reasons.append(f"classes {_named(parent.classes)} became {_named(new.classes)}")
    if family_of(new.base_model) != family_of(parent.base_model):
        reasons.append(f"model {parent.base_model} became {new.base_model}")
    if None not in (new.image_size, parent.image_size) and new.image_size != parent.image_size:
        reasons.append(f"image size {parent.image_size} became {new.image_size}")
    if reasons:
        return VersionChange("major", "; ".join(reasons))
    if new.fingerprint != parent.fingerprint:
        return VersionChange("minor", "the data changed")
    return VersionChange("patch", "same data, other settings")


def following(bump: Bump, parent: str | None, taken: Iterable[str]) -> str:
    """Return the next free number in the parent's line (None: the first model).

    Numbers are never used twice: after 1.0.0 and a rejected 1.1.0, the next minor change of 1.0.0 is 1.2.0.
    """
    numbers = {parsed for text in taken if (parsed := parse(text)) is not None}
    base = parse(parent or "")
    if base is None and not numbers:
        return FIRST
    major, minor, patch = base or max(numbers)
    # The parent counts as taken even if the index lacks it.
    numbers.add((major, minor, patch))
    if bump == "major":
        major, minor, patch = max(n[0] for n in numbers) + 1, 0, 0
    elif bump == "minor":
        minor, patch = max(n[1] for n in numbers if n[0] == major) + 1, 0
    else:
        patch = max(n[2] for n in numbers if n[:2] == (major, minor)) + 1
    return f"{major}.{minor}.{patch}"


def bump_between(number: str) -> Bump:
    """Return the bump that a number looks like: 2.0.0 is major, 1.3.0 minor, 1.3.1 patch."""
    _, minor, patch = parse(number) or (0, 0, 0)
    return "patch" if patch else "minor" if minor else "major"


def parse(text: str) -> tuple[int, int, int] | None:
    """Return the three numbers of a version, None for any other text."""
    found = SEMVER.fullmatch(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def reaches(semver: str | None, minimum: str | None) -> bool:
    """Whether a version is not below the lowest that may be used; one without a number is below all others."""
    return minimum is None or (parse(semver or "") or (0,)) >= (parse(minimum) or (0,))


def line_of(text: str) -> tuple[int, ...] | None:
    """Return the numbers of a version or of the beginning of one, None for any other text."""
    found = LINE.fullmatch(text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else None


def _named(classes: tuple[str, ...] | None) -> str:
    names = classes or ()
    return ", ".join(names) if len(names) <= 8 else f"{len(names)} names"


def version_text(version: str, semver: str | None) -> str:
    """Return a version's name for a sentence: its number, and its digits in the store."""
    return f"{semver} ({version})" if semver else version


def promotion_hint(name: str) -> str:
    """Return how a candidate becomes `stable`, as part of a sentence."""
    return f"`offload promote {name}` makes it stable"
