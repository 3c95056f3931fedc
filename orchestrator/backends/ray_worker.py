"""The training module as a process on a node of a Ray cluster, started by a task or a job.

The functions, or this file, are sent there with our package: a node needs Python and what the training imports, but not
gpu-offload. So this file imports only the standard library.
"""

import contextlib
import fcntl
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

POLL_S = 0.2
KEEP_S = 120.0
"""How long a training that is stopped may take to reach the end of its batch and to upload its checkpoint."""
CHECK_S = 120.0
TAIL_LINES = 15
ANSWER = "gpu-offload answers: "
"""How the line of a job's log begins that holds the answer."""

CHECK = """
import importlib.util, json, sys
given = json.load(sys.stdin)
import gpu_offload.remote_job.__main__
from gpu_offload.infra.store.factory import open_store
missing = [name for name in given["modules"] if importlib.util.find_spec(name) is None]
store, fault = given["store"], None
try:
    found = open_store(store["url"], endpoint_url=store["endpoint_url"], region=store["region"]).read(given["key"])[0]
    fault = None if found == given["body"].encode() else "it holds something else there"
except Exception as error:
    fault = f"{type(error).__name__}: {error}"
print(json.dumps({"missing": missing, "store": fault}))
"""
"""Imports the training module, looks for what it imports later, and reads a test object from the store."""


def check(package: bytes, given: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """Return what a training would miss on this node: `missing` modules, and why the `store` cannot be read."""
    with _folder("check") as (folder, _lock):
        done = subprocess.run(
            [sys.executable, "-P", "-c", CHECK],
            input=json.dumps(given),
            env=_environment(package, folder, variables),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHECK_S,
            check=False,
        )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if last.startswith("ModuleNotFoundError: No module named "):
        return {"missing": [last.split("'")[1].partition(".")[0]], "store": None}
    return {"missing": [], "store": None, "fault": last}


def train(
    package: bytes,
    name: str,
    spec: dict[str, Any],
    project: bytes | None,
    variables: dict[str, str],
    until: float,
) -> tuple[int, str]:
    """Train and return the exit code of the training module and its last words.

    `spec` is a TrainingSpec without `output`, `project` a tar archive of the user's files. If cancelled (Ray raises
    KeyboardInterrupt), or past `until` (Unix seconds), it stops with a checkpoint in the store.
    """
    with _folder(name) as (folder, lock):
        spec = spec | {"output": str(folder / "output")}
        if project is not None:
            with tarfile.open(fileobj=io.BytesIO(project)) as archive:
                archive.extractall(folder / "project", filter="data")
        if spec["project"] is not None:
            spec["project"] = str(folder / "project")
        if spec["model"].startswith("project/"):
            spec["model"] = str(folder / spec["model"])
        (folder / "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(folder / "spec.json")]
        process = subprocess.Popen(
            [*command, "--parent-stdin"],
            env=_environment(package, folder, variables),
            stdin=subprocess.PIPE,  # its end says that this process is gone, however it ended
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(lock,),
        )
        said: deque[str] = deque(maxlen=TAIL_LINES)
        reader = Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        reader.start()
        code = _watched(process, until)
        reader.join(timeout=5)
        return code, "".join(said).strip()


def _watched(process: "subprocess.Popen[str]", until: float) -> int:
    """Wait for the training; stop it when cancelled or past `until`, gently at first."""
    kill_at = math.inf
    while process.poll() is None:
        try:
            time.sleep(POLL_S)  # short: what Ray raises does not interrupt a system call
            told = time.time() >= until
        except KeyboardInterrupt:
            told = True
        if told and kill_at == math.inf:
            kill_at = time.time() + KEEP_S
            process.terminate()
        elif time.time() >= kill_at:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def _environment(package: bytes, folder: Path, variables: dict[str, str]) -> dict[str, str]:
    code = folder / "package"
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        archive.extractall(code)  # noqa: S202 - our own
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def _folder(name: str) -> Iterator[tuple[Path, int]]:
    """Yield a temporary folder and the descriptor of its lock, which the training inherits; remove dead ones."""
    base = Path(tempfile.gettempdir()) / f"gpu-offload-ray-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise PermissionError(f"{base} belongs to another user")
    for old in base.glob("*.lock"):
        with old.open("w") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old.with_suffix(""), ignore_errors=True)
            old.unlink(missing_ok=True)
    number, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".lock", dir=base)
    folder = Path(path).with_suffix("")
    with os.fdopen(number, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder.mkdir(mode=0o700)
        try:
            yield folder, file.fileno()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(path).unlink(missing_ok=True)


def main() -> None:
    """Do what the working folder's `order.json` says, as the entrypoint of a Ray job, and print the answer."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    here = Path.cwd()
    order, package = json.loads((here / "order.json").read_text()), (here / "package.zip").read_bytes()
    if order["function"] == "check":
        answer: object = check(package, *order["arguments"])
    else:
        project = here / "project.tar"
        name, spec, variables, until = order["arguments"]
        body = project.read_bytes() if project.is_file() else None
        answer = train(package, name, spec, body, variables, until)
    sys.stdout.write(f"\n{ANSWER}{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
