"""Statements for finding, terminating and removing tagged resources."""

from gpu_offload.infra.account.site import Site
from gpu_offload.infra.account.statement import Conditions, Statement


def ours(site: Site) -> Conditions:
    """Return the condition that a resource has our tag, which cannot be added to an existing one: see `TagAtBirth`.

    Where it names a store, that is this one: another repository's stack in the account has another.
    """
    return {
        "Null": {"aws:ResourceTag/gpu-offload:run": "false"},
        "StringEqualsIfExists": {"aws:ResourceTag/gpu-offload:store": site.mark},
    }


KEYS = "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html"
EXAMPLES = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ExamplePolicies_EC2.html"

LOOK = (
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeVolumes",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotInstanceRequests",
    "scheduler:ListSchedules",
)
"""What both launcher and janitor read. IAM cannot limit these calls to tagged resources."""


def janitor_compute(site: Site) -> tuple[Statement, ...]:
    """Find and terminate tagged resources in every region, also where launches are not allowed any more."""
    return (
        Statement(
            "Look",
            "To end what is left over one must see it; EC2 cannot limit this to resources.",
            KEYS,
            LOOK,
            ("*",),
        ),
        *end(site),
    )


def scheduler_compute(site: Site) -> tuple[Statement, ...]:
    """Terminate only what has our tag."""
    return (_terminate(site),)


def end(site: Site) -> tuple[Statement, ...]:
    """Terminate and remove what is tagged."""
    return (
        _terminate(site),
        Statement(
            "CancelOurSpotRequests",
            "A persistent request launches again after every end. We make one-time ones only; one with our tag that is "
            "open all the same would cost for ever.",
            KEYS,
            ("ec2:CancelSpotInstanceRequests",),
            (site.ec2("spot-instances-request"),),
            ours(site),
        ),
        Statement(
            "DeleteOurVolumes",
            "The disk that an instance left, where it has our tag.",
            KEYS,
            ("ec2:DeleteVolume",),
            (site.ec2("volume"),),
            ours(site),
        ),
        Statement(
            "DeleteOurGroups",
            "The run's security group, once no instance is in it.",
            KEYS,
            ("ec2:DeleteSecurityGroup",),
            (site.ec2("security-group"),),
            ours(site),
        ),
        Statement(
            "DeleteOurSchedules",
            "A schedule whose instance has ended. Schedules have no tags of their own, so the name decides, which has "
            "the mark of the store: another stack of the account has another one.",
            "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridgescheduler.html",
            ("scheduler:DeleteSchedule", "scheduler:GetSchedule"),
            (site.schedules,),
        ),
    )


def _terminate(site: Site) -> Statement:
    return Statement(
        "TerminateWhatIsOurs",
        "Only what has our tag, in every region, and no other store's: the rest of the account is not ours.",
        EXAMPLES,
        ("ec2:TerminateInstances",),
        (site.ec2("instance"),),
        ours(site),
    )
