"""An instance over SSH: the host key pinned before the first packet, a silent cut noticed within seconds.

Nothing of the developer's own SSH set-up is read: no config file, no known hosts, no agent, no key files.
"""

import logging
import random
import shlex
import socket
import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gpu_offload.infra.ssh.host import (
    CommandFailedError,
    CommandTimeoutError,
    Completed,
    ConnectionLostError,
    HostAuthError,
    HostError,
    HostKeyMismatchError,
    HostUnreachableError,
    Stream,
    shell_text,
)
from gpu_offload.infra.ssh.key import ALGORITHM, ClientKey, PublicKey
from gpu_offload.infra.ssh.socket import CountedSocket, Traffic, notice_silent_cuts

if TYPE_CHECKING:
    import paramiko

CHUNK = 65_536

TRANSFER_S = 600.0
"""Seconds that a file may take; a cut is noticed much earlier."""

PUT = (
    "umask 077; mkdir -p {folder} && cat >{part} && "
    '[ "$(wc -c <{part})" -eq {size} ] && chmod {mode:o} {part} && mv -f {part} {target}'
)
"""A file arrives beside its name and is renamed once its size is right: a lost connection looks to `cat` like
the end of the file."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the host listens and as whom to log in."""

    host: str
    port: int = 22
    user: str = "offload"

    def __str__(self) -> str:
        """Return `user@host`, with the port where it is not the usual one."""
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


def delays(jitter: Callable[[], float], *, first: float = 0.5, longest: float = 8.0) -> Iterator[float]:
    """Yield seconds to wait before the next try: doubling up to `longest`, each shortened by up to half.

    Args:
        jitter: returns numbers in [0, 1).
        first: seconds before the second try, unshortened.
        longest: seconds that no wait exceeds.
    """
    delay = first
    while True:
        yield delay * (1 - jitter() / 2)
        delay = min(longest, delay * 2)


class SshHost:
    """A host reached with paramiko. Connects when first used, and again after a loss.

    Args:
        address: where and as whom.
        key: our identity.
        host_key: the one key that the host may show; any other is an impostor.
        patience: seconds that `run`, `put` and `get` try to (re)connect.
        connect_timeout: seconds for one try.
        clock: monotonic seconds.
        sleep: waits that many seconds.
        jitter: returns numbers in [0, 1).
    """

    def __init__(
        self,
        address: Address,
        key: ClientKey,
        host_key: PublicKey,
        *,
        patience: float = 30.0,
        connect_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = str(address)
        self.traffic = Traffic()
        self.address = address
        self._key = key
        self._host_key = host_key
        self._patience = patience
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._transport: paramiko.Transport | None = None

    def __enter__(self) -> Self:
        """Return itself; the connection is made when it is first needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def connect(self, within: float | None = None) -> None:
        """Connect if not connected, trying again with growing pauses while nobody answers.

        Args:
            within: seconds to go on trying; `patience` by default; 0 tries once.

        Raises:
            HostUnreachableError: nobody answered in time.
            HostKeyMismatchError: an impostor answered; at once.
            HostAuthError: our key was refused; at once.
        """
        if self._transport is not None and self._transport.is_active():
            return
        self.close()
        end = self._clock() + (self._patience if within is None else within)
        for delay in delays(self._jitter):
            try:
                self._transport = self._open()
            except HostUnreachableError:
                if self._clock() + delay >= end:
                    raise
                self._sleep(delay)
            else:
                return

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout: float,
        check: bool = True,
        stdin: bytes = b"",
        stream: Stream | None = None,
    ) -> Completed:
        """See `infra.host.Host.run`. A lost connection is not retried: the command may have run.

        Raises:
            ConnectionLostError: it ended while the command was running.
        """
        text = shell_text(command)
        out = bytearray()

        def keep(chunk: bytes) -> None:
            out.extend(chunk)

        decoder = getincrementaldecoder("utf-8")("replace")

        def keep_and_tell(chunk: bytes) -> None:
            out.extend(chunk)
            if stream is not None:
                stream(decoder.decode(chunk))

        code, stderr = self._execute(text, timeout, stdin, keep if stream is None else keep_and_tell)
        completed = Completed(code, bytes(out), stderr)
        if check and code != 0:
            raise CommandFailedError(self.name, text, completed)
        return completed

    def put(self, data: bytes | Path, remote: str, mode: int = 0o600) -> None:
        """See `infra.host.Host.put`. Goes through a command's standard input: the host needs no SFTP."""
        body = data if isinstance(data, bytes) else data.read_bytes()
        folder = remote.rpartition("/")[0] or "."
        words = {"folder": folder, "part": f"{remote}.part", "target": remote}
        text = PUT.format(
            mode=mode, size=len(body), **{name: shlex.quote(word) for name, word in words.items()}
        )
        self.run(f"sh -c {shlex.quote(text)}", timeout=TRANSFER_S, stdin=body)

    def get(self, remote: str, local: Path) -> None:
        """See `infra.host.Host.get`."""
        part = local.with_name(f".{local.name}.part")
        try:
            with part.open("wb") as file:
                self._check_zero(f"cat -- {shlex.quote(remote)}", file.write)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def _check_zero(self, text: str, take: Callable[[bytes], object]) -> None:
        code, stderr = self._execute(text, TRANSFER_S, b"", take)
        if code != 0:
            raise CommandFailedError(self.name, text, Completed(code, b"", stderr))

    def close(self) -> None:
        """See `infra.host.Host.close`."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _open(self) -> "paramiko.Transport":
        """Connect once: socket, key exchange, the host's identity, then ours; in this order."""
        import paramiko

        # Without a handler the logging module prints paramiko's tracebacks; we raise typed errors instead.
        logging.getLogger("paramiko").addHandler(logging.NullHandler())
        try:
            plain = socket.create_connection(
                (self.address.host, self.address.port), timeout=self._connect_timeout
            )
        except OSError as error:
            raise HostUnreachableError(f"{self.name}: no connection: {error}") from error
        notice_silent_cuts(plain)
        connection = CountedSocket(plain, self.traffic)
        transport = paramiko.Transport(connection)
        try:
            transport.banner_timeout = transport.auth_timeout = self._connect_timeout
            # The planted key is the only one we know, so its algorithm is the only one we speak.
            transport.get_security_options().key_types = (ALGORITHM,)
            self._greet(transport)
            with _as_host_errors(self.name):
                transport.auth_publickey(self.address.user, self._key.paramiko())
        except BaseException:
            transport.close()
            connection.close()
            raise
        return transport

    def _greet(self, transport: "paramiko.Transport") -> None:
        """Exchange keys and check who answers, before anything of ours is sent."""
        import paramiko

        with _as_host_errors(self.name):
            try:
                transport.start_client(timeout=self._connect_timeout)
            except paramiko.ssh_exception.IncompatiblePeer as error:
                raise HostKeyMismatchError(
                    f"{self.name}: whoever answers has no {ALGORITHM} host key, ours was planted: {error}"
                ) from error
            shown = transport.get_remote_server_key().asbytes()
        if shown != self._host_key.blob:
            raise HostKeyMismatchError(
                f"{self.name}: whoever answers is not our instance: expected {self._host_key}, "
                f"got {PublicKey(shown)}. Nothing was sent; terminate the instance and start again."
            )

    def _execute(
        self, text: str, timeout: float, stdin: bytes, take: Callable[[bytes], object]
    ) -> tuple[int, bytes]:
        """Run to the end and return exit code and standard error."""
        self.connect()
        transport = self._transport
        if transport is None:  # pragma: no cover - connect has set it or raised
            raise HostUnreachableError(f"{self.name}: not connected")
        end = self._clock() + timeout
        with _as_connection_lost(self.name, text):
            channel = transport.open_session(timeout=self._connect_timeout)
        stderr = bytearray()
        threads = [
            threading.Thread(target=_drain_stderr, args=(channel, stderr), daemon=True),
            threading.Thread(target=_feed, args=(channel, stdin), daemon=True),
        ]
        try:
            with _as_connection_lost(self.name, text):
                channel.exec_command(text)
            for thread in threads:
                thread.start()
            while True:
                # A transport that dies closes its channels, which ends this wait long before the time-out.
                channel.settimeout(max(0.0, end - self._clock()))
                try:
                    chunk = channel.recv(CHUNK)
                except TimeoutError as error:
                    raise CommandTimeoutError(
                        f"{self.name}: `{text[:200]}` did not end within {timeout:g} s"
                    ) from error
                if not chunk:
                    break
                take(chunk)
            if not channel.status_event.wait(max(0.0, end - self._clock())):
                raise CommandTimeoutError(f"{self.name}: `{text[:200]}` did not end within {timeout:g} s")
            threads[0].join(self._connect_timeout)
            code = channel.exit_status
            if code == -1 and not transport.is_active():
                raise ConnectionLostError(f"{self.name}: the connection ended during `{text[:200]}`")
            return code, bytes(stderr)
        finally:
            channel.close()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(self._connect_timeout)


def _drain_stderr(channel: "paramiko.Channel", into: bytearray) -> None:
    try:
        while chunk := channel.recv_stderr(CHUNK):
            into.extend(chunk)
    except OSError:
        pass  # closed under us: the command's end is reported where standard output is read


def _feed(channel: "paramiko.Channel", data: bytes) -> None:
    import paramiko

    try:
        channel.sendall(data)
        channel.shutdown_write()
    except (OSError, EOFError, paramiko.SSHException):
        pass  # the command ended, or the connection did, without reading all of it


@contextmanager
def _as_host_errors(name: str) -> Iterator[None]:
    """Say in our words what paramiko says while connecting."""
    import paramiko

    try:
        yield
    except HostError:
        raise
    except paramiko.AuthenticationException as error:
        raise HostAuthError(
            f"{name}: our key was refused: {error}. Did cloud-init create the user? See its console output."
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise HostUnreachableError(f"{name}: no SSH there: {error or type(error).__name__}") from error


@contextmanager
def _as_connection_lost(name: str, text: str) -> Iterator[None]:
    import paramiko

    try:
        yield
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise ConnectionLostError(f"{name}: the connection ended before `{text[:200]}`: {error}") from error
