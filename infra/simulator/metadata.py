"""What instances' metadata services answer: state, notices, and the role's credentials."""

import json
import time

from gpu_offload.infra.simulator.identity import Identities, iso
from gpu_offload.infra.simulator.rented import RUN_TAG, Rented

ROOT = "/latest/meta-data"
CREDENTIAL_S = 6 * 3600.0
"""For how long the instance role's credentials are good."""


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
        f"{ROOT}/placement/availability-zone": zone,
        f"{ROOT}/placement/region": region,
        "/latest/dynamic/instance-identity/document": json.dumps(identity, indent=1),
        "/latest/user-data": one.user_data.decode(errors="replace"),
    }
    if one.role and credentials:
        values[f"{ROOT}/iam/security-credentials/{one.role}"] = json.dumps(credentials)
    if one.rebalance_at is not None:
        values[f"{ROOT}/events/recommendations/rebalance"] = json.dumps({"noticeTime": iso(one.rebalance_at)})
    if one.reclaim_at is not None:
        action = {"action": "terminate", "time": iso(one.reclaim_at)}
        values[f"{ROOT}/spot/instance-action"] = json.dumps(action)
    return values


class MetadataKeeper:
    """Writes metadata documents; renews credentials before they end."""

    def __init__(self, account: str, identities: Identities) -> None:
        self._account = account
        self._identities = identities

    def document(self, one: Rented) -> dict[str, str]:
        """Return what the service of an instance says now."""
        return metadata_document(one, self._account)

    def refresh(self, one: Rented) -> None:
        """Let the service say what is so now, with fresh credentials where they near their end."""
        if self.is_due(one):
            one.credentials = self._identities.issue(one.id, one.tags.get(RUN_TAG), CREDENTIAL_S)
            one.credentials_end = time.time() + CREDENTIAL_S
        one.host.set_metadata(self.document(one))

    def is_due(self, one: Rented) -> bool:
        """Whether an instance's credentials near their end."""
        return bool(one.role) and one.credentials_end - time.time() < 300.0

    def renew(self, one: Rented) -> None:
        """Give an instance new credentials now."""
        one.credentials_end = 0.0
        self.refresh(one)
