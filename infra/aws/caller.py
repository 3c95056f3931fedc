"""Who AWS takes us for, and how far this machine's clock is from AWS's."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CredentialsError, NoCredentialsError
from gpu_offload.infra.environment import half_credential


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that AWS sees. `skew_s`: seconds by which this machine's clock is ahead of AWS's."""

    arn: str
    account: str
    skew_s: float

    @property
    def role(self) -> str | None:
        """The name of the assumed role; None for a user."""
        found = re.fullmatch(r"arn:[^:]+:sts::\d+:assumed-role/([^/]+)/.*", self.arn)
        return found[1] if found else None


def caller(session: boto3.Session) -> Caller:
    """Ask AWS for the caller's identity and the time. Raises CloudError, NoCredentialsError if there are no credentials."""
    operation = "asking AWS who we are"
    with aws_errors(operation):
        if session.get_credentials() is None:
            # botocore notices a key's id without the key, but not the key without its id.
            if half := half_credential(os.environ):
                raise CredentialsError(operation, remedy=half)
            raise NoCredentialsError(f"{operation}: found no credentials")
        region = session.region_name or "us-east-1"
        reply = make_client(session, "sts", region, attempts=3, read_timeout=10).get_caller_identity()
    headers = reply["ResponseMetadata"].get("HTTPHeaders", {})
    return Caller(reply["Arn"], reply["Account"], skew(headers.get("date", ""), datetime.now(UTC)))


def skew(date: str, now: datetime) -> float:
    """Return how far `now` is ahead of an HTTP Date header, in seconds; 0 without a valid header.

    The header has whole seconds, so anything below 2 is nothing.
    """
    try:
        return (now - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
