"""Reads the user's code for its imports, file by file, without running it."""

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.orchestrator.plan.imports import (
    bound_names,
    call_faults,
    find_imports,
    is_dynamic,
    needed_modules,
)
from gpu_offload.orchestrator.plan.project import PlanningError, check_inside, read_source

SKIPPED = {"__pycache__", "node_modules", "site-packages"}
"""Folders that are never part of a project's code; neither are hidden ones."""


def python_files(folder: Path) -> Iterator[Path]:
    """Yield a folder's Python files, those of its folders too, in order."""
    yield from (path for path in _files(folder) if path.suffix == ".py")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _is_skipped(path):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _is_skipped(path: Path) -> bool:
    """Whether a file or folder is hidden, or holds what tools have installed or cached."""
    return path.name.startswith(".") or path.name in SKIPPED or (path / "pyvenv.cfg").is_file()


def included_files(root: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """Yield the files below `root` that a path or pattern of `training.include` names, by their path below it."""
    for path in _matches(root, pattern):
        for file in _files(path) if path.is_dir() else (path,):
            if file.is_file() and file.resolve().is_relative_to(root):
                yield file.relative_to(root).as_posix(), file


def _matches(root: Path, pattern: str) -> Iterable[Path]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        return []
    if (root / pattern).exists():
        return [root / pattern]
    # A pattern such as `**/*` finds .git too, whose config holds the token of actions/checkout.
    return [
        path
        for path in sorted(root.glob(pattern))
        if not any(_is_skipped(part) for part in (path, *path.parents) if root in part.parents)
    ]


MAX_SOURCE = 512 << 10
"""Bytes of one file whose imports are read; its syntax tree may take 600 times as many."""
MAX_SOURCES = 8 << 20
"""Bytes of all files whose imports are read."""

MAX_EXTERNALS = 1_000
"""Modules that an entrypoint may need from elsewhere."""
MAX_FAULTS = 100
"""Faults after which no more code is read."""


@dataclass(frozen=True, slots=True)
class External:
    """A module that no file of the project provides."""

    name: str
    where: str
    """`path:line` of the import."""


@dataclass
class CodeReader:
    """Follows imports through the files below `root`; what it finds is in `files`, `own`, `externals` and `faults`."""

    root: Path
    files: set[Path] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    """Top-level names that the project provides."""
    externals: dict[str, External] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _parsed: int = 0
    _followed: dict[str, bool] = field(default_factory=dict)
    _waiting: list[Path] = field(default_factory=list)

    def follow(self, module: str) -> bool:
        """Add the files that importing a dotted module executes; return whether the project has it."""
        if module not in self._followed:
            self._followed[module] = self._follow(module)
        return self._followed[module]

    def _follow(self, module: str) -> bool:
        folder, parts = self.root, module.split(".")
        found = False
        for position, part in enumerate(parts):
            package, file = folder / part / "__init__.py", folder / f"{part}.py"
            if package.is_file():
                self.add(package)
                folder = folder / part
            elif file.is_file():
                self.add(file)
                found = True
                break
            elif (folder / part).is_dir() and (position or self._is_namespace(folder / part)):
                folder = folder / part
            else:
                break
            found = True
        if found:
            self.own.add(parts[0])
        return found

    def _is_namespace(self, folder: Path) -> bool:
        """A folder without `__init__.py` counts only where nothing that is installed has its name."""
        name = folder.name
        is_known = name in sys.stdlib_module_names or is_installed_elsewhere(name, self.root)
        return not is_known and any(True for _ in python_files(folder))

    def path_of(self, module: str) -> Path | None:
        """Return the file of a dotted module of the project."""
        base = self.root.joinpath(*module.split("."))
        return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)

    def add(self, path: Path) -> None:
        """Count a file, and read its imports later."""
        if path not in self.files:
            check_inside(self.root, path)
            self.files.add(path)
            self._waiting.append(path)

    def drain(self) -> None:
        """Read the files that were added, until no import leads to another one."""
        while self._waiting:
            if len(self.faults) >= MAX_FAULTS:
                self.faults[MAX_FAULTS:] = ["and perhaps more: the rest of the code is not read"]
                return
            self._read(self._waiting.pop())

    def _read(self, path: Path) -> None:
        name = path.relative_to(self.root).as_posix()
        source = read_source(path, MAX_SOURCE)
        self._parsed += len(source)
        if self._parsed > MAX_SOURCES:
            raise PlanningError(
                f"training.entrypoint imports more than {MAX_SOURCES >> 20} MiB of Python source; import less of it"
            )
        try:
            imports = list(find_imports(ast.parse(source, filename=name)))
        # ValueError: the source has a NUL byte.
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            self.faults.append(f"{name}:{line}: {getattr(error, 'msg', error)}")
            return
        except (RecursionError, MemoryError):  # the parser's own limit raises the latter
            self.faults.append(f"{name}:1: is nested too deep; write it flat")
            return
        package = path.relative_to(self.root).parent.parts
        for node, is_certain in imports:
            if len(self.faults) >= MAX_FAULTS:
                return
            where = f"{name}:{node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.level > len(package):
                self.faults.append(
                    f"{where}: a relative import leads out of its package; write `from {node.module or 'MODULE'} import`"
                )
                continue
            for required, module in needed_modules(node, package):
                own = self.follow(module)
                if is_certain:
                    self._check(required, where, is_own=own)

    def _check(self, module: str, where: str, *, is_own: bool) -> None:
        """Note a module that is missing in the project, or that must come from elsewhere."""
        top = module.split(".", maxsplit=1)[0]
        if is_own:
            if self.path_of(module) is None and not self.root.joinpath(*module.split(".")).is_dir():
                self.faults.append(f"{where}: the project has no module {module}")
        # Our own package is installed wherever a training runs.
        elif top not in sys.stdlib_module_names and top != "gpu_offload":
            self.externals.setdefault(top, External(top, where))
            if len(self.externals) > MAX_EXTERNALS:
                raise PlanningError(
                    f"{where}: more than {MAX_EXTERNALS} modules are imported that the project does not have"
                )

    def function_faults(self, module: str, function: str) -> Iterator[str]:
        """Yield what is wrong with the entrypoint's function, as far as the source shows it."""
        path = self.path_of(module)
        if path is None:
            is_folder = self.root.joinpath(*module.split(".")).is_dir()
            why = (
                f"{module} is a folder without an __init__.py"
                if is_folder
                else f"the project has no module {module}"
            )
            yield f"training.entrypoint {module}:{function}: {why}"
            return
        try:
            tree = ast.parse(read_source(path, MAX_SOURCE))
            if function in bound_names(tree) or is_dynamic(tree):
                where = path.relative_to(self.root)
                yield from (f"{where}:{line}: {why}" for line, why in call_faults(tree, function))
                return
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return  # said where the imports were read
        functions = sorted(n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_")
        known = f"; it has {', '.join(functions)}" if functions else ""
        yield (
            f"training.entrypoint {module}:{function}: {path.relative_to(self.root)} has no function {function}{known}"
        )


def is_installed_elsewhere(name: str, root: Path) -> bool:
    """Return whether a regular module of this name is importable from outside a project."""
    try:
        # Safe for a top-level name; of a dotted one Python would import the parents.
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if found is None or found.origin is None:
        return False
    origin = Path(found.origin).resolve()
    return origin.parent not in {root, root / name}
