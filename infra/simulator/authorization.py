"""What IAM is asked about a call: each action with its resource and its condition keys.

Service Authorization Reference, https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.models import ec2_backends

from gpu_offload.infra.simulator.call import Call, values_of
from gpu_offload.infra.simulator.iam import Request

OBJECTS = {
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
    "ListParts": "ListMultipartUploadParts",
}
"""The action on an object that IAM is asked about, by S3's operation."""

BUCKETS = {"HeadBucket": "ListBucket", "ListObjects": "ListBucket", "ListObjectsV2": "ListBucket"}

TAGGED = {
    "TerminateInstances": ("instance", "InstanceId"),
    "StopInstances": ("instance", "InstanceId"),
    "GetConsoleOutput": ("instance", "InstanceId"),
    "DeleteVolume": ("volume", "VolumeId"),
    "DeleteSecurityGroup": ("security-group", "GroupId"),
    "AuthorizeSecurityGroupIngress": ("security-group", "GroupId"),
    "RevokeSecurityGroupIngress": ("security-group", "GroupId"),
    "CancelSpotInstanceRequests": ("spot-instances-request", "SpotInstanceRequestId"),
}
"""Calls of EC2's on resources that exist: their kind, and the parameter that names them."""

CREATED = ("instance", "volume", "network-interface", "spot-instances-request")
"""What a launch makes, and tags."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """Asks in the name of an account, whose resources moto has."""

    account: str

    def requests(self, call: Call) -> list[Request]:
        """Return everything that a call needs; all of it must be allowed."""
        match call.service:
            case "s3":
                return [self._s3(call)]
            case "ec2":
                return list(self._ec2(call))
            case "scheduler":
                return list(self._scheduler(call))
            case "iam":
                kind = "instance-profile" if "InstanceProfileName" in call.parameters else "role"
                name = call.parameters.get("InstanceProfileName") or call.parameters.get("RoleName")
                return [Request(f"iam:{call.operation}", f"arn:aws:iam::{self.account}:{kind}/{name}")]
            case "ssm":
                name = str(call.parameters.get("Name", ""))
                return [Request(f"ssm:{call.operation}", f"arn:aws:ssm:{call.region}::parameter{name}")]
        return [Request(f"{call.service}:{call.operation}")]

    def _s3(self, call: Call) -> Request:
        context: dict[str, Any] = {"aws:SecureTransport": "true"}
        bucket = f"arn:aws:s3:::{call.bucket}"
        # A listing is a call on the bucket, and its prefix is a condition key.
        if not call.key:
            if "prefix" in call.parameters:
                context["s3:prefix"] = call.parameters["prefix"]
            return Request(f"s3:{BUCKETS.get(call.operation, call.operation)}", bucket, context)
        action = OBJECTS.get(call.operation, call.operation)
        if action == "PutObject":
            # Only the completion of an upload in parts creates an object.
            part = call.operation in {"CreateMultipartUpload", "UploadPart"}
            context["s3:ObjectCreationOperation"] = "false" if part else "true"
            context |= {
                f"s3:{name}": call.parameters[name]
                for name in ("if-none-match", "if-match")
                if name in call.parameters
            }
        return Request(f"s3:{action}", f"{bucket}/{call.key}", context)

    def _ec2(self, call: Call) -> Iterator[Request]:
        region = {"aws:RequestedRegion": call.region, "ec2:Region": call.region}
        action, form = f"ec2:{call.operation}", call.parameters
        if call.operation == "RunInstances":
            yield from self._launch(call, region)
        elif call.operation == "CreateSecurityGroup":
            tags = _tags(form)
            group = self._arn(call, "security-group", "*")
            yield Request(action, group, region | _request_tags(tags.get("security-group", {})))
            yield Request(action, self._arn(call, "vpc", form.get("VpcId", "")), region)
            yield from self._tagging(call, tags, region)
        elif call.operation in TAGGED:
            kind, parameter = TAGGED[call.operation]
            for name in values_of(form, parameter):
                yield Request(action, self._arn(call, kind, name), region | self._resource_tags(call, name))
        elif call.operation == "CreateTags":
            given = _request_tags(
                dict(zip(values_of(form, "Tag", "Key"), values_of(form, "Tag", "Value"), strict=True))
            )
            for name in values_of(form, "ResourceId"):
                yield Request(action, self._arn(call, "*", name), region | given)
        else:
            yield Request(action, "*", region)

    def _launch(self, call: Call, region: Mapping[str, Any]) -> Iterator[Request]:
        form, tags, action = call.parameters, _tags(call.parameters), "ec2:RunInstances"
        # IAM is asked about every resource that a launch makes or uses, and all of them have to be allowed.
        backend = ec2_backends[self.account][call.region]
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId", "")
        found = next((zone[subnet] for zone in backend.subnets.values() if subnet in zone), None)
        image = backend.amis.get(form.get("ImageId", ""))
        profile = call.profile
        facts: dict[str, Any] = {
            "ec2:InstanceType": form.get("InstanceType", "m1.small"),
            "ec2:InstanceMarketType": form.get("InstanceMarketOptions.MarketType", "on-demand"),
            "ec2:Tenancy": form.get("Placement.Tenancy", "default"),
            "ec2:MetadataHttpTokens": form.get("MetadataOptions.HttpTokens", "optional"),
            "ec2:MetadataHttpPutResponseHopLimit": form.get("MetadataOptions.HttpPutResponseHopLimit", "2"),
        }
        if profile:
            facts["ec2:InstanceProfile"] = f"arn:aws:iam::{self.account}:instance-profile/{profile}"
        owner = (image.owner_alias or image.owner_id) if image is not None else ""
        spot = facts["ec2:InstanceMarketType"] == "spot"
        more: dict[str, dict[str, Any]] = {"instance": facts, "volume": _disk(form)}
        for kind in CREATED:
            if kind != "spot-instances-request" or spot:
                context = {**region, **_request_tags(tags.get(kind, {})), **more.get(kind, {})}
                yield Request(action, self._arn(call, kind, "*"), context)
        yield Request(
            action, f"arn:aws:ec2:{call.region}::image/{form.get('ImageId')}", {**region, "ec2:Owner": owner}
        )
        network = self._arn(call, "vpc", found.vpc_id if found is not None else "")
        yield Request(action, self._arn(call, "subnet", subnet), {**region, "ec2:Vpc": network})
        for name in values_of(form, "SecurityGroupId") or values_of(
            form, "NetworkInterface.1.SecurityGroupId"
        ):
            yield Request(
                action, self._arn(call, "security-group", name), {**region, **self._resource_tags(call, name)}
            )
        if form.get("KeyName"):
            yield Request(action, self._arn(call, "key-pair", form["KeyName"]), region)
        yield from self._tagging(call, tags, region)
        if profile:
            # The profile of a stack and of `PROFILE` has the name of its role.
            role = f"arn:aws:iam::{self.account}:role/{profile}"
            yield Request("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})

    def _tagging(
        self, call: Call, tags: Mapping[str, Mapping[str, str]], region: Mapping[str, Any]
    ) -> Iterator[Request]:
        for kind, given in tags.items():
            context = {**region, **_request_tags(given), "ec2:CreateAction": call.operation}
            yield Request("ec2:CreateTags", self._arn(call, kind, "*"), context)

    def _scheduler(self, call: Call) -> Iterator[Request]:
        name = call.parameters.get("Name")
        resource = f"arn:aws:scheduler:{call.region}:{self.account}:schedule/default/{name}" if name else "*"
        yield Request(f"scheduler:{call.operation}", resource)
        if role := call.parameters.get("Target", {}).get("RoleArn"):
            yield Request("iam:PassRole", role, {"iam:PassedToService": "scheduler.amazonaws.com"})

    def _arn(self, call: Call, kind: str, name: str) -> str:
        return f"arn:aws:ec2:{call.region}:{self.account}:{kind}/{name}"

    def _resource_tags(self, call: Call, name: str) -> dict[str, str]:
        tags = ec2_backends[self.account][call.region].tags.get(name, {})
        return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def _tags(form: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the tags that a call gives, by the kind of the resource."""
    found: dict[str, dict[str, str]] = {}
    for number, kind in enumerate(values_of(form, "TagSpecification", "ResourceType"), start=1):
        keys = values_of(form, f"TagSpecification.{number}.Tag", "Key")
        values = values_of(form, f"TagSpecification.{number}.Tag", "Value")
        found[kind] = dict(zip(keys, values, strict=True))
    return found


def _request_tags(tags: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return given | ({"aws:TagKeys": list(tags)} if tags else {})


def _disk(form: Mapping[str, Any]) -> dict[str, Any]:
    disk = "BlockDeviceMapping.1.Ebs."
    found = {
        "ec2:VolumeSize": form.get(f"{disk}VolumeSize", "8"),
        "ec2:VolumeType": form.get(f"{disk}VolumeType", "gp2"),
        "ec2:Encrypted": form.get(f"{disk}Encrypted", "false"),
    }
    faster = {"ec2:VolumeIops": f"{disk}Iops", "ec2:VolumeThroughput": f"{disk}Throughput"}
    return found | {key: form[name] for key, name in faster.items() if name in form}
