"""Credentials of the simulated cloud: instance roles limited to their run, and sessions that expire."""

import re
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from gpu_offload.infra.simulator.call import DENIED, EXPIRED, Call
from gpu_offload.infra.simulator.stack_roles import StackRoles

READ = {"GetObject", "HeadObject"}
LIST = {"ListObjectsV2", "ListObjects"}
WRITE = {
    "PutObject",
    "DeleteObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
}
SHARED = ("datasets/", "weights/", "environments/", "wheels/")
"""Keys that every instance may read, besides its own run."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Permissions of an instance role's key."""

    instance_id: str
    run: str | None
    expires: float


class Identities:
    """Access keys that were issued or used."""

    def __init__(self, stack: StackRoles | None = None) -> None:
        self._stack = stack
        self._roles: dict[str, str] = {}
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}
        self._seen: set[str] = set()
        self._revoked: dict[str, float] = {}

    def issue(self, instance_id: str, run: str | None, seconds: float) -> dict[str, str]:
        """Make credentials for an instance's role, as the metadata service serves them."""
        key = "ASIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
        now = time.time()
        with self._lock:
            self._grants[key] = Grant(instance_id, run, now + seconds)
        return {
            "Code": "Success",
            "LastUpdated": iso(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": key,
            "SecretAccessKey": secrets.token_urlsafe(30),
            "Token": secrets.token_urlsafe(60),
            "Expiration": iso(now + seconds),
        }

    def assumed(self, access_key: str, role: str) -> None:
        """Note that a session's key belongs to a role, by the role's ARN."""
        with self._lock:
            self._roles[access_key] = role

    def instance_of(self, access_key: str) -> str | None:
        """The instance whose role a key belongs to."""
        grant = self._grants.get(access_key)
        return grant.instance_id if grant else None

    def expire(self, who: str, seconds: float | None) -> None:
        """Let every key known so far expire, for so many seconds or for good; later keys are valid."""
        until = time.time() + seconds if seconds is not None else float("inf")
        with self._lock:
            # A key is the runner's if it was used and not issued to an instance.
            keys = {
                "runner": self._seen - self._grants.keys(),
                "instance": set(self._grants),
                "all": self._seen | self._grants.keys(),
            }[who]
            self._revoked |= dict.fromkeys(keys, until)

    def check(self, call: Call) -> tuple[str, str] | None:
        """Return AWS's error code and message where a call is refused."""
        with self._lock:
            self._seen.add(call.access_key)
            grant = self._grants.get(call.access_key)
            revoked = self._revoked.get(call.access_key, 0.0)
        now = time.time()
        if call.access_key and (revoked > now or (grant and grant.expires <= now)):
            code = EXPIRED.get(call.service, "ExpiredTokenException")
            return (code, "The provided token has expired.")
        denied = DENIED.get(call.service, "AccessDeniedException")
        user = "User: arn:aws:sts::000000000000:assumed-role"
        action = f"{call.service}:{call.operation}"
        if grant and not _allowed(grant, call):
            name = f"gpu-offload-instance/{grant.instance_id}"
            return denied, f"{user}/{name} is not authorized to perform: {action} on {call.key or '*'}"
        if self._stack is None:
            return None
        role = self._stack.site.role("trainer") if grant else self._roles.get(call.access_key)
        if role is not None and (no := self._stack.denied(role, call)) is not None:
            name = f"{role.rpartition('/')[2]}/session"
            why = f"because no identity-based policy allows the {no.action} action"
            return (
                denied,
                f"{user}/{name} is not authorized to perform: {no.action} on resource: {no.resource} {why}",
            )
        return None


def _allowed(grant: Grant, call: Call) -> bool:
    """An instance reads what is shared and its own run, writes below its own run, and does nothing else."""
    if (call.service, call.operation) == ("sts", "GetCallerIdentity"):
        return True
    if call.service != "s3":
        return False
    own = f"runs/{grant.run}/" if grant.run else None
    name = str(call.parameters.get("prefix", "")) if call.operation in LIST else call.key
    if own and _below(own, name) and call.operation in READ | LIST | WRITE:
        return True
    return call.operation in READ | LIST and any(_below(prefix, name) for prefix in SHARED)


def _below(prefix: str, key: str) -> bool:
    """Whether a key is below a prefix of ours; the store itself may have a prefix in the bucket."""
    return re.search(rf"(?:^|/){re.escape(prefix)}", key) is not None


def iso(at: float) -> str:
    """Return a time (Unix, seconds) as AWS writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
