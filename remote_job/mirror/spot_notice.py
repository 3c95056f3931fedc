"""Watches for the end of a spot instance: the two-minute notice and the rebalance recommendation.

Documented in the EC2 user guide ("Spot Instance interruption notices", "EC2 instance rebalance
recommendations"): both appear in the instance metadata, 404 until then, behind an IMDSv2 session token.
"""

import json
import threading
from collections.abc import Callable

from gpu_offload.infra import http

ENDPOINT = "http://169.254.169.254"
INTERVAL = 5.0
"""Seconds between two looks; AWS recommends every five."""
TOKEN_SECONDS = 21600
TIMEOUT = 2.0

ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class Metadata:
    """The instance metadata service, version 2."""

    def __init__(self, endpoint: str = ENDPOINT) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token: str | None = None

    def read(self, path: str) -> str | None:
        """Return what is at a path, None where nothing is (404) or the service does not answer."""
        for _ in range(2):
            try:
                if self._token is None:
                    self._token = self._request(
                        "/latest/api/token", "PUT", "X-aws-ec2-metadata-token-ttl-seconds"
                    )
                return self._request(path, "GET", "X-aws-ec2-metadata-token")
            except http.StatusError as error:
                if error.status != 401:
                    return None
                self._token = None  # it expired
            except http.HttpError:
                return None
        return None

    def _request(self, path: str, method: str, header: str) -> str:
        value = str(TOKEN_SECONDS) if method == "PUT" else str(self._token)
        with http.ask(
            self._endpoint + path, method=method, headers={header: value}, timeout=TIMEOUT, metadata=True
        ) as answer:
            return http.read(answer, limit=65536).decode()


def reason(metadata: Metadata) -> str | None:
    """Return why the instance should be left, in a sentence; None as long as it should not."""
    if (text := metadata.read(ACTION)) is not None:
        return f"spot interruption notice: {_field(text, 'action', 'reclaim')} at {_field(text, 'time', 'any moment')}"
    if (text := metadata.read(REBALANCE)) is not None:
        return f"rebalance recommendation of {_field(text, 'noticeTime', 'now')}"
    return None


def _field(text: str, name: str, otherwise: str) -> str:
    try:
        return str(json.loads(text)[name])
    except (ValueError, KeyError, TypeError):
        return otherwise


def watch(endpoint: str, stop: Callable[[str], None], *, interval: float = INTERVAL) -> Callable[[], None]:
    """Look for a notice in the background every `interval` seconds, and pass on the reason of the first one, in that thread.

    Returns:
        A function that ends the watch.
    """
    closed = threading.Event()
    metadata = Metadata(endpoint)

    def look() -> None:
        while not closed.is_set():
            if (found := reason(metadata)) is not None:
                stop(found)
                return
            closed.wait(interval)

    threading.Thread(target=look, name="spot-notice", daemon=True).start()
    return closed.set
