"""The processes of a simulated instance, found in /proc by the instance's mark."""

import contextlib
import os
from pathlib import Path

MARK = "GPU_OFFLOAD_SIMULATED_INSTANCE"
"""In the environment of every process of an instance: the instance's folder."""


def marked(folder: Path, *, everything: bool = False) -> list[int]:
    """Processes of an instance that are not yet dead; with `everything`, all that /proc shows.

    They carry its mark, or its folder in their command line (sshd overwrites its environment with its title), or
    descend from one that does.
    """
    mark, path = f"{MARK}={folder}".encode(), str(folder).encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            base, pid = Path(entry.path), int(entry.name)
            state, parent = (base / "stat").read_text().rpartition(")")[2].split()[:2]
            if state in "ZX":
                continue
            parents[pid] = int(parent)
            if everything:
                found.add(pid)
                continue
            with contextlib.suppress(PermissionError):
                if path in (base / "cmdline").read_bytes() or mark in (base / "environ").read_bytes().split(
                    b"\0"
                ):
                    found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)
