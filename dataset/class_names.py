"""Files that name the classes, one a line: `classes.txt`, `obj.names`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gpu_offload.dataset.finding import Findings, error
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY

MAX_BYTES: Final = 4 << 20
MAX_CLASSES: Final = 100_000
"""Classes of one dataset."""


def read_classes(root: Path, name: str, findings: Findings) -> tuple[str, ...]:
    """Return the names that a text gives, one a line; nothing and a fault where it is no small text in UTF-8."""
    file = root / name
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_BYTES:
        message = "is no plain small text file; list one name a line"
        findings.append(error(name, "malformed-classes", message))
        return ()
    try:
        text = file.read_text("utf-8-sig")
        if text.startswith(LFS_POINTER.decode()):
            findings.append(
                error(name, "lfs-pointer", f"is a pointer of Git LFS, not the names; {LFS_REMEDY}")
            )
            return ()
        classes = tuple(line.strip() for line in text.rstrip().splitlines())
    except UnicodeDecodeError:
        findings.append(error(name, "malformed-classes", "is not UTF-8 text; save it as UTF-8"))
        return ()
    except OSError as fault:
        findings.append(error(name, "unreadable-file", f"cannot be read ({fault.strerror})"))
        return ()
    if len(classes) > MAX_CLASSES:
        message = f"names more than {MAX_CLASSES} classes; remove those that do not occur"
        findings.append(error(name, "malformed-classes", message))
        return ()
    if "" in classes:
        # A class's number is that of its line: to skip a line would rename every class that follows.
        message = "the line is empty, but each line names the class of its number; remove the line or name the class"
        findings.append(error(name, "malformed-classes", message, classes.index("") + 1))
        return ()
    return classes


def class_name_problems(classes: Iterable[str]) -> list[str]:
    """Return what is wrong with class names: empty, not printable, or twice the same."""
    # Ultralytics keeps names in a dictionary by number; what reads its results by name would confuse two alike.
    problems, seen, twice = [], set[str](), set[str]()
    for name in classes:
        if not name.strip() or not name.isprintable():
            problems.append(f"class name {name[:60]!r} is empty or not printable; rename it")
        (twice if name in seen else seen).add(name)
    return problems + [f"class name {name[:60]!r} is given twice; rename one" for name in sorted(twice)]
