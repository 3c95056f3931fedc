"""Thin EC2 client: tagged launches, idempotent by client token."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import botocore.exceptions as aws

from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CloudError, NotYetVisibleError, ServerFaultError
from gpu_offload.infra.aws.instance_state import ENDED, InstanceState
from gpu_offload.infra.aws.launch import LaunchRequest, Market, launch_parameters
from gpu_offload.infra.aws.network import Network
from gpu_offload.infra.aws.state_reason import ORDINARY
from gpu_offload.infra.aws.tags import (
    ATTEMPT_TAG,
    EXPIRES_TAG,
    RUN_TAG,
    STORE_TAG,
    parse_time,
    run_filter,
    tags_of,
)
from gpu_offload.infra.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


SPOT_RECLAIMS = {"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"}
"""State reasons of an instance that AWS reclaimed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A tagged instance, as EC2 describes it. `state_reason` is EC2's code, empty while it lives; `why` its sentence."""

    id: str
    run: str
    attempt: int
    expires: datetime | None
    state: InstanceState
    state_reason: str
    type: str
    zone: str
    market: Market
    launch_time: datetime
    ended_at: datetime | None
    public_ip: str | None
    security_groups: tuple[str, ...]
    store: str | None = None
    why: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is terminated or shutting down."""
        return self.state in ENDED

    @property
    def reclaimed(self) -> bool:
        """Whether AWS reclaimed it."""
        return self.state_reason in SPOT_RECLAIMS

    @property
    def shut_down(self) -> bool:
        """Whether a call or its own system terminated or stopped it."""
        return self.state_reason.startswith(ORDINARY)


@dataclass(frozen=True, slots=True)
class Volume:
    """A tagged volume; `attached_to` is an instance's id."""

    id: str
    run: str
    state: str
    attached_to: str | None
    expires: datetime | None
    store: str | None = None


class Ec2(Network):
    """Instances of one region that have our tags."""

    @cached_property
    def _launcher(self) -> "EC2Client":
        # AWS answers "no capacity" with status 500, which the SDK would retry in vain.
        return self._make_client(attempts=1)

    def launch(self, request: LaunchRequest) -> Instance:
        """Launch, in one call. Repeating an equal request returns the same instance, even if it is terminated.

        Raises:
            CloudError: Its `retry` says whether another offer is worth a try. After an EndpointError,
                ServerFaultError or TokenMismatchError an instance can exist: use `find`.
        """
        operation = f"launching {request.instance_type} ({request.market}) in {request.subnet.zone}"
        parameters = launch_parameters(request)
        # Harmless to repeat: by the client token EC2 returns what a first request, whose reply was lost, has launched.
        for attempt in attempts(lambda error: getattr(error, "retry", None) == "same", first=0.5):
            with attempt, aws_errors(operation):
                return _instance(self._launcher.run_instances(**parameters)["Instances"][0])
        raise AssertionError  # the loop returns or raises

    def check_launch(self, request: LaunchRequest) -> None:
        """Ask whether this launch would be allowed, without launching. Raises CloudError; a quota is not checked."""
        with _dry_run(f"asking whether we may launch {request.instance_type} in {request.subnet.zone}"):
            self._client.run_instances(**launch_parameters(request), DryRun=True)

    def check_termination(self, instance_id: str) -> None:
        """Ask whether terminating an instance would be allowed, without doing so. Raises CloudError."""
        with _dry_run(f"asking whether we may terminate {instance_id}"):
            self._client.terminate_instances(InstanceIds=[instance_id], DryRun=True)

    def find(self, run: str | None = None) -> list[Instance]:
        """Return the instances of a run, or of all our runs, terminated ones included, oldest first.

        EC2 forgets a terminated instance within the hour, and can omit a new one for some minutes.
        """
        with aws_errors(f"looking for instances in {self.region}"):
            pages = self._client.get_paginator("describe_instances").paginate(Filters=[run_filter(run)])
            found = [
                _instance(item)
                for page in pages
                for reservation in page["Reservations"]
                for item in reservation["Instances"]
            ]
        return sorted(found, key=lambda instance: (instance.launch_time, instance.id))

    def get(self, instance_id: str) -> Instance:
        """Return one instance. Raises NotYetVisibleError."""
        operation = f"looking for {instance_id}"
        with aws_errors(operation):
            found = self._client.describe_instances(InstanceIds=[instance_id])["Reservations"]
        if not found:
            raise NotYetVisibleError(f"{operation}: EC2 does not know it")
        return _instance(found[0]["Instances"][0])

    def terminate(self, instance_ids: Iterable[str]) -> dict[str, str]:
        """Ask EC2 to terminate; return each instance's state after, "terminated" for those that it has forgotten.

        It takes a while: poll with `find` until they are terminated.
        """
        states: dict[str, str] = {}
        for instance_id in instance_ids:  # one by one: EC2 refuses a whole list if it does not know one of it
            # The id came from a reply of EC2. Right after a launch other calls may not know it yet, so an unknown id
            # is tried again for some seconds; after that, EC2 has forgotten a terminated instance.
            states[instance_id] = "terminated"
            with suppress(NotYetVisibleError):
                for attempt in attempts(NotYetVisibleError, first=0.5):
                    with attempt, aws_errors(f"terminating {instance_id}"):
                        reply = self._client.terminate_instances(InstanceIds=[instance_id])
                        states[instance_id] = reply["TerminatingInstances"][0]["CurrentState"]["Name"]
        return states

    def console_output(self, instance_id: str) -> str:
        """Return what the instance wrote to its serial console so far; empty where EC2 has nothing yet."""
        operation = f"reading the console of {instance_id}"
        try:
            with aws_errors(operation):
                reply = self._client.get_console_output(InstanceId=instance_id, Latest=True)
        except CloudError as error:
            # Only Nitro types show their latest output; others show what was stored after the boot.
            if error.code not in {"UnsupportedOperation", "Unsupported", "InvalidParameterCombination"}:
                raise
            with aws_errors(operation):
                reply = self._client.get_console_output(InstanceId=instance_id)
        return reply.get("Output", "")

    def volumes(self, run: str | None = None) -> list[Volume]:
        """Return the volumes of a run, or of all our runs."""
        with aws_errors(f"looking for volumes in {self.region}"):
            pages = self._client.get_paginator("describe_volumes").paginate(Filters=[run_filter(run)])
            return [_volume(item) for page in pages for item in page["Volumes"]]

    def delete_volume(self, volume_id: str) -> bool:
        """Delete a volume; return whether it was there. Raises InUseError while it is attached."""
        try:
            with aws_errors(f"deleting {volume_id}"):
                self._client.delete_volume(VolumeId=volume_id)
        except NotYetVisibleError:
            return False
        return True


@contextmanager
def _dry_run(operation: str) -> Iterator[None]:
    """Return where EC2 would allow the call, which it says by an error, too. Raises CloudError."""
    with aws_errors(operation):
        try:
            yield
        except aws.ClientError as error:
            if error.response["Error"]["Code"] != "DryRunOperation":
                raise
            return
    raise ServerFaultError(f"{operation}: the reply to a dry run says neither yes nor no")


def _instance(item: Mapping[str, Any]) -> Instance:
    found = tags_of(item)
    attempt = found.get(ATTEMPT_TAG, "")
    state = item["State"]["Name"]
    # A new instance has a reason, too: `pending`.
    reason = item.get("StateReason", {}) if state in {*ENDED, "stopped"} else {}
    return Instance(
        id=item["InstanceId"],
        run=found.get(RUN_TAG, ""),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        expires=parse_time(found.get(EXPIRES_TAG)),
        state=state,
        state_reason=reason.get("Code", ""),
        type=item["InstanceType"],
        zone=item["Placement"]["AvailabilityZone"],
        # EC2 names no lifecycle for an on-demand instance.
        market="spot" if item.get("InstanceLifecycle") == "spot" else "on-demand",
        launch_time=item["LaunchTime"].astimezone(UTC),
        ended_at=_transition(item.get("StateTransitionReason", "")) if state in ENDED else None,
        public_ip=item.get("PublicIpAddress") or None,
        security_groups=tuple(group["GroupId"] for group in item.get("SecurityGroups", [])),
        store=found.get(STORE_TAG),
        why=reason.get("Message", ""),
    )


def _transition(reason: str) -> datetime | None:
    """Return the time in "User initiated (2026-11-22 21:00:00 GMT)"; None where the reason has another form."""
    found = re.search(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)", reason)
    return parse_time(f"{found[1]}Z") if found else None


def _volume(item: Mapping[str, Any]) -> Volume:
    found = tags_of(item)
    attachments = item.get("Attachments", [])
    return Volume(
        id=item["VolumeId"],
        run=found.get(RUN_TAG, ""),
        state=item["State"],
        attached_to=attachments[0].get("InstanceId") if attachments else None,
        expires=parse_time(found.get(EXPIRES_TAG)),
        store=found.get(STORE_TAG),
    )
