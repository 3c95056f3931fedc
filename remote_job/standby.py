"""A training's process that is started before it is known what to train, and imports PyTorch until it is told."""

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.remote_job.speed import compiler, garbage
from gpu_offload.remote_job.yolo import isolation


def spec_path() -> tuple[Path, float]:
    """Import PyTorch, and return the path that was sent, with the seconds for which nothing was left to do but wait.

    Where standard input ends first, the process is not needed, or its parent is gone: it ends at once.
    """
    lines: list[bytes] = []

    def listen() -> None:
        line = sys.stdin.buffer.readline()
        if not line:
            os._exit(EXIT_RESUMABLE)
        lines.append(line)

    listener = threading.Thread(target=listen, name="standby", daemon=True)
    listener.start()
    os.environ.update(isolation.variables())
    with (
        garbage.left_out("torch"),
        contextlib.suppress(Exception),
    ):  # the training says what cannot be imported
        compiler.import_torchvision()
    begun = time.perf_counter()
    listener.join()
    return Path(json.loads(lines[0])), time.perf_counter() - begun
