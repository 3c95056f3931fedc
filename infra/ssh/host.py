"""A machine that runs commands and takes files: this one, or an instance over SSH. One protocol for both."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpu_offload.errors import OffloadError

Stream = Callable[[str], None]
"""Called with each piece of decoded standard output as it arrives; pieces are not lines."""

TAIL = 2_000
"""Characters of standard error that an error's text quotes."""


class HostError(OffloadError):
    """The host could not do what was asked; the text says where and what to do."""


class HostUnreachableError(HostError):
    """Nobody answers at the address: not up yet, gone, or the network is cut. Worth another try."""


class HostKeyMismatchError(HostError):
    """Somebody answers at the address but is not our host. Never try again, never ignore."""


class HostAuthError(HostError):
    """The host is ours but does not accept our key."""


class ConnectionLostError(HostError):
    """The connection ended while a command was running; whether the command goes on is unknown."""


class CommandTimeoutError(HostError):
    """The command did not end in time; on a remote host it may still be running."""


class CommandFailedError(HostError):
    """The command ended with another exit code than 0."""

    def __init__(self, where: str, command: str, completed: "Completed") -> None:
        self.command = command
        self.completed = completed
        tail = completed.stderr.decode(errors="replace").strip()[-TAIL:]
        super().__init__(
            f"{where}: exit code {completed.exit_code} from `{command[:200]}`" + (f": {tail}" if tail else "")
        )


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left: bytes as they came, because nothing promises that they are text.

    `exit_code` is negative where a signal ended the command.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text. It is the other machine's word: escape it before printing."""
        return self.stdout.decode(errors="replace")


class Host(Protocol):
    """Run, put, get. All three raise HostError's kinds and nothing else for what goes wrong on the way."""

    name: str
    """For messages: who and where."""

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout: float,
        check: bool = True,
        stdin: bytes = b"",
        stream: Stream | None = None,
    ) -> Completed:
        """Run a command to its end; a string is given to the login shell, a sequence is quoted for it.

        Args:
            command: what to run.
            timeout: seconds until CommandTimeoutError.
            check: raise CommandFailedError for an exit code other than 0.
            stdin: what the command reads.
            stream: told of standard output as it arrives.
        """

    def put(self, data: bytes | Path, remote: str, mode: int = 0o600) -> None:
        """Write a file whole or not at all, with these permissions; its folder is made where it is missing."""

    def get(self, remote: str, local: Path) -> None:
        """Read a file into a local one, whole or not at all."""

    def close(self) -> None:
        """End the connection; harmless when there is none."""


def shell_text(command: Sequence[str] | str) -> str:
    """Return the command as one text for a POSIX shell."""
    return command if isinstance(command, str) else shlex.join(command)
