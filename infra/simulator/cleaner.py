"""Removes a simulated cloud's files when its process dies."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_offload.infra.simulator.instance_file import SYSTEM_PATH

SCRIPT = 'if read -r _; then exit; fi; sleep 1; rm -rf "$1"; [ -z "$2" ] || sh -c "$2"'
"""Waits for the end of the cloud. A line means that the cloud has cleaned up by itself."""


@contextmanager
def cleaner(folder: Path, command: str) -> Iterator[None]:
    """Run a process that removes the folder, and runs the command, if this process dies inside the block."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", SCRIPT, "gpu-offload-cleaner", str(folder), command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Apart from this process's terminal, folder and variables: it has to outlive them.
        start_new_session=True,
        cwd="/",
        env={"PATH": SYSTEM_PATH},
    )
    try:
        yield
    finally:
        process.communicate(b"done\n", timeout=10)
