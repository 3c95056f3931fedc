"""EC2's subnets and security groups; each run has a group that admits one address at one port."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import (
    DeniedError,
    ExistsError,
    NoNetworkError,
    NotYetVisibleError,
)
from gpu_offload.infra.aws.security_group import SecurityGroup, Subnet
from gpu_offload.infra.aws.tags import EXPIRES_TAG, RUN_TAG, STORE_TAG, parse_time, run_filter, tags, tags_of
from gpu_offload.infra.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, IpPermissionTypeDef


class Network:
    """Subnets and security groups of one region; the part of `Ec2` that outlives an instance."""

    def __init__(self, region: str, *, session: boto3.Session | None = None) -> None:
        self.region = region
        self._session = session

    @cached_property
    def _client(self) -> "EC2Client":
        return self._make_client(attempts=5)

    def _make_client(self, *, attempts: int) -> "EC2Client":
        if self._session is None:
            self._session = open_session(self.region)
        client: EC2Client = make_client(self._session, "ec2", self.region, attempts=attempts)
        return client

    def subnets(self) -> dict[str, Subnet]:
        """Return the default subnet of every zone that has one, by zone."""
        filters: list[FilterTypeDef] = [
            {"Name": "default-for-az", "Values": ["true"]},
            {"Name": "state", "Values": ["available"]},
        ]
        with aws_errors(f"looking for the default subnets of {self.region}"):
            pages = self._client.get_paginator("describe_subnets").paginate(Filters=filters)
            found = [_subnet(item) for page in pages for item in page["Subnets"] if _has_ipv4(item)]
        return {subnet.zone: subnet for subnet in sorted(found, key=lambda subnet: subnet.zone)}

    def subnet(self, zone: str, subnet_id: str | None = None) -> Subnet:
        """Return the subnet to launch in: the given one, which must be in the zone, or the zone's default one.

        Raises:
            NoNetworkError: There is none, or the given one is in another zone.
        """
        if subnet_id is None:
            subnets = self.subnets()
            if zone in subnets:
                return subnets[zone]
            raise NoNetworkError(
                f"zone {zone} has no default subnet"
                + (f" (there are some in {', '.join(subnets)})" if subnets else ""),
                remedy=f"make one with: aws ec2 create-default-subnet --region {self.region} --availability-zone {zone}"
                + ("" if subnets else f" (after: aws ec2 create-default-vpc --region {self.region})")
                + ", or set ec2.subnet",
            )
        with aws_errors(f"looking for {subnet_id}"):
            item = self._client.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]
        found = _subnet(item)
        if not _has_ipv4(item):
            raise NoNetworkError(
                f"{subnet_id} has IPv6 addresses only, and an instance is reached over IPv4",
                remedy="set ec2.subnet to one with IPv4 addresses, or leave it out to use the zones' default ones",
            )
        if found.zone != zone:
            raise NoNetworkError(
                f"{subnet_id} is in {found.zone}, the offer is in {zone}",
                remedy="a subnet belongs to one zone; leave ec2.subnet out to use the zones' default ones",
            )
        return found

    def create_security_group(
        self,
        run: str,
        ingress_cidr: str,
        port: int = 22,
        *,
        vpc: str,
        expires: datetime | None = None,
        store: str | None = None,
    ) -> str:
        """Make the run's security group, or bring the one it has to this rule; return its id.

        `ingress_cidr` is the only address (`A.B.C.D/32`) to admit. An address that was admitted before, by a driver on
        another machine, is revoked. Tags hold the group's end, `expires`, and the mark of the run's store.
        """
        name = f"gpu-offload-{run}"
        operation = f"making security group {name}"
        group_id = self._group_in(vpc, name)
        if group_id is None:
            # One exists where another driver of the run was faster, or the reply to a first request was lost.
            with suppress(ExistsError), aws_errors(operation):
                group_id = self._client.create_security_group(
                    GroupName=name,
                    Description=f"gpu-offload run {run}: SSH from its driver only",
                    VpcId=vpc,
                    # In the same call: a group without our tag would never be deleted.
                    TagSpecifications=[
                        {
                            "ResourceType": "security-group",
                            "Tags": tags({RUN_TAG: run, "Name": name}, expires, store),
                        }
                    ],
                )["GroupId"]
        # EC2 is eventually consistent: for some seconds, not every call knows a new group.
        for attempt in attempts(NotYetVisibleError, first=0.5):
            with attempt:
                group_id = group_id or self._group_in(vpc, name)
                if group_id is None:
                    raise NotYetVisibleError(f"{operation}: it exists, and EC2 does not show it yet")
                self._set_ingress(group_id, ingress_cidr, port)
                return group_id
        raise AssertionError  # the loop returns or raises

    def delete_security_group(self, group_id: str) -> bool:
        """Delete a group; return whether it was there.

        Raises:
            InUseError: An instance that still terminates holds it; try again.
        """
        try:
            with aws_errors(f"deleting security group {group_id}"):
                self._client.delete_security_group(GroupId=group_id)
        except NotYetVisibleError:
            return False
        return True

    def find_security_groups(self, run: str | None = None) -> list[SecurityGroup]:
        """Return the groups of a run, or of all runs."""
        with aws_errors(f"looking for security groups in {self.region}"):
            pages = self._client.get_paginator("describe_security_groups").paginate(Filters=[run_filter(run)])
            groups = [(item["GroupId"], tags_of(item)) for page in pages for item in page["SecurityGroups"]]
        return [
            SecurityGroup(
                group_id, found.get(RUN_TAG, ""), parse_time(found.get(EXPIRES_TAG)), found.get(STORE_TAG)
            )
            for group_id, found in groups
        ]

    def _group_in(self, vpc: str, name: str) -> str | None:
        filters: list[FilterTypeDef] = [
            {"Name": "vpc-id", "Values": [vpc]},
            {"Name": "group-name", "Values": [name]},
        ]
        with aws_errors(f"looking for security group {name}"):
            found = self._client.describe_security_groups(Filters=filters)["SecurityGroups"]
        if found and RUN_TAG not in tags_of(found[0]):
            # The launcher's policy lets it change and delete tagged groups only.
            raise DeniedError(
                f"security group {name} ({found[0]['GroupId']}) is not ours: it has no tag {RUN_TAG}",
                remedy="delete or rename it",
            )
        return found[0]["GroupId"] if found else None

    def _set_ingress(self, group_id: str, cidr: str, port: int) -> None:
        operation = f"letting {cidr} reach port {port} in {group_id}"
        wanted: IpPermissionTypeDef = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "IpRanges": [{"CidrIp": cidr, "Description": "the run's driver"}],
        }
        with aws_errors(operation):
            rules = self._client.describe_security_group_rules(
                Filters=[{"Name": "group-id", "Values": [group_id]}]
            )
        incoming = [rule for rule in rules["SecurityGroupRules"] if not rule.get("IsEgress")]
        stale = [
            rule["SecurityGroupRuleId"]
            for rule in incoming
            if (rule.get("CidrIpv4"), rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort"))
            != (cidr, "tcp", port, port)
        ]
        # The new rule first: a failure in between leaves two addresses admitted, not none.
        if len(stale) == len(incoming):
            with suppress(ExistsError), aws_errors(operation):
                self._client.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[wanted])
        if stale:
            with aws_errors(f"revoking former addresses in {group_id}"):
                self._client.revoke_security_group_ingress(GroupId=group_id, SecurityGroupRuleIds=stale)


def _has_ipv4(item: Mapping[str, Any]) -> bool:
    """Whether instances get IPv4 addresses in a subnet."""
    return not item.get("Ipv6Native", False)


def _subnet(item: Mapping[str, Any]) -> Subnet:
    return Subnet(
        item["SubnetId"], item["VpcId"], item["AvailabilityZone"], bool(item.get("MapPublicIpOnLaunch"))
    )
