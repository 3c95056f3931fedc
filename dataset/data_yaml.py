"""An Ultralytics `data.yaml`, read as hostile input: nothing is downloaded, nothing outside its folder is touched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_offload.dataset.class_names import MAX_CLASSES, class_name_problems
from gpu_offload.dataset.finding import DatasetError, Finding, FormError, error, some
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY
from gpu_offload.dataset.yaml_sources import KeyFindings, SourceReader
from gpu_offload.dataset.yaml_values import Document, Value, read_document

MAX_BYTES: Final = 4 << 20

_SILENT: Final = frozenset(
    {
        *("path", "train", "val", "test", "names", "nc", "kpt_shape", "flip_idx"),
        *("kpt_names", "license", "roboflow", "yaml_file"),
    }
)
"""Keys that are read, and keys of tools that are known to mean nothing for a training."""


@dataclass(frozen=True, slots=True)
class DataYaml:
    """What the file says. Sources are folders or `.txt` lists, relative to `base`, itself relative to the file."""

    base: str
    sources: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]
    keypoint_shape: tuple[int, int] | None
    flip_idx: tuple[int, ...] | None
    warnings: tuple[Finding, ...] = ()


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
    except FormError as fault:
        raise DatasetError([error(name, "malformed-yaml", str(fault), fault.line)]) from None
    return _DataYamlReader(file, document).result()


def read_names(file: Path) -> tuple[str, ...]:
    """Return the class names of a description, despite other faults in it; empty if it has none."""
    try:
        if file.is_symlink() or file.stat().st_size > MAX_BYTES:
            return ()
        document = read_document(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, FormError):
        return ()
    return _DataYamlReader(file, document).names()


def describes_dataset(file: Path) -> bool:
    """Whether a YAML file can be read as the description of a dataset in its folder."""
    try:
        read_data_yaml(file)
    except DatasetError:
        return False
    return True


class _DataYamlReader:
    """Reads the values of one file and collects every fault."""

    def __init__(self, file: Path, document: Document) -> None:
        if "val" not in document.values and "validation" in document.values:
            # Ultralytics renames the key, too (`check_det_dataset` of 8.4).
            document.values["val"] = document.values.pop("validation")
            document.lines["val"] = document.lines.pop("validation")
        self._values = document.values
        self._findings = KeyFindings(file.name, document.lines)
        self._sources = SourceReader(file.parent, document.values, self._findings)

    def result(self) -> DataYaml:
        for key in self._values:
            if key == "download":
                message = "download is ignored; nothing is fetched, put the files there yourself"
                self._findings.warn(key, "download", message)
            elif key not in _SILENT:
                self._findings.warn(key, "unknown-key", f"{key[:60]!r} is ignored")
        base = self._sources.base()
        sources: dict[str, tuple[str, ...]] = {"train": (), "val": (), "test": ()}
        if self._values.get("train") is None:
            self._findings.fail(
                "train", "missing-key", "train is missing; name the folder of the training images"
            )
        if base is not None:  # else nothing is known of the folders, and one fault is enough
            sources = {split: self._sources.sources(split, base) for split in sources}
        classes = self._classes()
        shape = self._keypoint_shape()
        flip = self._flip_idx(shape)
        if self._findings.found.failed:
            raise DatasetError(self._findings.found)
        return DataYaml(base or "", sources, classes, shape, flip, tuple(self._findings.found))

    def names(self) -> tuple[str, ...]:
        if self._values.get("names") is None:
            return ()
        names = self._classes()
        return () if self._findings.found.failed else names

    def _count(self) -> int | None:
        written = self._values.get("nc")
        count = None if written is None else _whole(written)
        if written is not None and (count is None or not 0 < count <= MAX_CLASSES):
            self._findings.fail(
                "nc", "malformed-yaml", f"nc must be the number of classes, 1 to {MAX_CLASSES}"
            )
            return None
        return count

    def _classes(self) -> tuple[str, ...]:
        names, count = self._values.get("names"), self._count()
        if names is None:
            if self._values.get("nc") is None:
                message = "names is missing; list the class names in the order of their indices"
                self._findings.fail("names", "missing-key", message)
            return tuple(str(index) for index in range(count or 0))
        if isinstance(names, dict):
            indices = {_whole(key): name for key, name in names.items()}
            # Zero is false, so that `filter` leaves 1 to n - 1 of n classes that are numbered from 0.
            if None in indices or sorted(filter(None, indices)) != list(range(1, len(names))):
                message = (
                    f"names must number the classes 0 to {len(names) - 1} without a gap, as the labels do; "
                    f"the numbers are {some(map(str, names))}"
                )
                self._findings.fail("names", "malformed-yaml", message)
                return ()
            names = [indices[index] for index in range(len(indices))]
        if not isinstance(names, list) or not names:
            self._findings.fail(
                "names", "malformed-yaml", "names must be a list, or a mapping from index to name"
            )
            return ()
        if not all(isinstance(item, str) for item in names):
            self._findings.fail(
                "names", "malformed-yaml", "every class name must be text; put quotes around it"
            )
            return ()
        classes = tuple(str(item) for item in names)
        for problem in class_name_problems(classes):
            self._findings.fail("names", "malformed-yaml", problem)
        if count is not None and count != len(classes):
            message = f"nc is {count}, but {len(classes)} classes are named; correct one"
            self._findings.fail("nc", "malformed-yaml", message)
        return classes

    def _integers(self, key: str, wanted: str, accept: Callable[[list[int]], bool]) -> tuple[int, ...] | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, list):
            numbers = [number for item in value if (number := _whole(item)) is not None]
            if len(numbers) == len(value) and accept(numbers):
                return tuple(numbers)
        self._findings.fail(key, "malformed-yaml", f"{key} must be {wanted}")
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
