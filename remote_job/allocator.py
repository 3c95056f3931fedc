"""Sets the C library's allocator to keep memory that a training takes again a moment later.

A step frees and takes hundreds of megabytes. By default glibc hands large blocks back to the kernel at once and
gets them back, zeroed page by page: on a virtual machine that was a tenth to a quarter of a step's time. Kept
blocks, and pages of 2 MiB where the kernel lets a program ask for them, cost nothing of the kind.
"""

import ctypes
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HUGE_PAGES_SINCE = (2, 35)
"""glibc's release that knows `glibc.malloc.hugetlb`."""

TOP_PAD = 64 << 20
"""Bytes taken from the kernel at a time."""

KEEP = 1 << 40
"""Free bytes at the heap's end above which the kernel gets them back: more than any machine has."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""From malloc.h."""


def tunables() -> dict[str, int]:
    """Return glibc's settings; https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html."""
    return {
        "glibc.malloc.hugetlb": 1,
        "glibc.malloc.mmap_max": 0,
        "glibc.malloc.trim_threshold": KEEP,
        "glibc.malloc.top_pad": TOP_PAD,
    }


def environment(present: Mapping[str, str]) -> dict[str, str]:
    """Return the variables a process must be started with; existing settings stay."""
    given = [item for item in present.get("GLIBC_TUNABLES", "").split(":") if item]
    names = {item.partition("=")[0] for item in given}
    ours = [f"{name}={value}" for name, value in tunables().items() if name not in names]
    return {"GLIBC_TUNABLES": ":".join([*given, *ours])}


def keep_blocks() -> bool:
    """Tell the allocator of the running process; all but the large pages. Returns whether it took it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: TOP_PAD}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def is_tuned(present: Mapping[str, str]) -> bool:
    """Whether a process with this environment was started with our settings."""
    return all(f"{name}={value}" in present.get("GLIBC_TUNABLES", "") for name, value in tunables().items())


def unwanted(arguments: Sequence[str]) -> bool:
    """Whether a spec among a program's arguments turns the allocator's settings off.

    Faults of the spec are reported later, when it is validated. For a spec that comes later, `-`, the program's parent has
    chosen.
    """
    if "-" in arguments:
        return True
    for argument in arguments:
        if not argument.startswith("-"):
            try:
                return json.loads(Path(argument).read_bytes())["speed"]["allocator"] is False
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return False


def restart() -> None:
    """Re-execute this program with the settings, in the same process; at most once.

    Only good at the start of `__main__`: nothing of the running program survives. Returns where there is
    nothing to gain.
    """
    # The second condition: settings of the user's that win over ours would be restarted for again and again.
    wanted = environment(os.environ)
    if is_tuned(os.environ) or os.environ.get("GLIBC_TUNABLES") == wanted["GLIBC_TUNABLES"]:
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})  # noqa: S606 - no shell wanted
