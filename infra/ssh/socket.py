"""The TCP connection below SSH: notices a silent cut within 10 s, and counts bytes."""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

UNACKNOWLEDGED_MS = 5_000
"""TCP_USER_TIMEOUT: how long sent data may stay unacknowledged before the connection counts as dead."""

IDLE_S, PROBE_EVERY_S, PROBES = 3, 1, 3
"""SO_KEEPALIVE: an idle connection that is cut is noticed after IDLE_S + PROBE_EVERY_S * PROBES seconds.

paramiko's own keep-alive sends and waits for no answer, so it cannot notice a cut.
"""


@dataclass(slots=True)
class SocketTraffic:
    """Bytes sent and received, over all connections to a host."""

    sent: int = 0
    received: int = 0


def connect(host: str, port: int, timeout: float, traffic: SocketTraffic) -> "CountedSocket":
    """Connect within `timeout` seconds. Raises OSError."""
    connection = CountedSocket(socket.create_connection((host, port), timeout=timeout), traffic)
    _notice_silent_cuts(connection)
    return connection


def _notice_silent_cuts(connection: socket.socket) -> None:
    """Let the kernel end the connection when packets are dropped silently, also while it is idle.

    test_a_silent_cut_is_noticed_within_ten_seconds_waiting_or_sending
    """
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


class CountedSocket(socket.socket):
    """A connection that counts bytes. Takes over an open one, which is unusable afterwards."""

    def __init__(self, plain: socket.socket, traffic: SocketTraffic) -> None:
        timeout = plain.gettimeout()  # a socket from a descriptor starts without one
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self.settimeout(timeout)
        self._traffic = traffic

    def send(self, data: "Buffer", flags: int = 0, /) -> int:
        """See `socket.socket.send`."""
        sent = super().send(data, flags)
        self._traffic.sent += sent
        return sent

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """See `socket.socket.recv`."""
        data = super().recv(size, flags)
        self._traffic.received += len(data)
        return data
