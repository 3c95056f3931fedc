"""fabric's command runner, made safe for binary data of any size."""

from contextlib import suppress
from typing import IO

from fabric.runners import Remote
from paramiko import SSHException

BYTES = "latin-1"
"""The encoding that maps every byte to one character and back: with it fabric's text is bytes unchanged."""

CHUNK = 1 << 20

ENDED = (OSError, EOFError, SSHException)
"""Raised by paramiko when it sends after the connection or the command has ended."""


class BinaryRunner(Remote):  # type: ignore[misc]  # fabric has no types
    """Runs one command. Four things differ from fabric; tests/infra/test_ssh_client.py has a test for each."""

    read_chunk_size = CHUNK

    def read_our_stdin(self, input_: IO[bytes]) -> str:
        """Read a chunk of standard input; invoke reads one byte every 10 ms, as from a terminal."""
        # An empty text ends the input: a command that has ended must not keep its reader waiting.
        return "" if self.process_is_finished else self.decode(input_.read(CHUNK))

    def _write_proc_stdin(self, data: bytes) -> None:
        # A command may end without reading its input; a lost connection shows in the exit code.
        with suppress(*ENDED):
            super()._write_proc_stdin(data)

    def close_proc_stdin(self) -> None:
        """Send the end of standard input."""
        with suppress(*ENDED):
            super().close_proc_stdin()

    def respond(self, buffer_: list[str]) -> None:
        """Do nothing: without watchers, joining all output so far for each chunk is wasted."""

    def wait(self) -> None:
        """Wait for the command's end; an interrupt closes the channel, which ends the reading threads, too."""
        try:
            super().wait()
        except BaseException:
            self.channel.close()
            raise
