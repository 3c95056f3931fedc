"""boto3 clients of a simulated cloud."""

import os
import threading
from functools import cache
from typing import Any

ACCESS_KEY, SECRET_KEY = "AKIASIMULATEDCLOUD00", "simulated"
_SESSION_LOCK = threading.Lock()


class Clients:
    """Clients of one endpoint, made once for each service and region; safe between threads."""

    def __init__(self, url: str, region: str) -> None:
        self._url = url
        self._region = region
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Any] = {}
        self._made: list[Any] = []

    def get(self, service: str, region: str | None = None, **options: Any) -> Any:
        """Return a client; one with options is not cached."""
        region = region or self._region
        with self._lock:
            if options or (service, region) not in self._known:
                # A boto3 session is not safe between threads, and all clouds share this one.
                with _SESSION_LOCK:
                    client = _session().client(service, region_name=region, endpoint_url=self._url, **options)
                self._made.append(client)
                if options:
                    return client
                self._known[service, region] = client
            return self._known[service, region]

    def environment(self) -> dict[str, str]:
        """Return the variables by which any SDK finds this endpoint, and no settings of the user's."""
        return {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": self._region,
            "AWS_REGION": self._region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
            "GPU_OFFLOAD_SIMULATOR": f"{self._url}/_simulator/",
        }

    def close(self) -> None:
        """Close every client."""
        for client in self._made:
            client.close()


@cache
def _session() -> Any:
    """One session for all clouds of this process: it reads the services' models once."""
    import boto3

    return boto3.Session(ACCESS_KEY, SECRET_KEY)
