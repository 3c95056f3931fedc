"""boto3 clients with our time-outs and retries."""

from typing import Any

import boto3
from botocore.config import Config

from gpu_offload.infra.aws.error_codes import aws_errors


def client_config(*, attempts: int = 5, read_timeout: float = 30, **more: Any) -> Config:
    """Return a client's settings: tries of a call, the first included, and seconds to wait for an answer."""
    return Config(
        connect_timeout=5,
        read_timeout=read_timeout,
        # `max_attempts`, which is better known, leaves the first attempt out of the count.
        retries={"mode": "standard", "total_max_attempts": attempts},
        **more,
    )


def make_client(
    session: boto3.Session, service: str, region: str, *, attempts: int = 5, read_timeout: float = 30
) -> Any:
    """Return a service's client for one region. Raises CloudError for settings that botocore refuses."""
    config = client_config(attempts=attempts, read_timeout=read_timeout)
    with aws_errors(f"preparing calls to {service} in {region}"):
        return session.client(service, region_name=region, config=config)  # type: ignore[call-overload]
