"""Persistent spot requests with our tag, which would launch again after each termination; gpu-offload creates none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.tags import RUN_TAG, STORE_TAG, run_filter, tags_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_ec2 import EC2Client

LIVE = ("open", "active", "disabled")
"""States in which a request can launch, now or later."""


@dataclass(frozen=True, slots=True)
class SpotRequest:
    """A persistent request with our tag; `store` is the mark of its run's store."""

    id: str
    run: str
    store: str | None


class SpotRequests:
    """The persistent spot requests of one region that have our tag."""

    def __init__(self, region: str, *, session: boto3.Session | None = None) -> None:
        self.region = region
        self._client: EC2Client = make_client(session or open_session(region), "ec2", region)

    def find(self) -> list[SpotRequest]:
        """Return those that can still launch. Raises CloudError."""
        with aws_errors(f"looking for spot requests in {self.region}"):
            pages = self._client.get_paginator("describe_spot_instance_requests").paginate(
                Filters=[run_filter(None), {"Name": "state", "Values": list(LIVE)}]
            )
            items: list[Mapping[str, Any]] = [item for page in pages for item in page["SpotInstanceRequests"]]
        found = [item for item in items if item.get("Type") == "persistent" and item.get("State") in LIVE]
        return [
            SpotRequest(item["SpotInstanceRequestId"], tags_of(item)[RUN_TAG], tags_of(item).get(STORE_TAG))
            for item in found
            if RUN_TAG in tags_of(item)
        ]

    def cancel(self, request_id: str) -> None:
        """Cancel a request; its instance runs until it is terminated. Raises CloudError."""
        with aws_errors(f"cancelling the spot request {request_id}"):
            self._client.cancel_spot_instance_requests(SpotInstanceRequestIds=[request_id])
