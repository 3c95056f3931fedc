"""Errors of SSH connections and remote commands, and what a finished command returned."""

from dataclasses import dataclass

from gpu_offload.errors import OffloadError

TAIL = 2_000
"""Characters of standard error quoted in an error message."""


class HostError(OffloadError):
    """The host could not do what was asked; the text says where and what to do."""


class HostUnreachableError(HostError):
    """Nothing answers at the address: not up yet, gone, or the network is cut. Worth another attempt."""


class HostKeyMismatchError(HostError):
    """The server at the address is not our host. Never retry, never ignore."""


class HostAuthError(HostError):
    """The host is ours but does not accept our key."""


class ConnectionLostError(HostError):
    """The connection ended while a command was running; the command may still be running."""


class CommandTimeoutError(HostError):
    """The command did not end in time; it may still be running on the host."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Exit code and output of a finished command. The output is bytes: it need not be text.

    `exit_code` is negative where a signal ended the command.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text. It comes from another machine: escape it before printing."""
        return self.stdout.decode(errors="replace")


class CommandFailedError(HostError):
    """The command ended with an exit code other than 0."""

    def __init__(self, where: str, command: str, completed: Completed) -> None:
        self.command = command
        self.completed = completed
        tail = completed.stderr.decode(errors="replace").strip()[-TAIL:]
        super().__init__(
            f"{where}: exit code {completed.exit_code} from `{command[:200]}`" + (f": {tail}" if tail else "")
        )
