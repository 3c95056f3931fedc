"""Tags of the resources that we create in an account."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, TagTypeDef


RUN_TAG = "gpu-offload:run"

ATTEMPT_TAG = "gpu-offload:attempt"

EXPIRES_TAG = "gpu-offload:expires"
"""Every resource we create carries its run, its attempt, and the time (ISO 8601, UTC) after which it must not exist."""

STORE_TAG = "gpu-offload:store"
"""The store that holds the run's journal: projects that share an account must not terminate each other's instances."""


def tags(
    values: Mapping[str, str], expires: datetime | None = None, store: str | None = None
) -> "list[TagTypeDef]":
    """Return tags in EC2's form."""
    all_values = dict(values)
    if store is not None:
        all_values[STORE_TAG] = store
    if expires is not None:
        all_values[EXPIRES_TAG] = format_time(expires)
    return [{"Key": name, "Value": value} for name, value in all_values.items()]


def tags_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a resource that EC2 described."""
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}


def run_filter(run: str | None) -> "FilterTypeDef":
    """Return the filter for the resources of a run, or of all runs."""
    if run is None:
        return {"Name": "tag-key", "Values": [RUN_TAG]}
    return {"Name": f"tag:{RUN_TAG}", "Values": [re.sub(r"([*?\\])", r"\\\1", run)]}  # EC2 expands * and ?


def format_time(at: datetime) -> str:
    """Return a time as tags hold it: ISO 8601 in UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Parse a tag's time; None where it is missing or not a time."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def store_mark(url: str, endpoint_url: str | None = None) -> str:
    """Return the tag value that identifies a store: 16 hex digits, valid in any tag."""
    # A hash, because EC2's tags allow few characters and 256 of them, and a URL may be private.
    return hashlib.sha256(f"{endpoint_url or ''} {url.rstrip('/')}".encode()).hexdigest()[:16]
