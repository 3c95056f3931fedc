"""`training.requirements`: what the user's training code needs installed, locked with hashes."""

import hashlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.errors import UsageError
from gpu_offload.infra.store.errors import ObjectExistsError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.plan.project import PlanningError, check_inside, read_source
from gpu_offload.remote_job.requirements import are_installed
from gpu_offload.remote_job.uv import run_uv

LOCK_SECONDS = 300
MAX_BYTES = 4 << 20
"""Of one requirements file; a lock of two hundred packages has 300 kB."""
MAX_FILES = 50
MAX_FAULTS = 20
_NAME = re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?) ?(?:\[[^\]]*\])? ?(?:[<>=!~;@(\s]|$)")
_PASSWORD = re.compile(rb"://[^/@\s]*@")
"""Credentials in an address."""

_NESTED = re.compile(r"(-r|-c|--requirement|--constraint)[ =] ?(\S+)")
_OPTION = re.compile(
    r"(?:-i|--index-url|--extra-index-url|-f|--find-links)[ =] ?https?://\S+"
    r"|--only-binary[ =] ?(?!\S*:none:)\S+|--no-index|--pre|--prefer-binary|--require-hashes"
)
_DIRECT = re.compile(r"[\w.-]+ ?(?:\[[^\]]*\])? ?@ ?(\S*)")
_WHEEL = re.compile(r"https?://[^\s?#]+\.whl(?:[?#]\S*)?", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{\w+\}")


class RequirementLineError(PlanningError, UsageError):
    """Lines of a requirements file ask for what is never installed: a fault of the configuration."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """A requirements file and the files it refers to."""

    path: Path
    sha256: str
    """Digest of its content, and of that of the files it names with `-r` and `-c`."""
    names: frozenset[str]
    """Distributions that it asks for, normalised."""
    is_locked: bool
    files: Mapping[str, str] = field(repr=False)
    """What uv reads, by file name, the first one first: only the lines that were checked."""

    @property
    def lock_key(self) -> str:
        """Where the store keeps the lock: resolved once, so that a training is repeated with the same packages."""
        return f"locks/{self.sha256}.txt"


def read_requirements(root: Path, setting: str) -> Requirements:
    """Read `training.requirements`. Raises PlanningError (missing, too large, outside), RequirementLineError."""
    path = root / setting
    bodies = _bodies(root, path, f"training.requirements: {setting}", {})
    digest = hashlib.sha256()
    for body in bodies.values():
        # Git may write other line ends on another machine; what is installed is the same.
        digest.update(hashlib.sha256("\n".join(body.splitlines()).encode()).digest())
    _check_lines(root, bodies)
    lines = [line for body in bodies.values() for _, line in _logical_lines(body)]
    asked = [(match[1], line) for line in lines if (match := _NAME.match(line))]
    return Requirements(
        path=path,
        sha256=digest.hexdigest(),
        names=frozenset(normalised(name) for name, _ in asked),
        is_locked=bool(asked) and len(bodies) == 1 and all("--hash=" in line for _, line in asked),
        files=_copies(bodies),
    )


def normalised(name: str) -> str:
    """Return a distribution's name as PyPI compares it: https://peps.python.org/pep-0503/#normalized-names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock(requirements: Requirements, store: ObjectStore) -> bytes:
    """Return the locked requirements: the file itself, what the store has, or what uv resolves now and keeps there.

    Raises PlanningError: uv is missing, or it cannot resolve the requirements; StoreError.
    """
    if (known := known_lock(requirements, store)) is not None:
        return known
    body = _resolved(requirements)
    try:
        store.create(requirements.lock_key, body)
    except ObjectExistsError:  # another runner resolved it at the same time
        return store.read(requirements.lock_key)[0]
    return body


def known_lock(requirements: Requirements, store: ObjectStore) -> bytes | None:
    """Return the lock without asking an index; None where it has still to be resolved. Raises StoreError."""
    if requirements.is_locked:
        return read_source(requirements.path, MAX_BYTES)
    if store.stat(requirements.lock_key) is not None:
        return store.read(requirements.lock_key)[0]
    return None


def is_installed(requirements: Requirements, store: ObjectStore, packages: Path) -> bool:
    """Whether an earlier training has installed all of it below `packages`. Raises StoreError."""
    known = known_lock(requirements, store)
    return known is not None and are_installed(known, packages)


def _resolved(requirements: Requirements) -> bytes:
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        folder = Path(scratch)
        for name, text in requirements.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        target = folder / "lock.txt"
        # One lock for every platform, from the lowest Python that we support; without the configuration of project and user.
        words = [
            "pip", "compile", next(iter(requirements.files)), "--quiet", "--no-config", "--only-binary", ":all:",
            "--python", sys.executable, "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header",
            "--no-annotate", "--emit-index-url", "--emit-find-links", "--output-file", str(target),
        ]  # fmt: skip
        if why := run_uv(words, folder, LOCK_SECONDS):
            raise PlanningError(f"training.requirements: {requirements.path}: {why}")
        body = target.read_bytes()
        if _PASSWORD.search(body):
            raise PlanningError(
                "training.requirements: the index's address holds a password, which the lock in the store would show; "
                "write the address without it, and keep the password in ~/.netrc"
            )
        return body


def _bodies(root: Path, path: Path, what: str, found: dict[Path, str]) -> dict[Path, str]:
    """Return the text of a file and of those it names, in the order in which they are read."""
    if path not in found:
        if len(found) == MAX_FILES:
            raise PlanningError(f"{what}: more than {MAX_FILES} files name each other; write one")
        check_inside(root, path)
        try:
            found[path] = read_source(path, MAX_BYTES).decode()
        except UnicodeDecodeError:
            raise PlanningError(f"{what}: is not UTF-8 text ({path})") from None
        except OSError as error:
            raise PlanningError(f"{what}: {error.strerror} ({path})") from None
        for _, line in _logical_lines(found[path]):
            if match := _NESTED.fullmatch(line):
                _bodies(root, path.parent / match[2], f"{path.name}: {match[2]}", found)
    return found


def _check_lines(root: Path, bodies: Mapping[Path, str]) -> None:
    faults = [
        f"{path.relative_to(root)}:{number}: {fault}"
        for path, body in bodies.items()
        for number, line in _logical_lines(body)
        if (fault := _fault(line))
    ]
    if not faults:
        return
    more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    raise RequirementLineError(
        "\n".join(f"training.requirements: {f}" for f in (*faults[:MAX_FAULTS], *more))
    )


def _fault(line: str) -> str | None:
    """Return why a line is refused: resolving it would run code of the project, or read what it does not name."""
    shown = line if len(line) <= 100 else f"{line[:100]}..."
    if _VARIABLE.search(line):
        return (
            f"{shown}: environment variables are not read here; set UV_INDEX_URL for an index with a password"
        )
    if line.startswith("-"):
        if _NESTED.fullmatch(line) or _OPTION.fullmatch(line):
            return None
        if re.match(r"-e|--editable", line):
            return f"{shown}: nothing is built or installed from a folder; name the code in training.include"
        return f"{shown}: this option is not supported; indexes are http or https addresses, and nothing is built"
    if direct := _DIRECT.match(line):
        if _WHEEL.fullmatch(direct[1]):
            return None
        return f"{shown}: only a wheel at an http or https address can be named so; publish a wheel, or name a version"
    if _NAME.match(line):
        return None
    return f"{shown}: is no distribution with a version, such as numpy>=2; paths and repositories are never installed"


def _copies(bodies: Mapping[Path, str]) -> dict[str, str]:
    """Return the checked lines of every file for a folder of their own, where the files name each other."""
    names = {path: f"{number}.txt" for number, path in enumerate(bodies)}

    def copied(path: Path, line: str) -> str:
        nested = _NESTED.fullmatch(line)
        return f"{nested[1]} {names[path.parent / nested[2]]}" if nested else line

    return {
        names[path]: "".join(f"{copied(path, line)}\n" for _, line in _logical_lines(body))
        for path, body in bodies.items()
    }


def _logical_lines(body: str) -> Iterator[tuple[int, str]]:
    """Yield the lines without comments, continued ones joined, with their numbers; a comment ends with its own line."""
    start, parts = 0, list[str]()
    # The empty line ends a last line that is continued.
    for number, physical in enumerate([*body.splitlines(), ""], 1):
        text = re.sub(r"(^|\s)#.*$", "", physical)
        start = start or number
        parts.append(text.removesuffix("\\"))
        if text.endswith("\\"):
            continue
        if line := " ".join(" ".join(parts).split()):
            yield start, line
        start, parts = 0, []
