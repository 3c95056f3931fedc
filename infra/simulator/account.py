"""A simulated account in moto's books: what it starts with, and its end."""

import contextlib

from moto.core.base_backend import BackendDict
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends

BUCKET = "gpu-offload"
"""A bucket that is there from the start."""
PROFILE = "gpu-offload-instance"
"""The role and instance profile that are there from the start."""
TRUST = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}'  # fmt: skip


def provision(account: str, region: str) -> None:
    """Make what setting an account up leaves: a bucket, and the role of instances."""
    # Bucket names are global, also over the clouds of one process.
    if BUCKET not in s3_backends.bucket_accounts:
        s3_backends[account]["aws"].create_bucket(BUCKET, region)
    iam = iam_backends[account]["aws"]
    iam.create_role(
        role_name=PROFILE,
        assume_role_policy_document=TRUST,
        path="/",
        permissions_boundary=None,
        description="what an instance may do",
        tags=[],
        max_session_duration="3600",
    )
    iam.create_instance_profile(name=PROFILE, path="/", role_names=[], tags=[])
    iam.add_role_to_instance_profile(PROFILE, PROFILE)


def forget(account: str) -> None:
    """Take an account out of moto's books."""
    with contextlib.suppress(KeyError):
        s3_backends[account]["aws"].reset()
    for backends in list(BackendDict._instances):  # noqa: SLF001  moto has no other list
        backends.pop(account, None)
