"""What instances' metadata services answer: state, notices, and the role's credentials."""

import json
import time

from gpu_offload.infra.simulator.identity import Identities, iso
from gpu_offload.infra.simulator.rented import RUN_TAG, Rented

ROOT = "/latest/meta-data"


def metadata_document(one: Rented, account: str) -> dict[str, str]:
    """Return every path that answers, with its text; other paths answer 404."""
    instance, zone, credentials = one.instance, one.instance.placement.zone, one.credentials
    region = zone[:-1]
    identity = {
        "accountId": account,
        "architecture": "x86_64",
        "availabilityZone": zone,
        "imageId": instance.image_id,
        "instanceId": one.id,
        "instanceType": instance.instance_type,
        "pendingTime": iso(one.launched),
        "privateIp": instance.private_ip,
        "region": region,
        "version": "2017-09-30",
    }
    values = {
        f"{ROOT}/ami-id": instance.image_id,
        f"{ROOT}/instance-id": one.id,
        f"{ROOT}/instance-type": instance.instance_type,
        f"{ROOT}/instance-life-cycle": "spot" if one.spot else "on-demand",
        f"{ROOT}/local-ipv4": instance.private_ip,
        f"{ROOT}/hostname": f"ip-{instance.private_ip.replace('.', '-')}.ec2.internal",
        f"{ROOT}/placement/availability-zone": zone,
        f"{ROOT}/placement/region": region,
        f"{ROOT}/services/domain": "amazonaws.com",
        "/latest/dynamic/instance-identity/document": json.dumps(identity, indent=1),
        "/latest/user-data": one.user_data.decode(errors="replace"),
    }
    # The address that the instance's host really has, also where moto's own view differs.
    if instance.public_ip:
        values[f"{ROOT}/public-ipv4"] = one.host.hardware.address
    if one.role and credentials:
        values[f"{ROOT}/iam/security-credentials/{one.role}"] = json.dumps(credentials)
        values[f"{ROOT}/iam/info"] = json.dumps(
            {
                "Code": "Success",
                "LastUpdated": credentials["LastUpdated"],
                "InstanceProfileArn": f"arn:aws:iam::{account}:instance-profile/{one.role}",
            }
        )
    if one.rebalance_at is not None:
        values[f"{ROOT}/events/recommendations/rebalance"] = json.dumps({"noticeTime": iso(one.rebalance_at)})
    if one.reclaim_at is not None:
        at = iso(one.reclaim_at)
        values[f"{ROOT}/spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
        values[f"{ROOT}/spot/termination-time"] = at
    return values


class MetadataKeeper:
    """Writes metadata documents; renews credentials, which last `credential_seconds`, before they end."""

    def __init__(self, account: str, credential_seconds: float, identities: Identities) -> None:
        self._account = account
        self._seconds = credential_seconds
        self._identities = identities

    def document(self, one: Rented) -> dict[str, str]:
        """Return what the service of an instance says now."""
        return metadata_document(one, self._account)

    def refresh(self, one: Rented) -> None:
        """Let the service say what is so now, with fresh credentials where they near their end."""
        if self.is_due(one):
            one.credentials = self._identities.issue(one.id, one.tags.get(RUN_TAG), self._seconds)
            one.credentials_end = time.time() + self._seconds
        one.host.set_metadata(self.document(one))

    def is_due(self, one: Rented) -> bool:
        """Whether an instance's credentials near their end."""
        return bool(one.role) and one.credentials_end - time.time() < min(300.0, self._seconds / 2)

    def renew(self, one: Rented) -> None:
        """Give an instance new credentials now."""
        one.credentials_end = 0.0
        self.refresh(one)
