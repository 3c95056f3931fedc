"""Time-outs and retries of boto3 clients."""

from typing import Any

from botocore.config import Config


def client_config(*, attempts: int = 5, read_timeout: float = 30, **more: Any) -> Config:
    """Return a client's settings.

    Args:
        attempts: maximum number of tries of a call, including the first.
        read_timeout: seconds to wait for an answer.
        more: other settings of botocore.
    """
    return Config(
        connect_timeout=5,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        **more,
    )
