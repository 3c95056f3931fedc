"""An Ultralytics `data.yaml`, read as hostile input: nothing is downloaded, nothing outside its folder is touched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gpu_offload.dataset.finding import DatasetError, Finding, error, warning

MAX_BYTES: Final = 4 << 20
MAX_CLASSES: Final = 100_000

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

    Raises:
        DatasetError: With every fault and its line: no YAML, a value of the wrong kind, a path that is absolute,
            holds `..` or leads through a symlink, class names that disagree with `nc`.
    """
    import yaml  # type: ignore[import-untyped,unused-ignore]

    name = file.name
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DatasetError(
                [error(name, "huge-file", f"is larger than {MAX_BYTES >> 20} MiB; a data.yaml is small")]
            )
        text = file.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except UnicodeDecodeError:
        raise DatasetError([error(name, "malformed-yaml", "is not UTF-8 text; save it as UTF-8")]) from None
    except OSError as fault:
        raise DatasetError([error(name, "unreadable-file", f"cannot be read ({fault.strerror})")]) from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as fault:
        mark = getattr(fault, "problem_mark", None)
        problem = getattr(fault, "problem", None) or type(fault).__name__
        line = mark.line + 1 if mark is not None else None
        raise DatasetError(
            [error(name, "malformed-yaml", f"is no YAML: {problem}; correct it", line)]
        ) from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise DatasetError([error(name, "malformed-yaml", "must be a mapping with train, val and names")])
    lines = {
        str(key.value): key.start_mark.line + 1 for key, _ in node.value if isinstance(key, yaml.ScalarNode)
    }
    return _Reading(file, values, lines).result()


class _Reading:
    """Goes through the values of one file and collects every fault."""

    def __init__(self, file: Path, values: dict[Any, Any], lines: dict[str, int]) -> None:
        self._file = file
        self._values = values
        self._lines = lines
        self._findings: list[Finding] = []

    def result(self) -> DataYaml:
        for key in self._values:
            if key == "download":
                self._warn(
                    key, "download", "download is ignored; nothing is fetched, put the files there yourself"
                )
            elif key not in _SILENT:
                self._warn(str(key), "unknown-key", f"{str(key)[:60]!r} is ignored")
        base = self._base()
        sources = {split: self._sources(split, base) for split in ("train", "val", "test")}
        if not sources["train"]:
            self._fail("train", "missing-key", "train is missing; name the folder of the training images")
        classes = self._classes()
        shape = self._keypoint_shape()
        flip = self._flip_idx(shape)
        if any(finding.severity == "error" for finding in self._findings):
            raise DatasetError(self._findings)
        return DataYaml(base, sources, classes, shape, flip, tuple(self._findings))

    def _fail(self, key: str, code: str, message: str) -> None:
        self._findings.append(error(self._file.name, code, message, self._lines.get(key)))

    def _warn(self, key: str, code: str, message: str) -> None:
        self._findings.append(warning(self._file.name, code, message, self._lines.get(key)))

    def _base(self) -> str:
        value = self._values.get("path") or "."
        if not isinstance(value, str):
            self._fail(
                "path", "malformed-yaml", "path must be text; leave it out for the folder of this file"
            )
            return ""
        return self._inside("path", value, "") or ""

    def _sources(self, split: str, base: str) -> tuple[str, ...]:
        value = self._values.get(split)
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, str) and item for item in items):
            self._fail(split, "malformed-yaml", f"{split} must be a folder, a .txt list, or a list of these")
            return ()
        found = [self._inside(split, item, base) for item in items]
        return tuple(item for item in found if item is not None)

    def _inside(self, key: str, value: str, base: str) -> str | None:
        """Return a path relative to the file's folder and `base`, normalised; a fault and None for any other."""
        folder = self._file.parent / base if base else self._file.parent
        parts = PurePosixPath(value).parts
        if key != "path" and parts[:1] == ("..",) and ".." not in parts[1:] and parts[1:]:
            # Roboflow exports say ../train/images for a folder beside data.yaml; Ultralytics strips it too.
            stripped = PurePosixPath(*parts[1:])
            if (folder / stripped).exists():
                self._warn(key, "parent-path", f"{value!r} is read as {str(stripped)!r}; write it so")
                value, parts = str(stripped), stripped.parts
        if value.startswith(("/", "~")) or "\\" in value or ":" in value or ".." in parts or "\0" in value:
            message = (
                f"{value[:200]!r} leads out of the dataset; write a path relative to this file, without '..'"
            )
            self._fail(key, "outside-path", message)
            return None
        current = folder
        for part in parts:
            current = current / part
            if current.is_symlink():
                self._fail(
                    key, "symlink", f"{value[:200]!r} leads through a symlink; put the real folder there"
                )
                return None
        if not current.exists():
            self._fail(key, "missing-path", f"{value[:200]!r} does not exist; correct the path")
            return None
        return "" if not parts else str(PurePosixPath(*parts))

    def _classes(self) -> tuple[str, ...]:
        names, count = self._values.get("names"), self._values.get("nc")
        if count is not None and (
            not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= MAX_CLASSES
        ):
            self._fail("nc", "malformed-yaml", f"nc must be the number of classes, 1 to {MAX_CLASSES}")
            count = None
        if names is None:
            if count is None:
                self._fail(
                    "names",
                    "missing-key",
                    "names is missing; list the class names in the order of their indices",
                )
            return tuple(str(index) for index in range(count or 0))
        if isinstance(names, dict):
            if sorted(names, key=repr) != sorted(range(len(names)), key=repr):
                message = f"names must number the classes 0 to {len(names) - 1} without a gap"
                self._fail("names", "malformed-yaml", message)
                return ()
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list) or not names:
            self._fail("names", "malformed-yaml", "names must be a list, or a mapping from index to name")
            return ()
        if not all(isinstance(item, str) or (isinstance(item, int) and abs(item) < 10**9) for item in names):
            self._fail("names", "malformed-yaml", "every class name must be text; put quotes around it")
            return ()
        classes = tuple(str(item) for item in names)
        for problem in class_name_problems(classes):
            self._fail("names", "malformed-yaml", problem)
        if count is not None and count != len(classes):
            self._fail(
                "nc", "malformed-yaml", f"nc is {count}, but {len(classes)} classes are named; correct one"
            )
        return classes

    def _integers(self, key: str, wanted: str, accept: Callable[[list[int]], bool]) -> tuple[int, ...] | None:
        value = self._values.get(key)
        if value is None:
            return None
        if (
            isinstance(value, list)
            and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
            and accept(value)
        ):
            return tuple(value)
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


def class_name_problems(classes: tuple[str, ...]) -> list[str]:
    """Return what is wrong with class names: empty, not printable, or twice the same."""
    problems = [
        f"class name {name[:60]!r} is empty or not printable; rename it"
        for name in classes
        if not name.strip() or not name.isprintable()
    ]
    twice = (
        sorted({name for name in classes if classes.count(name) > 1})
        if len(set(classes)) < len(classes)
        else []
    )
    return problems + [f"class name {name[:60]!r} is given twice; rename one" for name in twice]
