"""EventBridge schedules that terminate an instance at its deadline, without GitHub and without the instance."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import ExistsError, MissingError
from gpu_offload.infra.aws.schedule_name import NAME, PREFIX, schedule_name
from gpu_offload.infra.aws.tags import parse_time

if TYPE_CHECKING:
    from mypy_boto3_scheduler import EventBridgeSchedulerClient


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of a run, deleted once it has run. `store` is the mark of the run's store."""

    name: str
    run: str
    store: str | None
    attempt: int
    instance_id: str
    at: datetime | None


def schedule_parameters(
    run: str,
    attempt: int,
    instance_id: str,
    at: datetime,
    role_arn: str,
    *,
    store: str = "",
    partition: str = "aws",
) -> dict[str, Any]:
    """Return the parameters of CreateSchedule: terminate this instance once, at this time; then the schedule is deleted.

    A schedule cannot be tagged; its name has its store's mark, and its description names its owner.
    https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html
    """
    return {
        "Name": schedule_name(run, attempt, store),
        "GroupName": "default",
        "Description": (
            f"gpu-offload: terminates {instance_id}, if it still runs, of store {store or '-'}, attempt {attempt} of run {run}"
        )[:512],  # AWS's limit
        # Without a zone, which the next parameter names.
        "ScheduleExpression": f"at({at.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S')})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "State": "ENABLED",
        "Target": {
            "Arn": f"arn:{partition}:scheduler:::aws-sdk:ec2:terminateInstances",
            "RoleArn": role_arn,
            "Input": json.dumps({"InstanceIds": [instance_id]}),
            # The longest that AWS allows: a day, and 185 attempts.
            "RetryPolicy": {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185},
        },
    }


class Schedules:
    """Schedules of one region."""

    def __init__(self, region: str, *, session: boto3.Session | None = None) -> None:
        self.region = region
        self._session = session or open_session(region)
        self._client: EventBridgeSchedulerClient = make_client(self._session, "scheduler", region)

    def create(
        self, run: str, attempt: int, instance_id: str, at: datetime, role_arn: str, *, store: str = ""
    ) -> str:
        """Make an attempt's schedule, or set the one it has to this instance and time; return its name.

        `at` is in the future, to the second, and AWS is on time within a minute. EventBridge Scheduler assumes `role_arn`.
        """
        partition = self._session.get_partition_for_region(self.region)
        parameters = schedule_parameters(
            run, attempt, instance_id, at, role_arn, store=store, partition=partition
        )
        operation = f"scheduling the end of {instance_id}"
        try:
            with aws_errors(operation):
                self._client.create_schedule(**parameters)
        except ExistsError:
            with aws_errors(operation):
                self._client.update_schedule(**parameters)
        return str(parameters["Name"])

    def find(self, run: str | None = None, *, store: str = "") -> list[Schedule]:
        """Return the schedules of a store's run, or all runs of all stores."""
        prefix = PREFIX if run is None else schedule_name(run, 0, store).removesuffix("0")
        with aws_errors(f"looking for schedules in {self.region}"):
            pages = self._client.get_paginator("list_schedules").paginate(
                GroupName="default", NamePrefix=prefix
            )
            names = [item["Name"] for page in pages for item in page["Schedules"]]
        ours = [found for name in names if (found := NAME.fullmatch(name))]
        return [schedule for found in ours if (schedule := self._get(found))]

    def delete(self, name: str) -> bool:
        """Delete a schedule; return whether it was there."""
        try:
            with aws_errors(f"deleting the schedule {name}"):
                self._client.delete_schedule(Name=name, GroupName="default")
        except MissingError:
            return False
        return True

    def _get(self, parts: re.Match[str]) -> Schedule | None:
        name = parts[0]
        try:
            with aws_errors(f"reading the schedule {name}"):
                found = self._client.get_schedule(Name=name, GroupName="default")
        except MissingError:  # it ran in between
            return None
        named = re.search(r" of store (\S+), attempt \d+ of run (.+)", found.get("Description", ""))
        expression = re.fullmatch(r"at\((.+)\)", found.get("ScheduleExpression", ""))
        try:
            target = json.loads(found.get("Target", {}).get("Input", ""))["InstanceIds"][0]
        except (ValueError, LookupError, TypeError):
            target = ""
        return Schedule(
            name=name,
            run=named[2] if named else parts["run"],
            store=named[1] if named and named[1] != "-" else None,
            attempt=int(parts["attempt"]),
            instance_id=str(target),
            at=parse_time(expression[1]) if expression else None,
        )
