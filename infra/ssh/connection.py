"""Opens a fabric connection: pinned host key, our socket, none of the user's settings."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_offload.infra.ssh.errors import HostAuthError, HostKeyMismatchError, HostUnreachableError
from gpu_offload.infra.ssh.key import ClientKey, PublicKey

if TYPE_CHECKING:
    import fabric
    import paramiko

UNACKNOWLEDGED_MS = 5_000
"""TCP_USER_TIMEOUT: how long sent data may stay unacknowledged before the connection counts as dead."""

IDLE_S, PROBE_EVERY_S, PROBES = 3, 1, 3
"""SO_KEEPALIVE: an idle connection that is cut is noticed after IDLE_S + PROBE_EVERY_S * PROBES seconds.

paramiko's own keep-alive sends and waits for no answer, so it cannot notice a cut.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the host listens and the user to log in as."""

    host: str
    port: int = 22
    user: str = "offload"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


def open_connection(
    address: Address, key: ClientKey, host_key: PublicKey, timeout: float
) -> "fabric.Connection":
    """Connect once: socket, key exchange, the host's identity, then ours; in this order, `timeout` seconds for each.

    Raises:
        HostUnreachableError: nothing answers there, or not SSH.
        HostKeyMismatchError: another server answers than the one with `host_key`.
        HostAuthError: our key was refused.
    """
    import fabric

    # paramiko logs tracebacks, which Python prints where no logging is set up; we raise typed errors instead.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    try:
        sock = _connected(address.host, address.port, timeout)
    except OSError as error:
        raise HostUnreachableError(f"{address}: no connection: {error}") from error
    connection = fabric.Connection(
        address.host,
        user=address.user,
        port=address.port,
        config=_own_config(),
        connect_kwargs={
            "sock": sock,
            "pkey": key.paramiko(),
            # The user's own keys would be offered first, and a server allows few attempts.
            "allow_agent": False,
            "look_for_keys": False,
            "timeout": timeout,
            "banner_timeout": timeout,
            "auth_timeout": timeout,
            "channel_timeout": timeout,
        },
    )
    _pin(connection.client, host_key)
    try:
        with _as_host_errors(address):
            connection.open()
    except BaseException:
        connection.client.close()  # fabric closes only what it has opened
        sock.close()
        raise
    return connection


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    """Connect within `timeout` seconds. Raises OSError.

    The kernel ends the connection when packets are dropped silently, also while it is idle:
    test_a_silent_cut_is_noticed_within_ten_seconds_waiting_or_sending.
    """
    connection = socket.create_connection((host, port), timeout=timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_USER_TIMEOUT": UNACKNOWLEDGED_MS,
        "TCP_KEEPIDLE": IDLE_S,
        "TCP_KEEPINTVL": PROBE_EVERY_S,
        "TCP_KEEPCNT": PROBES,
    }
    for name, value in options.items():
        # Not every system that the launcher may run on has all four (macOS lacks the first).
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def _own_config() -> "fabric.Config":
    """Return fabric's defaults with our runner. `lazy` reads no file of invoke's and fabric's, `ssh_config` none of
    SSH's: test_the_users_own_ssh_and_fabric_settings_are_not_read.

    Nothing asks for this process's user name, because the host's user is always given. A uid may have no name, and
    `getpass` raises OSError then from Python 3.13 on, which fabric and paramiko do not expect:
    test_a_user_without_a_name_connects.
    """
    import fabric
    import paramiko

    from gpu_offload.infra.ssh.runner import BinaryRunner

    class Empty(paramiko.SSHConfig):
        def lookup(self, hostname: str) -> paramiko.SSHConfigDict:
            return paramiko.SSHConfigDict(hostname=hostname)

    fabric.config.get_local_user = lambda: None
    return fabric.Config(lazy=True, ssh_config=Empty(), overrides={"runners": {"remote": BinaryRunner}})


def _pin(client: "paramiko.SSHClient", expected: PublicKey) -> None:
    """Accept one host key only. fabric's own policy accepts and remembers any."""
    import paramiko

    class Pinned(paramiko.MissingHostKeyPolicy):
        def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002 - paramiko's
            if key.asbytes() != expected.blob:
                raise HostKeyMismatchError(
                    f"{hostname}: the server is not our instance: expected {expected}, got {key.get_name()} "
                    f"{key.get_base64()}. Nothing was sent; terminate the instance and start again."
                )

    client.set_missing_host_key_policy(Pinned())


@contextmanager
def _as_host_errors(address: Address) -> Iterator[None]:
    """Turn what paramiko raises while connecting into a HostError."""
    import paramiko

    try:
        yield
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise HostKeyMismatchError(
            f"{address}: the server is not our instance, which has all that we ask for: {error}"
        ) from error
    except paramiko.AuthenticationException as error:
        raise HostAuthError(
            f"{address}: our key was refused: {error}. Did cloud-init create the user? See its console output."
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise HostUnreachableError(f"{address}: no SSH there: {error or type(error).__name__}") from error
