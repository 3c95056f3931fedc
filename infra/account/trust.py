"""Statements of trust policies: who can assume which role."""

from gpu_offload.infra.account.site import AUDIENCE, ISSUER, Site
from gpu_offload.infra.account.statement import Statement

CLAIMS = "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif"
"""STS evaluates these claims of GitHub's tokens since February 2026."""
SUBJECTS = "https://github.blog/changelog/2026-04-23-immutable-subject-claims-for-github-actions-oidc-tokens"


def trust_environment(site: Site) -> tuple[Statement, ...]:
    """Trust a job behind the environment, which its reviewers approved."""
    return (
        _github(
            site,
            site.environment_subjects,
            f"Only a job of {site.repository} in the environment {site.environment!r}, on the branch {site.branch!r}, may "
            "spend money. Both forms of the subject are named in full, without a wildcard: a fork has another name and "
            "number, and a pull request's subject another ending.",
        ),
    )


def trust_branch(site: Site, kind: str) -> tuple[Statement, ...]:
    """Trust a job on the default branch: code merged by a person with the right to merge."""
    why = (
        "A clean-up must not wait for an approval, so the janitor is behind no environment"
        if kind == "janitor"
        else "Code that is merged to the default branch may publish"
    )
    return (
        _github(
            site,
            site.branch_subjects,
            f"{why}. Only the default branch has this subject; a pull request's ends in another way. Both forms of the "
            "subject are named in full, without a wildcard.",
        ),
    )


def trust_instance() -> tuple[Statement, ...]:
    """Trust EC2, which gives the role to instances with its profile."""
    return (
        Statement(
            "InstancesOnly",
            "An instance gets the role through its profile; no other principal can assume it.",
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html",
            ("sts:AssumeRole",),
            principal={"Service": "ec2.amazonaws.com"},
        ),
    )


def trust_scheduler(site: Site) -> tuple[Statement, ...]:
    """Trust EventBridge Scheduler, for schedules of this account."""
    return (
        Statement(
            "SchedulesOfThisAccount",
            "EventBridge Scheduler acts for any account. The conditions on account and group keep others from using it "
            "with this role. AWS advises against naming a single schedule here.",
            "https://docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html",
            ("sts:AssumeRole",),
            conditions={
                "StringEquals": {"aws:SourceAccount": site.account},
                "ArnLike": {
                    "aws:SourceArn": f"arn:{site.partition}:scheduler:*:{site.account}:schedule-group/default"
                },
            },
            principal={"Service": "scheduler.amazonaws.com"},
        ),
    )


def own_role(site: Site, kind: str) -> Statement:
    """Let a role read its own description: `offload doctor` compares its trust policy with the repository."""
    return Statement(
        "ReadOwnTrust",
        "`offload doctor` shows whether the role trusts the repository that it runs in.",
        "https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html",
        ("iam:GetRole",),
        (site.role(kind),),
    )


def _github(site: Site, subjects: tuple[str, ...], reason: str) -> Statement:
    claims: dict[str, str | tuple[str, ...]] = {
        f"{ISSUER}:aud": AUDIENCE,
        f"{ISSUER}:sub": subjects,
        # An environment's subject names no branch; a user who can push a branch could run the environment's job there.
        f"{ISSUER}:ref": site.ref,
    }
    if site.repository_id is not None:
        # GitHub never reuses the number: a repository that takes over a name has another one.
        claims[f"{ISSUER}:repository_id"] = str(site.repository_id)
    if site.job_workflow_ref is not None:
        claims[f"{ISSUER}:job_workflow_ref"] = site.job_workflow_ref
    return Statement(
        "ThisRepository",
        reason,
        CLAIMS if site.owner_id is None else SUBJECTS,
        ("sts:AssumeRoleWithWebIdentity",),
        conditions={"StringEquals": claims},
        principal={"Federated": site.provider},
    )
