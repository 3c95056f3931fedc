"""Batch normalisation and its activation in one pass over the memory: a C kernel, compiled when a training starts.

Torch normalises in three passes and activates in a fourth, and its backward is four more: beside the
convolutions, which run at the processor's peak, that is the largest part of a step, and all of it is memory
traffic. Fused, a block's forward reads twice and writes once; its backward recomputes what it needs from the
convolution's output, so that the normalised values need not be kept either.

The compiler needs a second; `torch.compile` needs minutes for the same fusion, once a shape. What was compiled is kept for
the next training on the same machine.
"""

import ctypes
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.speed.capacity import CPUINFO
from gpu_offload.remote_job.speed.kernel_source import SOURCE, TYPES

FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
"""Nothing that lets the compiler assume away NaN or reorder sums, and nothing that flushes denormals."""

COMPILE_SECONDS = 60.0


class KernelError(OffloadError):
    """The kernel could not be built; the training goes on without it."""


def build(compiler: str, *, wide_vectors: bool, cache: Path | None = None) -> Any:
    """Compile the kernel with a C compiler, unless the `cache` (a folder of this user alone) has it, and load it.

    Torch must have been imported: the kernel shares the OpenMP library that torch brought, because the threads
    of a second one would compete with the first one's. Compilers prefer vectors of 256 bits unless asked for wider ones.

    Raises:
        KernelError: No compiler that works, no OpenMP library, or a result that cannot be loaded.
    """
    openmp = openmp_library()
    if openmp is None:
        raise KernelError("torch has loaded no OpenMP library that GNU's compiler could share")
    target = ["-march=native", *(["-mprefer-vector-width=512"] if wide_vectors else [])]
    digest = _digest(compiler, target, openmp) if cache is not None else None
    kept = cache / f"{digest}.so" if cache is not None and digest is not None else None
    if kept is not None and (library := _kept(kept)) is not None:
        return declare(library)
    with tempfile.TemporaryDirectory(prefix="offload-kernel-") as folder:
        source, unit, built = (Path(folder) / name for name in ("kernel.c", "kernel.o", "kernel.so"))
        source.write_text(SOURCE, encoding="utf-8")
        for command in (
            [compiler, *FLAGS, *target, "-c", str(source), "-o", str(unit)],
            [compiler, "-shared", str(unit), str(openmp), "-lm", "-o", str(built)],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
            except subprocess.CalledProcessError as error:
                raise KernelError(f"{compiler} failed: {error.stderr.strip()[:300]}") from error
            except (OSError, subprocess.TimeoutExpired) as error:
                raise KernelError(f"{compiler} did not run: {error}") from error
        try:
            kernel = ctypes.CDLL(str(built))
        except OSError as error:
            raise KernelError(f"the compiled kernel cannot be loaded: {error}") from error
        if kept is not None:
            _keep(built, kept)
    return declare(kernel)


def _digest(compiler: str, target: list[str], openmp: Path) -> str | None:
    """Return what a compiled kernel depends on: source, compiler, processor and OpenMP library; None if it is not known."""
    found = Path(compiler).resolve()
    try:
        facts = found.stat()
        processor = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return None
    lines = [
        line
        for line in processor.splitlines()
        if line.startswith(("model name", "flags", "Features", "CPU part"))
    ]
    parts = [
        SOURCE,
        *FLAGS,
        *target,
        str(found),
        str(facts.st_size),
        str(facts.st_mtime_ns),
        str(openmp),
        *lines,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _kept(path: Path) -> Any | None:
    """Load a kernel that was compiled before; None where there is none, or others could have written it."""
    try:
        # A library that another user could have written would run as this one.
        for place in (path.parent, path):
            facts = place.lstat()
            if facts.st_uid != os.getuid() or facts.st_mode & 0o022 or stat.S_ISLNK(facts.st_mode):
                return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _keep(built: Path, path: Path) -> None:
    """Keep a kernel, whole or not at all; what cannot be kept is compiled again."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        shutil.copyfile(built, partial)
        partial.chmod(0o600)  # whatever the umask allows
        partial.replace(path)
    except OSError:
        return


def cache_folder(variables: Mapping[str, str]) -> Path | None:
    """Return the user's folder for kernels by the XDG base directories; None for a user without a home."""
    base = variables.get("XDG_CACHE_HOME") or (f"{home}/.cache" if (home := variables.get("HOME")) else "")
    return Path(base) / "gpu-offload" / "kernels" if base.startswith("/") else None


def openmp_library(maps: Path = Path("/proc/self/maps")) -> Path | None:
    """Return the GNU OpenMP library that this process has loaded, None without one."""
    try:
        found = re.findall(
            r"(/\S*libgomp[^/\s]*\.so[^/\s]*)$", maps.read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        return None
    return Path(found[0]) if found else None


def declare(kernel: Any) -> Any:
    """Tell ctypes what the functions take."""
    pointer, count, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
    shape = [count, number, number, number]
    arguments = {
        "bn_act_infer": [pointer, pointer, *shape, *[pointer] * 4, real, number, pointer],
        "bn_act_forward": [*[pointer] * 2, *shape, *[pointer] * 4, real, real, number, *[pointer] * 2],
        "bn_act_backward": [pointer, pointer, count, pointer, *shape, number, *[pointer] * 4],
    }
    for name, types in arguments.items():
        for kind in TYPES:
            function = getattr(kernel, f"{name}_{kind}")
            function.argtypes, function.restype = types, None
    return kernel
