"""This machine, with the three verbs of a host."""

import os
import subprocess
import tempfile
import threading
from codecs import getincrementaldecoder
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL
from typing import IO

from gpu_offload.infra.ssh.host import (
    CommandFailedError,
    CommandTimeoutError,
    Completed,
    HostError,
    Stream,
    shell_text,
)

CHUNK = 65_536


class LocalHost:
    """Runs commands through `sh`, each in a process group of its own so that a time-out ends all of it.

    Args:
        environment: added to this process's environment.
        directory: where commands run and relative paths begin; this process's own by default.
    """

    def __init__(self, environment: dict[str, str] | None = None, directory: Path | None = None) -> None:
        self.name = "this machine"
        self._environment = {**os.environ, **(environment or {})}
        self._directory = directory or Path.cwd()

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout: float,
        check: bool = True,
        stdin: bytes = b"",
        stream: Stream | None = None,
    ) -> Completed:
        """See `infra.host.Host.run`."""
        text = shell_text(command)
        with subprocess.Popen(
            ["/bin/sh", "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            cwd=self._directory,
            start_new_session=True,
        ) as process:
            completed = _follow(process, stdin, stream, timeout, f"{self.name}: `{text[:200]}`")
        if check and completed.exit_code != 0:
            raise CommandFailedError(self.name, text, completed)
        return completed

    def put(self, data: bytes | Path, remote: str, mode: int = 0o600) -> None:
        """See `infra.host.Host.put`."""
        target = self._directory / remote
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(target, data if isinstance(data, bytes) else data.read_bytes(), mode)
        except OSError as error:
            raise HostError(f"{self.name}: cannot write {remote}: {error}") from error

    def get(self, remote: str, local: Path) -> None:
        """See `infra.host.Host.get`."""
        try:
            _write_whole(local, (self._directory / remote).read_bytes(), 0o600)
        except OSError as error:
            raise HostError(f"{self.name}: cannot read {remote}: {error}") from error

    def close(self) -> None:
        """See `infra.host.Host.close`."""


def _follow(
    process: subprocess.Popen[bytes], stdin: bytes, stream: Stream | None, timeout: float, what: str
) -> Completed:
    """Feed and drain a process until it ends, at most `timeout` seconds."""
    out, err = bytearray(), bytearray()
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    threads = [
        threading.Thread(target=_drain, args=(process.stdout, out, stream), daemon=True),
        threading.Thread(target=_drain, args=(process.stderr, err, None), daemon=True),
        threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired as error:
        raise CommandTimeoutError(f"{what} did not end within {timeout:g} s") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, SIGKILL)
        # A child in the background may hold the pipes open: wait a little for what is still in them.
        for thread in threads:
            thread.join(1.0)
    return Completed(process.returncode, bytes(out), bytes(err))


def _drain(pipe: IO[bytes], into: bytearray, stream: Stream | None) -> None:
    decoder = getincrementaldecoder("utf-8")("replace")
    while chunk := os.read(pipe.fileno(), CHUNK):
        into += chunk
        if stream is not None:
            stream(decoder.decode(chunk))


def _feed(pipe: IO[bytes], data: bytes) -> None:
    try:
        with pipe:
            pipe.write(data)
    except BrokenPipeError:
        pass  # the command ended without reading all of it, which is its right


def _write_whole(target: Path, data: bytes, mode: int) -> None:
    """Write beside the target, then rename, so that nobody sees half a file."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
