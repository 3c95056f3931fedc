"""The metadata document of an instance: a pure function from facts to paths and texts."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

ROOT = "/latest/meta-data"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """An instance, as its metadata shows it."""

    instance_id: str
    instance_type: str
    image_id: str
    zone: str
    private_ip: str
    public_ip: str | None
    account: str
    launched: float
    """Unix time, seconds."""
    spot: bool
    user_data: bytes
    role: str | None
    credentials: dict[str, str] | None
    reclaim_at: float | None = None
    """When AWS will take a spot instance, once the notice is out."""
    rebalance_at: float | None = None
    """When the rebalance recommendation came."""


def metadata_document(facts: HostFacts) -> dict[str, str]:
    """Every path that answers, with its text; a path that is not here answers 404."""
    region = facts.zone[:-1]
    identity = {
        "accountId": facts.account,
        "architecture": "x86_64",
        "availabilityZone": facts.zone,
        "imageId": facts.image_id,
        "instanceId": facts.instance_id,
        "instanceType": facts.instance_type,
        "pendingTime": _iso(facts.launched),
        "privateIp": facts.private_ip,
        "region": region,
        "version": "2017-09-30",
    }
    values = {
        f"{ROOT}/ami-id": facts.image_id,
        f"{ROOT}/instance-id": facts.instance_id,
        f"{ROOT}/instance-type": facts.instance_type,
        f"{ROOT}/instance-life-cycle": "spot" if facts.spot else "on-demand",
        f"{ROOT}/local-ipv4": facts.private_ip,
        f"{ROOT}/hostname": f"ip-{facts.private_ip.replace('.', '-')}.ec2.internal",
        f"{ROOT}/placement/availability-zone": facts.zone,
        f"{ROOT}/placement/region": region,
        f"{ROOT}/services/domain": "amazonaws.com",
        "/latest/dynamic/instance-identity/document": json.dumps(identity, indent=1),
        "/latest/user-data": facts.user_data.decode(errors="replace"),
    }
    if facts.public_ip:
        values[f"{ROOT}/public-ipv4"] = facts.public_ip
    if facts.role and facts.credentials:
        values[f"{ROOT}/iam/security-credentials/{facts.role}"] = json.dumps(facts.credentials)
        values[f"{ROOT}/iam/info"] = json.dumps(
            {
                "Code": "Success",
                "LastUpdated": facts.credentials["LastUpdated"],
                "InstanceProfileArn": f"arn:aws:iam::{facts.account}:instance-profile/{facts.role}",
            }
        )
    if facts.rebalance_at is not None:
        values[f"{ROOT}/events/recommendations/rebalance"] = json.dumps(
            {"noticeTime": _iso(facts.rebalance_at)}
        )
    if facts.reclaim_at is not None:
        at = _iso(facts.reclaim_at)
        values[f"{ROOT}/spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
        values[f"{ROOT}/spot/termination-time"] = at
    return values


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
