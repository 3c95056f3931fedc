"""Batch normalisation and its activation in one pass over the memory: a C kernel, compiled when a training starts.

Torch normalises in three passes and activates in a fourth, and its backward is four more: beside the
convolutions, which run at the processor's peak, that is the largest part of a step, and all of it is memory
traffic. Fused, a block's forward reads twice and writes once; its backward recomputes what it needs from the
convolution's output, so that the normalised values need not be kept either.

The compiler needs a second; `torch.compile` needs minutes for the same fusion, once a shape.
"""

import ctypes
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.speed.kernel_source import SOURCE, TYPES

FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
"""Nothing that lets the compiler assume away NaN or reorder sums, and nothing that flushes denormals."""

COMPILE_SECONDS = 60.0


class KernelError(OffloadError):
    """The kernel could not be built; the training goes on without it."""


def build(compiler: str, *, wide_vectors: bool) -> Any:
    """Compile and load the kernel.

    Torch must have been imported: the kernel shares the OpenMP library that torch brought, because the threads
    of a second one would fight with the first one's.

    Args:
        compiler: A C compiler's path.
        wide_vectors: Whether the processor has vectors of 512 bits; compilers prefer 256 unless told.

    Raises:
        KernelError: No compiler that works, no OpenMP library, or a result that cannot be loaded.
    """
    openmp = openmp_library()
    if openmp is None:
        raise KernelError("torch has loaded no OpenMP library that GNU's compiler could share")
    with tempfile.TemporaryDirectory(prefix="offload-kernel-") as folder:
        source, unit, library = (Path(folder) / name for name in ("kernel.c", "kernel.o", "kernel.so"))
        source.write_text(SOURCE, encoding="utf-8")
        target = ["-march=native", *(["-mprefer-vector-width=512"] if wide_vectors else [])]
        for command in (
            [compiler, *FLAGS, *target, "-c", str(source), "-o", str(unit)],
            [compiler, "-shared", str(unit), str(openmp), "-lm", "-o", str(library)],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
            except subprocess.CalledProcessError as error:
                raise KernelError(f"{compiler} failed: {error.stderr.strip()[:300]}") from error
            except (OSError, subprocess.TimeoutExpired) as error:
                raise KernelError(f"{compiler} did not run: {error}") from error
        try:
            kernel = ctypes.CDLL(str(library))
        except OSError as error:
            raise KernelError(f"the compiled kernel cannot be loaded: {error}") from error
    return declare(kernel)


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
