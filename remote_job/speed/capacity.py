"""What a training may really use of the machine: cores, instruction sets, memory, a compiler.

Imports neither torch nor Ultralytics: the answers decide what is set before those are imported.
"""

import math
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
OWN_CGROUP = Path("/proc/self/cgroup")

CORES = "GPU_OFFLOAD_CORES"
"""How many processors the training is to use, where a cluster has others for other trainings."""

INSTRUCTION_SETS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
}
"""The kernel's names of processor flags, and ours, for those that decide how fast a convolution is."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The share of a machine that this process has."""

    cores: int
    """Processors that may compute at the same time: the affinity mask, cut by the container's quota and by GPU_OFFLOAD_CORES."""
    memory_bytes: int
    """Memory this process may fill: the machine's, or the container's limit where that is smaller."""
    instruction_sets: frozenset[str] = field(default_factory=frozenset)
    compiler: str | None = None
    """A C compiler's path."""
    glibc: tuple[int, int] | None = None
    """Version of the C library where it is GNU's."""


def capacity() -> Capacity:
    """Look at the machine."""
    quota, cores = cpu_quota(), os.environ.get(CORES, "")
    # macOS has no affinity: https://docs.python.org/3/library/os.html#os.sched_getaffinity
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [affinity] if quota is None else [affinity, max(1, math.floor(quota + 1e-6))]
    if cores.isdecimal() and int(cores) > 0:
        limits.append(int(cores))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Capacity(
        cores=min(limits),
        memory_bytes=min(total, memory_limit() or total),
        instruction_sets=instruction_sets(),
        compiler=next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None),
        glibc=glibc(),
    )


def cpu_quota(root: Path = CGROUPS, membership: Path = OWN_CGROUP) -> float | None:
    """Return how many processors' worth of time the container gets; None where nothing limits it.

    Both generations of control groups are read, at every level from this process's group up to the root: a
    limit anywhere above holds too. https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    quotas = []
    for group in _groups(root, membership, "cpu"):
        if words := _words(group / "cpu.max"):
            if words[0] != "max":
                quotas.append(int(words[0]) / int(words[1]))
            continue
        quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
        if quota and period and int(quota[0]) > 0:
            quotas.append(int(quota[0]) / int(period[0]))
    return min(quotas, default=None)


def memory_limit(root: Path = CGROUPS, membership: Path = OWN_CGROUP) -> int | None:
    """Return the container's memory limit in bytes; None where nothing limits it."""
    limits = []
    for group in _groups(root, membership, "memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        # The first generation says "no limit" with a number close to 2**63.
        if words and words[0] != "max" and int(words[0]) < 2**60:
            limits.append(int(words[0]))
    return min(limits, default=None)


def instruction_sets(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Return which of `INSTRUCTION_SETS` the processor has."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return frozenset(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def glibc() -> tuple[int, int] | None:
    """Return the version of the GNU C library, None where the C library is another."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
    match = re.fullmatch(r"glibc (\d+)\.(\d+).*", version or "")
    return (int(match[1]), int(match[2])) if match else None


def _groups(root: Path, membership: Path, controller: str) -> list[Path]:
    """Return the folders of this process's control group and of all above it."""
    bases = [(root, "/")]
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            bases.append((root, path))
        elif controller in controllers.split(","):
            bases += [(root / controller, path), (root / controllers, path)]
    groups: dict[Path, None] = {}
    for base, path in bases:
        inside = Path(path.lstrip("/"))
        for level in (inside, *inside.parents):
            groups[base / level] = None
    return list(groups)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []
