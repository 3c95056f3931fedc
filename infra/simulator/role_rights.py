"""What a role of `offload bootstrap` may do, by the actions of its real policy."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache

from gpu_offload.infra.account.policies import policy
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.simulator.call import Call

KINDS = ("launcher", "janitor", "publisher")

S3_ACTIONS = {
    "HeadObject": "GetObject",
    "ListParts": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}
"""The action that IAM is asked about, where an operation of S3's has another name."""

FREE = ("sts",)
"""Services that ask no policy of ours."""


def may(role: str, call: Call) -> bool:
    """Whether a role's policy has a statement for a call's action; resources and conditions are not evaluated.

    A role that is none of ours may do everything.
    """
    kind = role.rpartition("-")[2]
    if kind not in KINDS or call.service in FREE:
        return True
    operation = S3_ACTIONS.get(call.operation, call.operation) if call.service == "s3" else call.operation
    wanted = f"{call.service}:{operation}".lower()
    return any(fnmatchcase(wanted, action) for action in _actions(kind))


@cache
def _actions(kind: str) -> tuple[str, ...]:
    statements = policy(Site("octo-org/octo-repo", "bucket"), kind)["Statement"]
    return tuple(
        action.lower() for s in statements if s["Effect"] == "Allow" for action in _listed(s["Action"])
    )


def _listed(value: str | list[str]) -> Iterator[str]:
    yield from [value] if isinstance(value, str) else value
