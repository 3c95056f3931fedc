"""SSH to an instance by fabric: pinned host key, silent cuts noticed within 10 s, no settings of the user's."""

import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from gpu_offload.infra.retry import attempts
from gpu_offload.infra.ssh.connection import Address, open_connection
from gpu_offload.infra.ssh.errors import (
    CommandFailedError,
    CommandTimeoutError,
    Completed,
    ConnectionLostError,
    HostUnreachableError,
)
from gpu_offload.infra.ssh.key import ClientKey, PublicKey

if TYPE_CHECKING:
    import fabric

TRANSFER_S = 600.0
"""Seconds that a file may take; a cut is noticed much earlier."""

PUT = (
    "umask 077; mkdir -p {folder} && cat >{part} && "
    '[ "$(wc -c <{part})" -eq {size} ] && chmod {mode:o} {part} && mv -f {part} {target}'
)
"""Writes a file beside its name and renames it once its size is right: to `cat`, a lost connection looks like the
end of the file."""


class SshHost:
    """A host reached over SSH. Connects when first used, and again after the connection was lost.

    `host_key` is the only key that it may present. (Re)connecting is tried for `patience` seconds, once for 0.
    """

    def __init__(
        self,
        address: Address,
        key: ClientKey,
        host_key: PublicKey,
        *,
        patience: float = 30.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self.name = str(address)
        self.address = address
        self._key = key
        self._host_key = host_key
        self._patience = patience
        self._connect_timeout = connect_timeout
        self._connection: fabric.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> "fabric.Connection":
        """Return the open connection; connect where there is none, with growing waits while nothing answers.

        Raises:
            HostUnreachableError: nothing answered in time.
            HostKeyMismatchError: another server answered; raised at once.
            HostAuthError: our key was refused; raised at once.
        """
        if self._connection is None or not self._connection.is_connected:
            self.close()  # a connection that was lost still has its socket
            for attempt in attempts(
                HostUnreachableError, first=0.5, longest=2.0, tries=None, within=self._patience
            ):
                with attempt:
                    self._connection = open_connection(
                        self.address, self._key, self._host_key, self._connect_timeout
                    )
        return self._connection

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout: float,
        check: bool = True,
        stdin: bytes | IO[bytes] = b"",
    ) -> Completed:
        """Run a command to its end. It is not repeated after a lost connection: it may have run.

        A string is for the login shell, a sequence is quoted for it. An exit code other than 0 is an error with `check`.

        Raises:
            CommandFailedError, CommandTimeoutError: as the arguments say.
            ConnectionLostError: the connection ended while the command was running.
            HostError: as `connect` raises it.
        """
        import invoke
        import paramiko

        from gpu_offload.infra.ssh.runner import BYTES

        text = command if isinstance(command, str) else shlex.join(command)
        connection = self.connect()
        try:
            done = connection.run(
                text,
                hide=True,
                warn=True,
                timeout=timeout,
                encoding=BYTES,  # the output need not be text
                in_stream=io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin,
            )
        except invoke.CommandTimedOut as error:
            raise CommandTimeoutError(
                f"{self.name}: `{text[:200]}` did not end within {timeout:g} s"
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(
                f"{self.name}: the connection ended before `{text[:200]}`: {error}"
            ) from error
        if done.exited == -1:
            # No exit code: a signal ended the command, or the connection ended, whose thread then ends at once.
            connection.transport.join(0.5)
            if not connection.is_connected:
                raise ConnectionLostError(f"{self.name}: the connection ended during `{text[:200]}`")
        completed = Completed(done.exited, done.stdout.encode(BYTES), done.stderr.encode(BYTES))
        if check and completed.exit_code != 0:
            raise CommandFailedError(self.name, text, completed)
        return completed

    # fabric's own put needs an SFTP server on the host, which a minimal one lacks, and writes in place.
    # This one needs a shell, and the file has its name only once it is whole:
    # test_an_upload_that_is_cut_short_leaves_the_old_file, test_files_arrive_whole_and_private.

    def put(self, data: bytes | Path, remote: str, mode: int = 0o600) -> None:
        """Write a file whole or not at all, with these permissions; make its folder where it is missing."""
        with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as body:
            size = body.seek(0, io.SEEK_END)
            body.seek(0)
            # One name for the part: a second upload after a lost connection replaces what the first one left.
            words = {"folder": remote.rpartition("/")[0] or ".", "part": f"{remote}.part", "target": remote}
            quoted = {name: shlex.quote(word) for name, word in words.items()}
            self.run(["sh", "-c", PUT.format(mode=mode, size=size, **quoted)], timeout=TRANSFER_S, stdin=body)

    def close(self) -> None:
        """End the connection, where there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
