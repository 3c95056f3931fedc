"""Runs a training on this machine as it runs on an instance: as a user of its own, without network and secrets."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.instance.wheel import PACKAGES

SCRIPT = Path(__file__).with_name("job.sh")
SHARED = tuple(map(Path, ("/run", "/tmp", "/var/tmp", "/dev/shm", "/home", "/root")))  # noqa: S108 - hidden, not used
"""Folders of every machine that a training finds empty."""
SYSTEM = tuple(map(Path, ("/usr", "/etc", "/bin", "/lib", "/dev", "/proc", "/sys")))
"""Folders that nothing runs without; a folder that holds one of them is not hidden."""
VARIABLES = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSAFEPATH"})
VARIABLE_GROUPS = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "NVIDIA_")
"""What a training learns of the environment: names, and beginnings of names. Others may hold a secret."""
PROBE_S = 30.0
GRACE_S = 30
"""How long a training may go on, in whole seconds, whose driver was killed."""
KEYCTL = {"x86_64": 250, "aarch64": 219}
"""The number of the system call keyctl, from Linux's tables of system calls."""
OWN_KEYRING = """
import ctypes, os, sys
ctypes.CDLL(None).syscall(int(sys.argv[1]), 1, None)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Joins an empty session keyring (KEYCTL_JOIN_SESSION_KEYRING): another user keeps access to that of its parent."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """The isolation of one training on a machine with other work.

    Attributes:
        job: A folder of ours; the training reads all of it and writes to `output` and `home` in it.
        hidden: Folders that the training finds empty.
        kept: Files and folders below them that it reads all the same, beside `job` and this Python.
    """

    job: Path
    hidden: tuple[Path, ...]
    kept: tuple[Path, ...] = ()

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Make the folders of the job and write down the variables that the training may see."""
        for folder in (self.job, self.job / "output", self.job / "home", self.job / "input"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        known = {n: v for n, v in environment.items() if n in VARIABLES or n.startswith(VARIABLE_GROUPS)}
        known |= {"HOME": str(self.job / "home"), "USER": "trainer", "LOGNAME": "trainer"}
        file = self.job / "environment"
        file.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in known.items()))
        file.chmod(0o644)

    def command(self, *words: str) -> list[str]:
        """Return a command that runs another one as the training runs; its output is ours again afterwards."""
        # Real paths: nothing can be mounted on a link, which `/home` may be.
        folders = dict.fromkeys(Path(os.path.realpath(folder)) for folder in (*SHARED, *self.hidden))
        hidden = [folder for folder in folders if _can_be_hidden(folder)]
        # Both names of each: the training is given one, and the other is where the files are.
        named = {
            place for path in (*self._python(), *self.kept, self.job) for place in (path, path.resolve())
        }
        kept = _outermost(path for path in named if path.exists() and any(map(path.is_relative_to, hidden)))
        # Last, and so mounted last: they are below `job`, which is read-only.
        writable = [f"+ {self.job / name}" for name in ("output", "home")]
        lists = ("\n".join(map(str, hidden)), "\n".join((*map(str, kept), *writable)))
        number = KEYCTL.get(platform.machine())
        first = [sys.executable, "-I", "-c", OWN_KEYRING, str(number)] if number else []
        return ["sh", str(SCRIPT), "apart", str(self.job), str(GRACE_S), *lists, *first, *words]

    def _python(self) -> set[Path]:
        """Return what this Python runs from, and our own package."""
        homes = {Path(sys.prefix), Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parents[1]}
        package = Path(__file__).parents[2]
        found = {*homes, *(package / name for name in PACKAGES)}
        # PYTHONPATH may name the checkout, whose modules a training must not import.
        given = {Path(os.path.realpath(entry)) for entry in sys.path if entry.startswith("/")}
        return found | {path for path in given if not any(hid.is_relative_to(path) for hid in self.hidden)}

    def end_command(self) -> list[str]:
        """Return a command that kills the training with all its processes."""
        return ["sh", str(SCRIPT), "end_apart", str(self.job)]


def why_not(folder: Path, hidden: tuple[Path, ...]) -> str | None:
    """Try to isolate a process that works in `folder`; return why that is impossible here, None where it works."""
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        return "sudo is not installed"
    if missing := [
        name for name in ("unshare", "setpriv", "prlimit", "mountpoint") if shutil.which(name) is None
    ]:
        return f"{', '.join(missing)} is not installed"
    with tempfile.TemporaryDirectory(dir=folder, prefix="isolation-") as name:
        isolation = Isolation(Path(name), hidden)
        isolation.prepare(os.environ)
        command = isolation.command(sys.executable, "-P", "-c", "import gpu_offload.remote_job")
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PROBE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].removeprefix("gpu-offload: ") if lines else f"exit code {done.returncode}"


def _can_be_hidden(folder: Path) -> bool:
    in_it = [path for path in SYSTEM if path.is_relative_to(folder)]
    return folder.is_absolute() and folder.is_dir() and not in_it


def _outermost(paths: Iterable[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda path: len(path.parts)):
        if not any(map(path.is_relative_to, kept)):
            kept.append(path)
    return kept
