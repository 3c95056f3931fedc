"""Questions to AWS whose answers tell whether a run would get through, asked without spending anything."""

import json
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

import boto3
from botocore.config import Config

from gpu_offload.infra.ec2 import Ec2, LaunchRequest
from gpu_offload.infra.errors import CloudError, aws_errors
from gpu_offload.infra.image import Image
from gpu_offload.infra.network import Subnet
from gpu_offload.infra.object_store import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectStore,
    StoreError,
)
from gpu_offload.infra.site import AUDIENCE, ISSUER

CONFIG = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 3})
PROBE_GROUP_S = 900
"""Seconds until `offload tend` may remove the group of a doctor that was killed."""

NOBODY = "203.0.113.1/32"
"""An address of RFC 5737, which nobody has: the group for a dry run lets nobody in."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who AWS says we are. `skew_s`: how far this machine's clock is ahead of AWS's, in seconds."""

    arn: str
    account: str
    skew_s: float

    @property
    def role(self) -> str | None:
        """The name of the role that we have assumed; None for a user."""
        found = re.fullmatch(r"arn:[^:]+:sts::\d+:assumed-role/([^/]+)/.*", self.arn)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a role trusts of GitHub's workflows."""

    subjects: tuple[str, ...]
    patterns: tuple[str, ...]
    """Subjects with wildcards."""
    audiences: tuple[str, ...]

    def admits(self, subject: str) -> bool:
        """Whether a token with this subject, made for AWS, gets in."""
        return subject in self.subjects or any(fnmatchcase(subject, pattern) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Conditional:
    """What a store did with a test object. `faults` are sentences; `public` is an HTTP status, None if not asked."""

    faults: tuple[str, ...]
    public: int | None


def caller(session: boto3.Session) -> Caller:
    """Ask AWS who we are, and what time it is. Raises CloudError."""
    with aws_errors("asking AWS who we are"):
        client = session.client("sts", region_name=session.region_name or "us-east-1", config=CONFIG)
        reply = client.get_caller_identity()
    headers: Mapping[str, str] = reply["ResponseMetadata"].get("HTTPHeaders", {})
    return Caller(reply["Arn"], reply["Account"], skew(headers.get("date", ""), datetime.now(UTC)))


def skew(date: str, now: datetime) -> float:
    """Return how far `now` is ahead of an HTTP Date header, in seconds; 0 where the header is none.

    The header has whole seconds, so anything below 2 is nothing.
    """
    try:
        return (now - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def trust_of(session: boto3.Session, role: str) -> Trust:
    """Read whom a role of the account trusts, by its name or ARN. Raises CloudError."""
    with aws_errors(f"reading the role {role}"):
        client = session.client("iam", region_name=session.region_name or "us-east-1", config=CONFIG)
        document: Any = client.get_role(RoleName=role.rsplit("/", 1)[-1])["Role"]["AssumeRolePolicyDocument"]
    return read_trust(json.loads(unquote(document)) if isinstance(document, str) else document)


def read_trust(document: Mapping[str, Any]) -> Trust:
    """Read whom a trust policy admits of GitHub's workflows.

    A statement without a condition on the subject admits every repository of GitHub's: it counts as `*`.
    """
    subjects: list[str] = []
    patterns: list[str] = []
    audiences: list[str] = []
    for statement in _listed(document.get("Statement", [])):
        actions = [action.lower() for action in _listed(statement.get("Action", []))]
        federated = _listed(statement.get("Principal", {}).get("Federated", []))
        if (
            statement.get("Effect") != "Allow"
            or not any(fnmatchcase("sts:assumerolewithwebidentity", action) for action in actions)
            or not any(name.endswith(f"oidc-provider/{ISSUER}") for name in federated)
        ):
            continue
        found = False
        for operator, keys in statement.get("Condition", {}).items():
            for key, values in keys.items():
                if key.lower() == f"{ISSUER}:sub":
                    found = True
                    for value in _listed(values):
                        wild = "Like" in operator and ("*" in value or "?" in value)
                        (patterns if wild else subjects).append(value)
                elif key.lower() == f"{ISSUER}:aud":
                    audiences += _listed(values)
        if not found:
            patterns.append("*")
    return Trust(tuple(subjects), tuple(patterns), tuple(audiences))


def trust_faults(trust: Trust, classic: str, numeric: str | None) -> tuple[list[str], list[str]]:
    """Return what is wrong with whom a role trusts, and what is doubtful.

    Args:
        trust: As `trust_of` read it.
        classic: The subject's beginning without numbers: `repo:ORG/REPO:`.
        numeric: The one with numbers; None where they are not known.
    """
    wrong: list[str] = []
    doubtful: list[str] = []
    if trust.audiences != (AUDIENCE,) * len(trust.audiences) or not trust.audiences:
        wrong.append(f"it does not insist on the audience {AUDIENCE}")
    strangers = ("repo:stranger/repository:ref:refs/heads/main", f"{classic[:-1]}-2:ref:refs/heads/main")
    if any(trust.admits(subject) for subject in strangers):
        wrong.append(f"it admits other repositories ({', '.join(trust.patterns)})")
    if any(trust.admits(f"{form}pull_request") for form in (classic, numeric) if form):
        wrong.append("it admits pull requests, forks' included")
    every = (*trust.subjects, *trust.patterns)
    ours = {form: any(text.startswith(form) for text in every) for form in (classic, numeric) if form}
    if not any(ours.values()):
        wrong.append(f"it does not admit {classic[5:-1]}, but {', '.join(every) or 'nobody'}")
    elif numeric is not None and not ours[numeric]:
        doubtful.append(
            f"it names the subject without numbers only ({classic}...): a repository created, renamed or "
            f"transferred since 15 July 2026 presents {numeric}..."
        )
    elif numeric is not None and not ours[classic]:
        doubtful.append(f"it names the subject with numbers only: an older repository presents {classic}...")
    if trust.patterns and not wrong:
        doubtful.append(f"it has a wildcard ({', '.join(trust.patterns)}): name the subjects whole")
    return wrong, doubtful


def probe_store(store: ObjectStore, *, public: bool = False) -> Conditional:
    """Write a test object once, twice, and over, look whether anybody can read it, and remove it.

    Args:
        store: Any store that can be written to.
        public: Whether to ask, without credentials, for the object at its web address.

    Raises:
        StoreError: It cannot be written, or not removed.
    """
    key = f"runs/doctor-{secrets.token_hex(6)}/checkpoint/probe.json"
    etag = store.create(key, b"1")
    faults: list[str] = []
    status = None
    try:
        if store.read(key)[0] != b"1":
            faults.append("it gave back other bytes than were written")
        try:
            store.create(key, b"2")
            faults.append("it ignores If-None-Match: two runs could overwrite one another's journal")
        except ObjectExistsError:
            pass
        try:
            now = store.replace(key, b"3", etag)
            faults += [] if now != etag else ["an object's etag does not change with its content"]
            store.replace(key, b"4", etag)
            faults.append("it ignores If-Match: two that publish at once could undo one another")
        except ObjectChangedError:
            pass
        url = store.public_url(key) if public else None
        if url is not None:
            status = anonymous(url)
    finally:
        store.delete(key)
    return Conditional(tuple(faults), status)


def anonymous(url: str) -> int:
    """Return the HTTP status that somebody without credentials gets; 0 where nobody answers."""
    request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})  # noqa: S310 - https, or our own server
    try:
        with urllib.request.urlopen(request, timeout=15) as reply:  # noqa: S310 - as above
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, ValueError):
        return 0


def first_published(store: ObjectStore) -> str | None:
    """Return the key of something that anybody should be able to read; None where nothing is published yet."""
    try:
        return next((info.key for info in store.list("models/")), None)
    except StoreError:
        return None


def try_launch(
    ec2: Ec2,
    image: Image,
    subnet: Subnet,
    *,
    instance_type: str,
    market: Any,
    volume_gib: int,
    instance_profile: str | None,
) -> None:
    """Ask EC2 whether we may launch exactly what a run would, without launching it.

    A launch of ours stands in a group of ours, so one is made, which lets nobody in, and deleted again.

    Raises:
        CloudError: We may not, or AWS did not answer. A quota is not looked at by EC2 here.
    """
    run, expires = f"doctor-{secrets.token_hex(6)}", datetime.now(UTC) + timedelta(seconds=PROBE_GROUP_S)
    group = ec2.create_security_group(run, NOBODY, vpc=subnet.vpc, expires=expires)
    try:
        ec2.check_launch(
            LaunchRequest(
                run=run,
                attempt=1,
                expires=expires,
                instance_type=instance_type,
                market=market,
                subnet=subnet,
                image_id=image.id,
                root_device=image.root_device,
                security_group=group,
                user_data="",
                volume_gib=max(volume_gib, image.size_gib),
                instance_profile=instance_profile,
            )
        )
    finally:
        ec2.delete_security_group(group)


def may_terminate(session: boto3.Session, region: str, instance_id: str) -> None:
    """Ask EC2 whether we may terminate an instance, without doing so. Raises CloudError."""
    import botocore.exceptions as aws

    with aws_errors(f"asking whether we may terminate {instance_id}"):
        client = session.client("ec2", region_name=region, config=CONFIG)
        try:
            client.terminate_instances(InstanceIds=[instance_id], DryRun=True)
        except aws.ClientError as error:
            if error.response["Error"]["Code"] != "DryRunOperation":
                raise
            return
    raise CloudError(f"asking whether we may terminate {instance_id}: the reply says neither yes nor no")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
