"""The folders and lists that an Ultralytics `data.yaml` names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpu_offload.dataset.finding import Findings, error, warning
from gpu_offload.dataset.layout import split_named
from gpu_offload.dataset.written_path import first_link, is_broken_link, last_parts, leads_out, resolve
from gpu_offload.dataset.yaml_values import Value

_MAX_SOURCES: Final = 1_000


@dataclass(frozen=True, slots=True)
class KeyFindings:
    """Findings about the keys of one file, with their lines."""

    file: str
    lines: Mapping[str, int]
    found: Findings = field(default_factory=Findings)

    def fail(self, key: str, code: str, message: str) -> None:
        """Report a fault of a key."""
        self.found.append(error(self.file, code, message, self.lines.get(key)))

    def warn(self, key: str, code: str, message: str) -> None:
        """Report a doubt about a key."""
        self.found.append(warning(self.file, code, message, self.lines.get(key)))


class SourceReader:
    """Resolves `path`, `train`, `val` and `test` of the file in `folder`; reports what it refuses."""

    def __init__(self, folder: Path, values: Mapping[str, Value], findings: KeyFindings) -> None:
        self._folder = folder
        self._values = values
        self._findings = findings

    def base(self) -> str | None:
        """Return the folder that the others are relative to; a fault and None where it is not to be found."""
        value = self._values.get("path")
        if value is None:
            return ""
        if not isinstance(value, str):
            self._findings.fail(
                "path", "malformed-yaml", "path must be text; leave it out for the folder of this file"
            )
            return None
        folder = self._folder
        written = value.replace("\\", "/")
        found = resolve(folder, written)
        if found is None:
            # Many files name their own folder as it was called on another machine, or below Ultralytics' datasets.
            own = written.rstrip("/").rpartition("/")[2] == folder.resolve().name
            below = [
                *(end for end in last_parts(folder, written) if self._is_here(folder / end)),
                *([""] if own or (".." not in written and self._is_here(folder)) else []),
            ]
            if not below:
                what = "leads out of this file's folder" if ".." in written else "does not exist here"
                message = (
                    f"path {value[:200]!r} {what}; put this file into the folder that path means and remove "
                    "path, or write a path below this file's folder"
                )
                self._findings.fail(
                    "path", "missing-path" if ".." not in written else "outside-path", message
                )
                return None
            found = below[0]  # the longest end of the path that exists here
            self._findings.warn(
                "path", "moved-path", f"path {value[:200]!r} is read as {found or '.'!r}; write it so"
            )
        return None if self._is_linked("path", found, "") else found

    def _is_here(self, folder: Path) -> bool:
        """Whether the training images are below `folder`."""
        value = self._values.get("train")
        first = value[0] if isinstance(value, list) and value else value
        return isinstance(first, str) and bool(resolve(folder, first) or last_parts(folder, first))

    def sources(self, split: str, base: str) -> tuple[str, ...]:
        """Return the sources of a split, relative to `base`; none where a fault was reported."""
        value = self._values.get(split)
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        if not 0 < len(items) <= _MAX_SOURCES or not all(isinstance(item, str) and item for item in items):
            self._findings.fail(
                split, "malformed-yaml", f"{split} must be a folder, a .txt list, or a list of these"
            )
            return ()
        found = [self._source(split, str(item), base) for item in items]
        return tuple(item for item in found if item is not None)

    def _source(self, key: str, value: str, base: str) -> str | None:
        """Return a path relative to the file's folder and `base`, normalised; a fault and None for any other."""
        folder = self._folder / base
        written = value.replace("\\", "/")
        found = resolve(folder, written)
        if found is None:
            # Roboflow writes ../train/images for a folder beside data.yaml; Ultralytics reads it so, too.
            below = [
                end
                for end in last_parts(folder, written)
                if "/" in end or written.startswith("..") or split_named(end) == key
            ]
            if below:  # one folder of a longer path could be any, but for one called like the split
                found = below[0]
                code = "parent-path" if written.startswith("..") else "moved-path"
                self._findings.warn(key, code, f"{value[:200]!r} is read as {found!r}; write it so")
        if found is not None:
            if any(part.endswith(".cache") for part in found.split("/")):
                self._findings.fail(
                    key, "outside-path", f"{value[:200]!r} is named like a cache; rename the folder"
                )
                return None
            return None if self._is_linked(key, found, base) else found
        if is_broken_link(folder, written):
            self._findings.fail(
                key, "symlink", f"{value[:200]!r} leads through a symlink; put the real folder there"
            )
        elif key == "test":
            message = (
                f"{value[:200]!r} does not exist; training needs no test images, restore them or remove test"
            )
            self._findings.warn(key, "missing-test", message)
        elif leads_out(written):
            message = (
                f"{value[:200]!r} leads out of the dataset; write a path relative to this file, without '..'"
            )
            self._findings.fail(key, "outside-path", message)
        else:
            self._findings.fail(key, "missing-path", f"{value[:200]!r} does not exist; correct the path")
        return None

    def _is_linked(self, key: str, found: str, base: str) -> bool:
        if first_link(self._folder / base, found) is None:
            return False
        message = f"{found[:200]!r} leads through a symlink; put the real folder there"
        self._findings.fail(key, "symlink", message)
        return True
