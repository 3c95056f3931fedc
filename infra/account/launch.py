"""Statements for launching instances within the limits of a stack."""

from gpu_offload.infra.account.cleanup import EXAMPLES, KEYS, LOOK, end, ours
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.account.statement import Conditions, Statement

INCLUDED_IOPS, INCLUDED_THROUGHPUT = "3000", "125"
"""What gp3's price includes, the second in MiB/s. https://aws.amazon.com/ebs/pricing/"""

SPOT_ROLE = "AWSServiceRoleForEC2Spot"

TAG_KEYS = ("gpu-offload:run", "gpu-offload:attempt", "gpu-offload:expires", "gpu-offload:store", "Name")

TAGS = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html"


def born_ours(site: Site) -> Conditions:
    """Return the condition that a call makes something in our regions with our tags."""
    return {
        "StringEquals": {"aws:RequestedRegion": site.regions, "aws:RequestTag/gpu-offload:store": site.mark},
        "Null": {"aws:RequestTag/gpu-offload:run": "false"},
    }


def launcher_compute(site: Site) -> tuple[Statement, ...]:
    """Launch within the limits, with every safeguard against leaks; terminate tagged resources."""
    return (
        Statement(
            "Look",
            "Types, zones, prices, networks, images and quotas, read only; EC2 cannot limit them to resources.",
            KEYS,
            (
                *LOOK,
                "ec2:DescribeImages",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeSecurityGroupRules",
                "ec2:DescribeSpotPriceHistory",
                "ec2:DescribeSubnets",
                "pricing:GetProducts",
                "servicequotas:GetAWSDefaultServiceQuota",
                "servicequotas:GetServiceQuota",
            ),
            ("*",),
        ),
        Statement(
            "ReadImageParameter",
            "Amazon publishes the newest image's id as a parameter.",
            "https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html",
            ("ssm:GetParameter",),
            (f"arn:{site.partition}:ssm:*::parameter/aws/service/*",),
        ),
        Statement(
            "LaunchInstance",
            "Only these types, markets and regions; only with our tags, by which everything is found and ended; "
            "metadata by session tokens only and one hop far, so that neither a container nor a forged request "
            "gets the role's credentials; only with the one profile. That it terminates when it shuts down is no "
            "condition key of EC2's: the code says so in every launch, and the dead-man timer does not rely on it.",
            KEYS,
            ("ec2:RunInstances",),
            (site.ec2("instance"),),
            {
                "StringEquals": {
                    "aws:RequestedRegion": site.regions,
                    "ec2:InstanceType": site.instance_types,
                    "ec2:InstanceMarketType": site.markets,
                    "ec2:MetadataHttpTokens": "required",
                    "aws:RequestTag/gpu-offload:store": site.mark,
                },
                # A dedicated host or instance costs a multiple, which no price here includes.
                "StringEqualsIfExists": {"ec2:Tenancy": "default"},
                "NumericEquals": {"ec2:MetadataHttpPutResponseHopLimit": "1"},
                "ArnEquals": {"ec2:InstanceProfile": site.profile},
                "Null": {
                    "aws:RequestTag/gpu-offload:run": "false",
                    "aws:RequestTag/gpu-offload:attempt": "false",
                    "aws:RequestTag/gpu-offload:expires": "false",
                },
            },
        ),
        Statement(
            "LaunchVolume",
            "A disk costs, and keeps what was on it: encrypted, of the cheap kind, not larger than agreed and no faster "
            "than its price includes, tagged.",
            KEYS,
            ("ec2:RunInstances",),
            (site.ec2("volume"),),
            {
                "StringEquals": {
                    "aws:RequestedRegion": site.regions,
                    "ec2:VolumeType": "gp3",
                    "aws:RequestTag/gpu-offload:store": site.mark,
                },
                "Bool": {"ec2:Encrypted": "true"},
                "NumericLessThanEquals": {"ec2:VolumeSize": str(site.max_volume_gib)},
                "NumericLessThanEqualsIfExists": {
                    "ec2:VolumeIops": INCLUDED_IOPS,
                    "ec2:VolumeThroughput": INCLUDED_THROUGHPUT,
                },
                "Null": {"aws:RequestTag/gpu-offload:run": "false"},
            },
        ),
        Statement(
            "LaunchImage",
            "An image runs as root with access to the role's credentials, and every AWS account can publish images.",
            KEYS,
            ("ec2:RunInstances",),
            (f"arn:{site.partition}:ec2:*::image/*",),
            {"StringEquals": {"aws:RequestedRegion": site.regions, "ec2:Owner": site.image_owners}},
        ),
        Statement(
            "LaunchTagged",
            "The network interface and the spot request come into being with the instance, and have our tag.",
            KEYS,
            ("ec2:RunInstances",),
            (site.ec2("network-interface"), site.ec2("spot-instances-request")),
            born_ours(site),
        ),
        Statement(
            "LaunchInOurGroup",
            "A launch uses a security group of ours, which lets in one address at one port, and no other.",
            KEYS,
            ("ec2:RunInstances",),
            (site.ec2("security-group"),),
            ours(site),
        ),
        Statement(
            "LaunchInSubnet",
            "Default subnets are not ours and have no tag: the region limits where a launch may happen, and the network "
            "or the subnets where the stack names them.",
            KEYS,
            ("ec2:RunInstances",),
            site.subnet_arns,
            {
                "StringEquals": {"aws:RequestedRegion": site.regions},
                # Without a network of its own, a stack is bound by the region alone.
                **({"ArnLike": {"ec2:Vpc": site.vpc_arn}} if site.vpc else {}),
            },
        ),
        Statement(
            "TagAtBirth",
            "Tags are given while something is made, and only ours. Could they be given later, anything in the "
            "account could be made to look like ours, and then be terminated.",
            TAGS,
            ("ec2:CreateTags",),
            tuple(
                site.ec2(kind)
                for kind in (
                    "instance",
                    "volume",
                    "network-interface",
                    "spot-instances-request",
                    "security-group",
                )
            ),
            {
                "StringEquals": {
                    "ec2:CreateAction": ("RunInstances", "CreateSecurityGroup"),
                    "aws:RequestTag/gpu-offload:store": site.mark,
                },
                "ForAllValues:StringEquals": {"aws:TagKeys": TAG_KEYS},
                "Null": {"aws:RequestTag/gpu-offload:run": "false"},
            },
        ),
        Statement(
            "CreateGroup",
            "One security group a run, with our tag and our store's mark: another stack finds and adopts its own by name.",
            EXAMPLES,
            ("ec2:CreateSecurityGroup",),
            (site.ec2("security-group"),),
            born_ours(site),
        ),
        Statement(
            "CreateGroupInNetwork",
            "The network that the group is made in is not ours and has no tag; the group itself must.",
            EXAMPLES,
            ("ec2:CreateSecurityGroup",),
            (site.vpc_arn,),
            {"StringEquals": {"aws:RequestedRegion": site.regions}},
        ),
        Statement(
            "OpenOurGroup",
            "The driver's address is let in, and a former driver's shut out: in groups of ours only.",
            KEYS,
            ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"),
            (site.ec2("security-group"),),
            ours(site),
        ),
        Statement(
            "ReadOurConsole",
            "What an instance that cannot be reached printed while it booted.",
            KEYS,
            ("ec2:GetConsoleOutput",),
            (site.ec2("instance"),),
            ours(site),
        ),
        *end(site),
        Statement(
            "HandTrainerToInstances",
            "Only this role, and only to EC2: permission to pass any role would grant every right.",
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html",
            ("iam:PassRole",),
            (site.role("trainer"),),
            {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
        Statement(
            "LookAtTheProfile",
            "A plan says that the instance profile is missing before anything is staged or rented.",
            "https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html",
            ("iam:GetInstanceProfile",),
            (site.profile,),
        ),
        Statement(
            "HandSchedulerToSchedules",
            "Exactly this role, and to EventBridge Scheduler only.",
            "https://docs.aws.amazon.com/scheduler/latest/UserGuide/setting-up.html",
            ("iam:PassRole",),
            (site.role("scheduler"),),
            {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
        ),
        Statement(
            "PlanTheEnd",
            "One schedule an attempt, by our names: it terminates the instance if nothing else does.",
            "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridgescheduler.html",
            ("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
            (site.schedules,),
        ),
        Statement(
            "FirstSpotInstance",
            "An account's first spot instance needs EC2's own role for it; this allows that role and no other.",
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html",
            ("iam:CreateServiceLinkedRole",),
            (
                f"arn:{site.partition}:iam::{site.account}:role/aws-service-role/spot.amazonaws.com/{SPOT_ROLE}",
            ),
            {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
        ),
    )
