"""An Ultralytics `data.yaml`, read as hostile input: nothing is downloaded, nothing outside its folder is touched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpu_offload.dataset.class_names import MAX_CLASSES, class_name_problems
from gpu_offload.dataset.finding import DatasetError, Finding, Findings, error, some, warning
from gpu_offload.dataset.layout import split_named
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY
from gpu_offload.dataset.written_path import is_broken_link, is_linked, last_parts, leads_out, resolve
from gpu_offload.dataset.yaml_values import Document, Value, YamlError, read_document

MAX_BYTES: Final = 4 << 20
_MAX_SOURCES: Final = 1_000

_SILENT: Final = frozenset(
    {
        "path",
        "train",
        "val",
        "test",
        "names",
        "nc",
        "kpt_shape",
        "flip_idx",
        "kpt_names",
        "license",
        "roboflow",
        "yaml_file",
    }
)


@dataclass(frozen=True, slots=True)
class DataYaml:
    """What the file says. Sources are folders or `.txt` lists, relative to `base`, itself relative to the file."""

    base: str
    sources: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]
    keypoint_shape: tuple[int, int] | None
    flip_idx: tuple[int, ...] | None
    warnings: tuple[Finding, ...] = field(default=())


def read_data_yaml(file: Path) -> DataYaml:
    """Read and check a `data.yaml`.

    A path that is absolute or climbs is tried below the file's own folder first: most public files name a folder of
    the machine that wrote them.

    Raises:
        DatasetError: With every fault and its line: no YAML, a value of the wrong kind, a path that is not to be
            found below the file's folder or leads through a symlink, class names that disagree with `nc`.
    """
    name = file.name
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DatasetError(
                [error(name, "huge-file", f"is larger than {MAX_BYTES >> 20} MiB; a data.yaml is small")]
            )
        text = file.read_text(encoding="utf-8-sig")
        if text.startswith(LFS_POINTER.decode()):
            raise DatasetError(
                [error(name, "lfs-pointer", f"is a pointer of Git LFS, not the file; {LFS_REMEDY}")]
            )
        document = read_document(text)
    except UnicodeDecodeError:
        raise DatasetError([error(name, "malformed-yaml", "is not UTF-8 text; save it as UTF-8")]) from None
    except OSError as fault:
        raise DatasetError([error(name, "unreadable-file", f"cannot be read ({fault.strerror})")]) from None
    except YamlError as fault:
        raise DatasetError([error(name, "malformed-yaml", str(fault), fault.line)]) from None
    return _Reading(file, document).result()


def read_names(file: Path) -> tuple[str, ...]:
    """Return the class names of a description, despite other faults in it; empty if it has none."""
    try:
        if file.is_symlink() or file.stat().st_size > MAX_BYTES:
            return ()
        document = read_document(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, YamlError):
        return ()
    return _Reading(file, document).names()


class _Reading:
    """Goes through the values of one file and collects every fault."""

    def __init__(self, file: Path, document: Document) -> None:
        self._file = file
        self._values = document.values
        self._lines = document.lines
        self._findings = Findings()

    def result(self) -> DataYaml:
        for key in self._values:
            if key == "download":
                message = "download is ignored; nothing is fetched, put the files there yourself"
                self._warn(key, "download", message)
            elif key not in _SILENT:
                self._warn(key, "unknown-key", f"{key[:60]!r} is ignored")
        base = self._base()
        sources: dict[str, tuple[str, ...]] = {"train": (), "val": (), "test": ()}
        if self._values.get("train") is None:
            self._fail("train", "missing-key", "train is missing; name the folder of the training images")
        if base is not None:  # else nothing is known of the folders, and one fault is enough
            sources = {split: self._sources(split, base) for split in sources}
        classes = self._classes()
        shape = self._keypoint_shape()
        flip = self._flip_idx(shape)
        if self._findings.failed:
            raise DatasetError(self._findings)
        return DataYaml(base or "", sources, classes, shape, flip, tuple(self._findings))

    def names(self) -> tuple[str, ...]:
        if self._values.get("names") is None:
            return ()
        names = self._classes()
        return () if self._findings.failed else names

    def _fail(self, key: str, code: str, message: str) -> None:
        self._findings.append(error(self._file.name, code, message, self._lines.get(key)))

    def _warn(self, key: str, code: str, message: str) -> None:
        self._findings.append(warning(self._file.name, code, message, self._lines.get(key)))

    def _base(self) -> str | None:
        """Return the folder that the others are relative to; a fault and None where it is not to be found."""
        value = self._values.get("path")
        if value is None:
            return ""
        if not isinstance(value, str):
            self._fail(
                "path", "malformed-yaml", "path must be text; leave it out for the folder of this file"
            )
            return None
        folder = self._file.parent
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
                self._fail("path", "missing-path" if ".." not in written else "outside-path", message)
                return None
            found = below[0]
            self._warn("path", "moved-path", f"path {value[:200]!r} is read as {found or '.'!r}; write it so")
        return None if self._is_linked("path", found, "") else found

    def _is_here(self, folder: Path) -> bool:
        """Whether the training images are below `folder`."""
        value = self._values.get("train")
        first = value[0] if isinstance(value, list) and value else value
        return isinstance(first, str) and bool(resolve(folder, first) or last_parts(folder, first))

    def _sources(self, split: str, base: str) -> tuple[str, ...]:
        value = self._values.get(split)
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        if not 0 < len(items) <= _MAX_SOURCES or not all(isinstance(item, str) and item for item in items):
            self._fail(split, "malformed-yaml", f"{split} must be a folder, a .txt list, or a list of these")
            return ()
        found = [self._source(split, str(item), base) for item in items]
        return tuple(item for item in found if item is not None)

    def _source(self, key: str, value: str, base: str) -> str | None:
        """Return a path relative to the file's folder and `base`, normalised; a fault and None for any other."""
        folder = self._file.parent / base if base else self._file.parent
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
                self._warn(key, code, f"{value[:200]!r} is read as {found!r}; write it so")
        if found is not None:
            if any(part.endswith(".cache") for part in found.split("/")):
                self._fail(key, "outside-path", f"{value[:200]!r} is named like a cache; rename the folder")
                return None
            return None if self._is_linked(key, found, base) else found
        if is_broken_link(folder, written):
            self._fail(key, "symlink", f"{value[:200]!r} leads through a symlink; put the real folder there")
        elif key == "test":
            message = (
                f"{value[:200]!r} does not exist; training needs no test images, restore them or remove test"
            )
            self._warn(key, "missing-test", message)
        elif leads_out(written):
            message = (
                f"{value[:200]!r} leads out of the dataset; write a path relative to this file, without '..'"
            )
            self._fail(key, "outside-path", message)
        else:
            self._fail(key, "missing-path", f"{value[:200]!r} does not exist; correct the path")
        return None

    def _is_linked(self, key: str, found: str, base: str) -> bool:
        if not is_linked(self._file.parent / base if base else self._file.parent, found):
            return False
        message = f"{found[:200]!r} leads through a symlink; put the real folder there"
        self._fail(key, "symlink", message)
        return True

    def _count(self) -> int | None:
        written = self._values.get("nc")
        count = None if written is None else _whole(written)
        if written is not None and (count is None or not 0 < count <= MAX_CLASSES):
            self._fail("nc", "malformed-yaml", f"nc must be the number of classes, 1 to {MAX_CLASSES}")
            return None
        return count

    def _classes(self) -> tuple[str, ...]:
        names, count = self._values.get("names"), self._count()
        if names is None:
            if self._values.get("nc") is None:
                message = "names is missing; list the class names in the order of their indices"
                self._fail("names", "missing-key", message)
            return tuple(str(index) for index in range(count or 0))
        if isinstance(names, dict):
            indices = {_whole(key): name for key, name in names.items()}
            if None in indices or sorted(filter(None, indices)) != list(range(1, len(names))):
                message = (
                    f"names must number the classes 0 to {len(names) - 1} without a gap, as the labels do; "
                    f"the numbers are {some(map(str, names))}"
                )
                self._fail("names", "malformed-yaml", message)
                return ()
            names = [indices[index] for index in range(len(indices))]
        if not isinstance(names, list) or not names:
            self._fail("names", "malformed-yaml", "names must be a list, or a mapping from index to name")
            return ()
        if not all(isinstance(item, str) for item in names):
            self._fail("names", "malformed-yaml", "every class name must be text; put quotes around it")
            return ()
        classes = tuple(str(item) for item in names)
        for problem in class_name_problems(classes):
            self._fail("names", "malformed-yaml", problem)
        if count is not None and count != len(classes):
            message = f"nc is {count}, but {len(classes)} classes are named; correct one"
            self._fail("nc", "malformed-yaml", message)
        return classes

    def _integers(self, key: str, wanted: str, accept: Callable[[list[int]], bool]) -> tuple[int, ...] | None:
        value = self._values.get(key)
        if value is None:
            return None
        numbers = [_whole(item) for item in value] if isinstance(value, list) else [None]
        if None not in numbers and accept([number for number in numbers if number is not None]):
            return tuple(number for number in numbers if number is not None)
        self._fail(key, "malformed-yaml", f"{key} must be {wanted}")
        return None

    def _keypoint_shape(self) -> tuple[int, int] | None:
        shape = self._integers(
            "kpt_shape",
            "[number of keypoints, 2 or 3]",
            lambda value: len(value) == 2 and 1 <= value[0] <= 10_000 and value[1] in (2, 3),
        )
        return (shape[0], shape[1]) if shape is not None else None

    def _flip_idx(self, shape: tuple[int, int] | None) -> tuple[int, ...] | None:
        count = shape[0] if shape is not None else 0
        wanted = f"an order of the {count} keypoints of kpt_shape, each once"
        return self._integers("flip_idx", wanted, lambda value: sorted(value) == list(range(count)))


def _whole(value: Value) -> int | None:
    """Return a whole number from 0; None for anything else."""
    text = value if isinstance(value, str) else ""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None
