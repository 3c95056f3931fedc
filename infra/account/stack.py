"""A CloudFormation stack: prepared as a change set, then executed or deleted."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3

from gpu_offload.infra.account.site import ISSUER
from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CloudError, InvalidRequestError, ServerFaultError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

POLL_S = 3.0
PREPARE_S = 120.0
MAKE_S = 900.0
NOTHING = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True, slots=True)
class StackChange:
    """One line of a change set: Add, Modify or Remove, and the resource."""

    action: str
    resource: str
    kind: str
    replaces: bool

    def __str__(self) -> str:
        note = " (is replaced)" if self.replaces else ""
        return f"{self.action.lower()} {self.kind} {self.resource}{note}"


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Prepared changes of a stack. `new`: the stack does not exist yet."""

    stack: str
    id: str
    changes: tuple[StackChange, ...]
    new: bool


@dataclass
class Stacks:
    """The stacks of one region. Every wait has a time limit; `sleep` waits between two looks."""

    region: str
    session: boto3.Session | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _seen: set[str] = field(default_factory=set)

    @cached_property
    def _opened(self) -> boto3.Session:
        return self.session or open_session(self.region)

    @cached_property
    def _client(self) -> "CloudFormationClient":
        client: CloudFormationClient = make_client(self._opened, "cloudformation", self.region)
        return client

    def has_provider(self) -> bool:
        """Whether the account has GitHub's identity provider already; an account can have only one."""
        with aws_errors("looking for GitHub's identity provider"):
            client = make_client(self._opened, "iam", self.region)
            found = client.list_open_id_connect_providers()["OpenIDConnectProviderList"]
        return any(each.get("Arn", "").endswith(f"/{ISSUER}") for each in found)

    def prepare(
        self, name: str, template: Mapping[str, Any], parameters: Mapping[str, str]
    ) -> ChangeSet | None:
        """Create a change set; nothing is changed yet. Return None where nothing would change.

        Parameters that the stack has keep their value where it is given as "".

        Raises:
            InvalidRequestError: CloudFormation refuses the template, or the stack is in no state to be changed.
        """
        operation = f"preparing the stack {name} in {self.region}"
        status = self._status(name)
        # A stack whose first creation, or whose deletion, has failed takes no changes any more.
        if status in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "CREATE_FAILED"}:
            raise InvalidRequestError(
                f"{operation}: it is {status}",
                remedy=f"delete what is left of it, then try again: aws cloudformation delete-stack --region {self.region} "
                f"--stack-name {name}",
            )
        new = status in {"", "REVIEW_IN_PROGRESS"}
        label = f"gpu-offload-{int(time.time())}"
        with aws_errors(operation):
            made = self._client.create_change_set(
                StackName=name,
                ChangeSetName=label,
                ClientToken=label,  # the SDK repeats a request whose reply was lost
                ChangeSetType="CREATE" if new else "UPDATE",
                TemplateBody=json.dumps(template, separators=(",", ":")),
                Parameters=[
                    # A new stack has no previous values.
                    {"ParameterKey": key, "ParameterValue": value}
                    if value or new
                    else {"ParameterKey": key, "UsePreviousValue": True}
                    for key, value in parameters.items()
                ],
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Tags=[{"Key": "gpu-offload:stack", "Value": name}],
            )["Id"]
        end = self.clock() + PREPARE_S
        while True:
            with aws_errors(operation):
                found = self._client.describe_change_set(ChangeSetName=made, StackName=name)
            if found["Status"] == "CREATE_COMPLETE":
                return ChangeSet(name, made, _changes(found.get("Changes", [])), new)
            if found["Status"] == "FAILED":
                # A change set without changes fails, too, and only its reason says so.
                reason = found.get("StatusReason", "")
                self.drop(ChangeSet(name, made, (), new))
                if any(text in reason for text in NOTHING):
                    return None
                raise InvalidRequestError(
                    f"{operation}: {reason}", remedy="correct what CloudFormation names"
                )
            if self.clock() > end:
                raise ServerFaultError(f"{operation}: CloudFormation is still {found['Status']}")
            self.sleep(POLL_S)

    def drop(self, change: ChangeSet) -> None:
        """Delete a change set, and the empty stack of a new one."""
        with aws_errors(f"dropping the change of {change.stack}"):
            self._client.delete_change_set(ChangeSetName=change.id, StackName=change.stack)
            # A change set for a new stack leaves an empty one, in review, under the name.
            if change.new and self._status(change.stack) == "REVIEW_IN_PROGRESS":
                self._client.delete_stack(StackName=change.stack)

    def make(self, change: ChangeSet, report: Callable[[str], None]) -> dict[str, str]:
        """Execute a change set and wait for its end, with a line to `report` for each resource; return the stack's outputs.

        Raises:
            InvalidRequestError: It failed and was rolled back; the text has CloudFormation's reasons.
            ServerFaultError: It is not done after a quarter of an hour.
        """
        operation = f"making the stack {change.stack} in {self.region}"
        self._news(change.stack, lambda _line: None)  # what happened before is no news
        token = f"execute-{change.id.rpartition('/')[2]}"
        with aws_errors(operation):
            self._client.execute_change_set(
                ChangeSetName=change.id, StackName=change.stack, ClientRequestToken=token
            )
        end = self.clock() + MAKE_S
        reasons: list[str] = []
        while True:
            status = self._status(change.stack)
            reasons += self._news(change.stack, report)
            if status in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
                return self.outputs(change.stack)
            if status.endswith("_FAILED") or status in {
                "ROLLBACK_COMPLETE",
                "UPDATE_ROLLBACK_COMPLETE",
                "DELETE_COMPLETE",
            }:
                raise InvalidRequestError(
                    f"{operation}: {status}: {'; '.join(reasons) or 'CloudFormation gives no reason'}",
                    remedy="correct it and run again; what was half made has been taken back",
                )
            if self.clock() > end:
                raise ServerFaultError(f"{operation}: it is still {status or 'not there'}")
            self.sleep(POLL_S)

    def outputs(self, name: str) -> dict[str, str]:
        """Return a stack's outputs. Raises CloudError where there is no such stack."""
        with aws_errors(f"reading the stack {name}"):
            found = self._client.describe_stacks(StackName=name)["Stacks"][0]
        return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}

    def _status(self, name: str) -> str:
        """Return the stack's status; empty where there is none."""
        try:
            with aws_errors(f"looking for the stack {name}"):
                found = self._client.describe_stacks(StackName=name)["Stacks"]
        except CloudError as error:
            # CloudFormation has no code of its own for a missing stack.
            if error.code == "ValidationError" and "does not exist" in str(error):
                return ""
            raise
        return str(found[0]["StackStatus"]) if found else ""

    def _news(self, name: str, report: Callable[[str], None]) -> list[str]:
        """Report the events since the last call; return the reasons of the failures among them."""
        with aws_errors(f"reading what happened to {name}"):
            events = self._client.describe_stack_events(StackName=name)["StackEvents"]
        reasons = []
        for event in reversed(events):  # AWS gives the newest first
            if event["EventId"] in self._seen:
                continue
            self._seen.add(event["EventId"])
            resource, status = event.get("LogicalResourceId", ""), event.get("ResourceStatus", "")
            reason = event.get("ResourceStatusReason", "")
            if status.endswith("_FAILED"):
                reasons.append(f"{resource}: {reason}")
            if status.endswith(("_COMPLETE", "_FAILED")):
                report(f"{resource}: {status}{f' ({reason})' if reason else ''}")
        return reasons


def _changes(found: Any) -> tuple[StackChange, ...]:
    details = [each["ResourceChange"] for each in found if "ResourceChange" in each]
    return tuple(
        StackChange(
            each.get("Action", "?"),
            each.get("LogicalResourceId", "?"),
            each.get("ResourceType", "?"),
            each.get("Replacement") == "True",
        )
        for each in details
    )
