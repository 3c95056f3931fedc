"""The difference of two versions: data, settings, metrics."""

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.dataset.snapshot import Snapshot
from gpu_offload.infra.git import git
from gpu_offload.infra.store.errors import ObjectMissingError, StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import one_line
from gpu_offload.orchestrator.output.metrics import digits_of, own_metrics
from gpu_offload.orchestrator.output.units import human_number
from gpu_offload.orchestrator.registry.download import resolve
from gpu_offload.orchestrator.registry.index import versions
from gpu_offload.orchestrator.registry.manifest import Manifest

MOST_IMAGES = 200_000
"""Images of a dataset whose list is kept; a longer list would take tens of MB for each version."""

MOST_BYTES = 1 << 27
"""Bytes of an unpacked list; this program writes no longer one."""

MOST_NAMES = 10
SETTINGS = (
    "task",
    "base_model",
    "classes",
    "epochs",
    "image_size",
    "batch",
    "seed",
    "hyperparameters",
    "weights_sha256",
)

Pair = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Images that were added, removed or changed (picture, label or split); `source` is where this is known from."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    source: str = "the store"


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions, and the pairs (old, new) in which they differ."""

    old: Manifest
    new: Manifest
    data: ImageDifference | None
    """None if neither the store nor git knows."""
    settings: dict[str, Pair]
    metrics: dict[str, Pair]
    per_class: dict[str, dict[str, Pair]]
    numbers: Pair = (None, None)

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        data = self.data
        return {
            "old": self.old.version,
            "new": self.new.version,
            "semver": self.numbers,
            "same_data": self.old.fingerprint == self.new.fingerprint,
            "data": None
            if data is None
            else {"added": data.added, "removed": data.removed, "changed": data.changed},
            "settings": self.settings,
            "metrics": self.metrics,
            "per_class": self.per_class,
        }

    def text(self) -> str:
        """Return it for a person."""
        names = [
            f"{number} ({manifest.version})" if number else manifest.version
            for number, manifest in zip(self.numbers, (self.old, self.new), strict=True)
        ]
        lines = [" -> ".join(names), *self._data()]
        for name, (old, new) in self.settings.items():
            inner = _pairs(old or {}, new or {}) if isinstance(old or new, Mapping) else {name: (old, new)}
            lines += [f"{each}: {_setting(a)} -> {_setting(b)}" for each, (a, b) in inner.items()]
        lines += [_figure(name, pair) for name, pair in self.metrics.items()]
        for label, values in self.per_class.items():
            lines += [_figure(f"{label}: {name}", pair, digits_of(name)) for name, pair in values.items()]
        return "\n".join(map(one_line, lines))

    def _data(self) -> list[str]:
        if self.old.fingerprint == self.new.fingerprint:
            return ["data: the same"]
        if self.data is None:
            return ["data: differs; neither the store nor git knows by which images"]
        data = self.data
        lines = [
            (
                f"data: {len(data.added)} images added, {len(data.removed)} removed, {len(data.changed)} changed "
                f"(known from {data.source})"
            )
        ]
        for sign, names in (("+", data.added), ("-", data.removed), ("~", data.changed)):
            lines += [f"  {sign} {name}" for name in names[:MOST_NAMES]]
            if len(names) > MOST_NAMES:
                lines.append(f"  {sign} ... and {len(names) - MOST_NAMES} more")
        return lines


def difference(store: ObjectStore, old: str, new: str, *, dataset: Path | None = None) -> Difference:
    """Compare two versions or aliases; git shows what changed in `dataset` if the store does not. Raises RegistryError."""
    a, b = resolve(store, old), resolve(store, new)
    number = {entry.version: entry.semver for entry in versions(store)}
    data: ImageDifference | None = ImageDifference()
    if a.fingerprint != b.fingerprint:
        data = _by_store(store, a, b) or (_by_git(dataset, a, b) if dataset else None)
    settings = {name: (x, y) for name in SETTINGS if (x := getattr(a, name)) != (y := getattr(b, name))}
    labels = sorted({*a.per_class, *b.per_class})
    per_class = {label: _pairs(a.per_class.get(label, {}), b.per_class.get(label, {})) for label in labels}
    return Difference(
        a,
        b,
        data,
        settings,
        _pairs(own_metrics(a.metrics), own_metrics(b.metrics)),
        {label: pairs for label, pairs in per_class.items() if pairs},
        (number.get(a.version), number.get(b.version)),
    )


def record_data(store: ObjectStore, fingerprint: str, snapshot: Snapshot) -> None:
    """Keep the list of a dataset's images in the private half of the store, once, for later comparisons."""
    key = data_key(fingerprint)
    if len(snapshot.samples) > MOST_IMAGES or store.stat(key) is not None:
        return
    images = {
        f"{s.split}/{s.image}": [s.image_sha256, s.label_sha256 or "", s.class_index]
        for s in snapshot.samples
    }
    body = json.dumps({"format": 1, "images": images}, separators=(",", ":"), sort_keys=True).encode()
    # Without a time, so that two runs write the same bytes and `create` accepts both.
    store.create(key, gzip.compress(body, mtime=0))


def data_key(fingerprint: str) -> str:
    """Return the store key of a dataset's list of images."""
    return f"datasets/{fingerprint}.json.gz"


def _by_store(store: ObjectStore, a: Manifest, b: Manifest) -> ImageDifference | None:
    old, new = (_images(store, manifest.fingerprint) for manifest in (a, b))
    if old is None or new is None:
        return None
    return ImageDifference(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
    )


def _images(store: ObjectStore, fingerprint: str) -> dict[str, Any] | None:
    """Return the list of a dataset's images; None if there is none, or it cannot be read."""
    try:
        body, _ = store.read(data_key(fingerprint))
        # Bounded, because a small forged file can unpack to any size.
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            text = file.read(MOST_BYTES + 1)
        images = json.loads(text)["images"] if len(text) <= MOST_BYTES else None
    except (ObjectMissingError, StoreDeniedError):
        return None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, LookupError, RecursionError):
        return None  # damaged, or written by another program
    return images if isinstance(images, dict) else None


def _by_git(dataset: Path, a: Manifest, b: Manifest) -> ImageDifference | None:
    if not a.commit or not b.commit or not dataset.exists():
        return None
    folder = dataset if dataset.is_dir() else dataset.parent
    # A renamed image is a removed and an added one, as the store tells it.
    options = ("--name-status", "--no-renames", "-z", "--relative")
    done = git(folder, "diff", *options, "--end-of-options", a.commit, b.commit, "--", ".")
    if done.returncode != 0:
        return None
    words = done.stdout.split("\0")[:-1]
    found: dict[str, list[str]] = {"A": [], "D": [], "M": []}
    for status, name in zip(words[::2], words[1::2], strict=False):
        found.setdefault(status[:1], []).append(name)
    return ImageDifference(
        tuple(found["A"]), tuple(found["D"]), tuple(found["M"]), source="git, labels included"
    )


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Pair]:
    return {
        name: (old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    }


def _setting(value: Any) -> str:
    return "none" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)


def _figure(name: str, pair: Pair, digits: int = 4) -> str:
    old, new = pair
    shown = [human_number(value, digits) if value is not None else "none" for value in pair]
    by = f"  ({new - old:+.{digits}f})" if None not in pair else ""
    return f"{name}: {shown[0]} -> {shown[1]}{by}"
