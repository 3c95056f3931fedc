"""The TCP connection below SSH: notices a silent cut within 10 s."""

import socket

UNACKNOWLEDGED_MS = 5_000
"""TCP_USER_TIMEOUT: how long sent data may stay unacknowledged before the connection counts as dead."""

IDLE_S, PROBE_EVERY_S, PROBES = 3, 1, 3
"""SO_KEEPALIVE: an idle connection that is cut is noticed after IDLE_S + PROBE_EVERY_S * PROBES seconds.

paramiko's own keep-alive sends and waits for no answer, so it cannot notice a cut.
"""


def connect(host: str, port: int, timeout: float) -> socket.socket:
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
