"""Policy statements for launches within the limits of a stack."""

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
            "Types, zones, prices, networks, images and quotas, read only; EC2 cannot limit these calls to resources.",
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
            "Only these types, markets and regions; only with our tags, by which instances are found and terminated; "
            "metadata by session tokens only and one hop far, so that neither a container nor a forged request "
            "gets the role's credentials; only with this profile. EC2 has no condition key for the behaviour at "
            "shutdown: the code sets it in every launch, and the dead-man timer does not rely on it.",
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
            "A volume costs money and keeps its data: encrypted, of the cheap type, within the agreed size, no faster "
            "than the price includes, and tagged.",
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
            "An image runs as root with the role's credentials, and every AWS account can publish images.",
            KEYS,
            ("ec2:RunInstances",),
            (f"arn:{site.partition}:ec2:*::image/*",),
            {"StringEquals": {"aws:RequestedRegion": site.regions, "ec2:Owner": site.image_owners}},
        ),
        Statement(
            "LaunchTagged",
            "The network interface and the spot request are made with the instance, and have our tag.",
            KEYS,
            ("ec2:RunInstances",),
            (site.ec2("network-interface"), site.ec2("spot-instances-request")),
            born_ours(site),
        ),
        Statement(
            "LaunchInOurGroup",
            "A launch uses a security group with our tag, which admits one address at one port.",
            KEYS,
            ("ec2:RunInstances",),
            (site.ec2("security-group"),),
            ours(site),
        ),
        Statement(
            "LaunchInSubnet",
            "Default subnets have no tag. Launches are limited by the region, and by the network or the subnets if the "
            "stack names them.",
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
            "Only our tags, and only while a resource is made. A role that could add them later could tag anything in "
            "the account, and then terminate it.",
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
            "One security group for each run, with our tag and our store's mark, which distinguishes it from another stack's.",
            EXAMPLES,
            ("ec2:CreateSecurityGroup",),
            (site.ec2("security-group"),),
            born_ours(site),
        ),
        Statement(
            "CreateGroupInNetwork",
            "The network has no tag of ours; the group that is made in it must have one.",
            EXAMPLES,
            ("ec2:CreateSecurityGroup",),
            (site.vpc_arn,),
            {"StringEquals": {"aws:RequestedRegion": site.regions}},
        ),
        Statement(
            "OpenOurGroup",
            "Admits the driver's address and revokes a former driver's, in groups with our tag only.",
            KEYS,
            ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"),
            (site.ec2("security-group"),),
            ours(site),
        ),
        Statement(
            "ReadOurConsole",
            "The boot messages of an instance that cannot be reached.",
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
            "A plan reports a missing instance profile before anything is staged or launched.",
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
            "One schedule for each attempt, with our names: it terminates the instance if nothing else does.",
            "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridgescheduler.html",
            ("scheduler:CreateSchedule", "scheduler:UpdateSchedule"),
            (site.schedules,),
        ),
        Statement(
            "FirstSpotInstance",
            "An account's first spot instance needs EC2's service-linked role; this allows that role and no other.",
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html",
            ("iam:CreateServiceLinkedRole",),
            (
                f"arn:{site.partition}:iam::{site.account}:role/aws-service-role/spot.amazonaws.com/{SPOT_ROLE}",
            ),
            {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
        ),
    )
