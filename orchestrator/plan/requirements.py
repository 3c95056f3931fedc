"""`training.requirements`: what the user's training code needs installed, locked with hashes."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.store.errors import ObjectExistsError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.plan.project import PlanningError, check_inside, read_source

LOCK_SECONDS = 300
MAX_BYTES = 4 << 20
"""Of one requirements file; a lock of two hundred packages has 300 kB."""
MAX_FILES = 50
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(?:[<>=!~;@\s]|$)")
_NESTED = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[ =]+(\S+)")


@dataclass(frozen=True, slots=True)
class Requirements:
    """A requirements file and the files it refers to.

    Attributes:
        path: The file.
        sha256: Digest of its content, and of that of the files it names with `-r` and `-c`.
        names: Distributions that it asks for, normalised.
        is_locked: Whether every requirement has a hash.
    """

    path: Path
    sha256: str
    names: frozenset[str]
    is_locked: bool

    @property
    def lock_key(self) -> str:
        """Where the store keeps the lock: resolved once, so that a training is repeated with the same packages."""
        return f"locks/{self.sha256}.txt"


def read_requirements(root: Path, setting: str) -> Requirements:
    """Read `training.requirements`. Raises PlanningError."""
    path = root / setting
    bodies = _bodies(root, path, f"training.requirements: {setting}", {})
    digest = hashlib.sha256()
    for body in bodies.values():
        digest.update(hashlib.sha256("\n".join(body.splitlines()).encode()).digest())
    lines = [line for body in bodies.values() for line in _logical_lines(body)]
    asked = [(match[1], line) for line in lines if (match := _NAME.match(line))]
    return Requirements(
        path=path,
        sha256=digest.hexdigest(),
        names=frozenset(normalised(name) for name, _ in asked),
        is_locked=bool(asked) and len(bodies) == 1 and all("--hash=" in line for _, line in asked),
    )


def normalised(name: str) -> str:
    """Return a distribution's name as PyPI compares it: https://peps.python.org/pep-0503/#normalized-names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock(requirements: Requirements, store: ObjectStore) -> bytes:
    """Return the locked requirements: the file itself, what the store has, or what uv resolves now and keeps there.

    Raises:
        PlanningError: uv is missing, or it cannot resolve the requirements.
        StoreError: The store did not answer.
    """
    if requirements.is_locked:
        return read_source(requirements.path, MAX_BYTES)
    if store.stat(requirements.lock_key) is not None:
        return store.read(requirements.lock_key)[0]
    body = _resolved(requirements)
    try:
        store.create(requirements.lock_key, body)
    except ObjectExistsError:  # another runner resolved it at the same time
        return store.read(requirements.lock_key)[0]
    return body


def _resolved(requirements: Requirements) -> bytes:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise PlanningError("training.requirements needs uv: pip install uv")
    with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
        target = Path(scratch) / "requirements.txt"
        command = [
            uv, "pip", "compile", requirements.path.name, "--quiet", "--universal", "--python-version", "3.11",
            "--generate-hashes", "--no-header", "--no-annotate", "--emit-index-url", "--emit-find-links",
            "--output-file", str(target),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                cwd=requirements.path.parent,
                capture_output=True,
                text=True,
                timeout=LOCK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PlanningError(
                f"training.requirements: {requirements.path} was not resolved within {LOCK_SECONDS} s"
            ) from None
        if done.returncode != 0:
            raise PlanningError(f"training.requirements: {requirements.path}: {done.stderr.strip()}")
        return target.read_bytes()


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
        for line in _logical_lines(found[path]):
            if match := _NESTED.match(line):
                _bodies(root, path.parent / match[1], f"{path.name}: {match[1]}", found)
    return found


def _logical_lines(body: str) -> list[str]:
    lines = body.replace("\\\n", " ").splitlines()
    stripped = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines)
    return [line for line in stripped if line]
