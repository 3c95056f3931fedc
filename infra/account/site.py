"""The values of one stack: account, bucket, repository, and limits for launches."""

import re
from dataclasses import dataclass

from gpu_offload.errors import OffloadError
from gpu_offload.infra.aws.gpu_types import ONE_GPU
from gpu_offload.infra.aws.schedule_name import schedule_pattern
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.github.repository import REPOSITORY

ACCOUNT = "${AWS::AccountId}"
PARTITION = "${AWS::Partition}"
"""CloudFormation fills these in; a caller that knows the account can set its number."""

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"

REGIONS = ("us-east-1", "us-east-2", "us-west-2")

# S3 allows dots, too, but no certificate of AWS's covers a host name with a bucket's dots.
BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")
ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,199}")
PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*/)*")
TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
VPC = re.compile(r"vpc-[0-9a-f]{8,17}")
SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
WORKFLOW = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}/\.github/workflows/[A-Za-z0-9._-]+\.ya?ml@[A-Za-z0-9._/-]{1,200}"
)
OWNER = re.compile(r"amazon|\d{12}|\$\{AWS::AccountId\}")


class SiteError(OffloadError, ValueError):
    """A value that cannot be used in a policy. `faults` has a sentence for each."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Site:
    """The repository that the roles trust, and the resources that they can use.

    No text may have a special meaning in a policy: a wildcard, a variable, a separator.

    Raises:
        SiteError: With all faults at once.
    """

    repository: str
    """ORG/REPO, in GitHub's own spelling: a subject's capitals count."""
    bucket: str
    owner_id: int | None = None
    repository_id: int | None = None
    """GitHub's numbers. Both or none; without them a repository that was created, renamed or transferred
    since 15 July 2026 can assume no role."""
    branch: str = "main"
    environment: str = "gpu"
    prefix: str = ""
    """Prefix of the store in the bucket; empty, or with a slash at the end."""
    endpoint_url: str | None = None
    """The server of a store outside AWS, which is part of the store's mark."""
    name: str = "gpu-offload"
    """Name of the stack; the roles' names begin with it."""
    regions: tuple[str, ...] = REGIONS
    instance_types: tuple[str, ...] = ONE_GPU
    markets: tuple[str, ...] = ("spot", "on-demand")
    max_volume_gib: int = 100
    image_owners: tuple[str, ...] = ("amazon",)
    vpc: str | None = None
    """The network that launches are bound to; None for any of the account's in these regions."""
    subnets: tuple[str, ...] = ()
    """The subnets that launches are bound to; empty for any."""
    job_workflow_ref: str | None = None
    """The only workflow file whose jobs get a role, `ORG/REPO/.github/workflows/FILE@REF`; None for any."""
    drivers_publish: bool = True
    """Whether launcher and janitor can publish, too."""
    account: str = ACCOUNT
    partition: str = PARTITION

    def __post_init__(self) -> None:
        rules = {
            "repository": (REPOSITORY, (self.repository,), "ORG/REPO as GitHub spells it"),
            "bucket": (BUCKET, (self.bucket,), "3 to 63 small letters, digits and hyphens"),
            "branch": (BRANCH, (self.branch,), "a branch's name, without wildcards"),
            "environment": (ENVIRONMENT, (self.environment,), "letters, digits, '.', '_' and '-'"),
            "prefix": (PREFIX, (self.prefix,), "folders, each with a slash at its end"),
            "name": (NAME, (self.name,), "at most 40 letters, digits and hyphens, beginning with a letter"),
            "regions": (REGION, self.regions, "such as us-east-1"),
            "instance types": (TYPE, self.instance_types, "such as g4dn.xlarge"),
            "image owners": (OWNER, self.image_owners, "'amazon' or an account's number"),
            "vpc": (VPC, (self.vpc,) if self.vpc else (), "such as vpc-0123456789abcdef0"),
            "subnets": (SUBNET, self.subnets, "such as subnet-0123456789abcdef0"),
            "job workflow": (
                WORKFLOW,
                (self.job_workflow_ref,) if self.job_workflow_ref else (),
                "ORG/REPO/.github/workflows/FILE.yml@REF",
            ),
        }
        faults = [
            f"{what} {value!r} is not {wanted}"
            for what, (pattern, values, wanted) in rules.items()
            for value in values
            if not pattern.fullmatch(value)
        ]
        faults += [
            f"{what} is empty"
            for what, values in (
                ("regions", self.regions),
                ("instance types", self.instance_types),
                ("markets", self.markets),
                ("image owners", self.image_owners),
            )
            if not values
        ]
        faults += [
            f"market {market!r} is not spot or on-demand"
            for market in self.markets
            if market not in {"spot", "on-demand"}
        ]
        if (self.owner_id is None) != (self.repository_id is None):
            faults.append("the owner's id and the repository's id belong together: give both or none")
        if min(self.owner_id or 1, self.repository_id or 1) < 1:
            faults.append("GitHub's ids are positive numbers")
        if faults:
            raise SiteError(faults)

    def role(self, kind: str) -> str:
        """Return the ARN of a role: launcher, janitor, publisher, trainer, scheduler."""
        return f"arn:{self.partition}:iam::{self.account}:role/{self.name}-{kind}"

    @property
    def profile(self) -> str:
        """The ARN of the trainer's instance profile."""
        return f"arn:{self.partition}:iam::{self.account}:instance-profile/{self.name}-trainer"

    @property
    def provider(self) -> str:
        """The ARN of GitHub's identity provider in the account; an account has one at most."""
        return f"arn:{self.partition}:iam::{self.account}:oidc-provider/{ISSUER}"

    def ec2(self, kind: str) -> str:
        """Return the ARN of everything of a kind (instance, volume, ...) in the account."""
        return f"arn:{self.partition}:ec2:*:{self.account}:{kind}/*"

    @property
    def vpc_arn(self) -> str:
        """The network that launches are bound to, or every network of the account."""
        return f"arn:{self.partition}:ec2:*:{self.account}:vpc/{self.vpc or '*'}"

    @property
    def subnet_arns(self) -> tuple[str, ...]:
        """The subnets that launches are bound to, or every subnet of the account."""
        names = self.subnets or ("*",)
        return tuple(f"arn:{self.partition}:ec2:*:{self.account}:subnet/{name}" for name in names)

    @property
    def mark(self) -> str:
        """The mark of the store, which is on every resource of its runs; see `store_mark`."""
        return store_mark(f"s3://{self.bucket}/{self.prefix}", self.endpoint_url)

    @property
    def schedules(self) -> str:
        """The ARN of the store's schedules: EventBridge's default group, our prefix, and the mark of the store."""
        return (
            f"arn:{self.partition}:scheduler:*:{self.account}:schedule/default/{schedule_pattern(self.mark)}"
        )

    @property
    def ref(self) -> str:
        """The default branch as a token names it."""
        return f"refs/heads/{self.branch}"

    @property
    def bucket_arn(self) -> str:
        """The bucket itself."""
        return f"arn:{self.partition}:s3:::{self.bucket}"

    def objects(self, *keys: str) -> tuple[str, ...]:
        """Return the ARNs of objects of the store."""
        return tuple(f"{self.bucket_arn}/{self.prefix}{key}" for key in keys)

    def subjects(self, suffix: str) -> tuple[str, ...]:
        """Return the subjects of this repository's tokens, in both forms, with this ending.

        GitHub puts the numeric ids into the subjects of repositories that were created, renamed or transferred
        since 15 July 2026, so that a later owner of a name does not inherit its permissions; older ones keep
        only the names. https://docs.github.com/en/actions/reference/security/oidc
        """
        owner, name = self.repository.split("/")
        # In full: a wildcard in place of the numbers would admit a later owner of the name.
        forms = [f"repo:{owner}/{name}:{suffix}"]
        if self.owner_id is not None:
            forms.append(f"repo:{owner}@{self.owner_id}/{name}@{self.repository_id}:{suffix}")
        return tuple(forms)

    @property
    def environment_subjects(self) -> tuple[str, ...]:
        """Subjects of a job behind the environment, which a person approved."""
        return self.subjects(f"environment:{self.environment}")

    @property
    def branch_subjects(self) -> tuple[str, ...]:
        """Subjects of a job on the default branch; a pull request's end in `pull_request` instead."""
        return self.subjects(f"ref:{self.ref}")
