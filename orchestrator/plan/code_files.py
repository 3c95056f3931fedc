"""The files below a project's root that may be training code."""

from collections.abc import Iterable, Iterator
from pathlib import Path

SKIPPED = {"__pycache__", "node_modules", "site-packages"}
"""Folders that are never part of a project's code; neither are hidden ones."""


def python_files(folder: Path) -> Iterator[Path]:
    """Yield a folder's Python files, those of its folders too, in order."""
    yield from (path for path in _files(folder) if path.suffix == ".py")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in SKIPPED or (path / "pyvenv.cfg").is_file():
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def included_files(root: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """Yield the files below `root` that a path or pattern of `training.include` names, by their path below it."""
    for path in _matches(root, pattern):
        for file in _files(path) if path.is_dir() else (path,):
            if file.is_file() and file.resolve().is_relative_to(root):
                yield file.relative_to(root).as_posix(), file


def _matches(root: Path, pattern: str) -> Iterable[Path]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        return []
    return [root / pattern] if (root / pattern).exists() else sorted(root.glob(pattern))
