"""Policy statements for finding, terminating and deleting tagged resources."""

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
            "Finds what is left over; EC2 cannot limit these calls to resources.",
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
            "A persistent request launches again after each termination. gpu-offload makes one-time requests only; a "
            "persistent one with our tag would cost money for ever.",
            KEYS,
            ("ec2:CancelSpotInstanceRequests",),
            (site.ec2("spot-instances-request"),),
            ours(site),
        ),
        Statement(
            "DeleteOurVolumes",
            "The volume that an instance left, if it has our tag.",
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
            "A schedule whose instance has ended. Schedules have no tags, so their names decide, which contain the "
            "store's mark: another stack of the account has another mark.",
            "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridgescheduler.html",
            ("scheduler:DeleteSchedule", "scheduler:GetSchedule"),
            (site.schedules,),
        ),
    )


def _terminate(site: Site) -> Statement:
    return Statement(
        "TerminateWhatIsOurs",
        "Only instances with our tag and of no other store, in every region; nothing else in the account.",
        EXAMPLES,
        ("ec2:TerminateInstances",),
        (site.ec2("instance"),),
        ours(site),
    )
