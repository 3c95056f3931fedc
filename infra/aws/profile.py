"""The instance profile that instances get: whether it is fit for a launch."""

import boto3

from gpu_offload.infra.aws.client_config import make_client
from gpu_offload.infra.aws.error_codes import aws_errors
from gpu_offload.infra.aws.errors import CloudError, MissingError


def profile_fault(session: boto3.Session, name: str) -> str | None:
    """Return why no instance can be launched with a profile.

    None where it is fit, and where nothing can be said: IAM did not answer, or the caller may not ask. Then the launch says
    it.
    """
    try:
        with aws_errors(f"reading the instance profile {name}"):
            region = session.region_name or "us-east-1"
            client = make_client(session, "iam", region, attempts=2, read_timeout=10)
            roles = client.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    except MissingError:
        return "there is no such instance profile in this account"
    except CloudError:
        return None
    return None if roles else "it has no role, so an instance would have no access to the store"
