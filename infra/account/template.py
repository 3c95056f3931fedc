"""The CloudFormation template: all resources that an account needs, in one stack."""

from typing import Any

from gpu_offload.infra.account.policies import policies
from gpu_offload.infra.account.site import AUDIENCE, ISSUER, Site
from gpu_offload.infra.account.statement import Policy

RUNS_DAYS = 30
"""Days after which a run's journal, checkpoints and staged result are deleted."""

OLD_VERSION_DAYS = 30
OLD_RUN_VERSION_DAYS = 1
ABORT_DAYS = 2

ROLES = {
    "launcher": "Rents instances and drives them. Behind the environment {environment} of {repository}.",
    "janitor": "Terminates what has the tag gpu-offload:run. For the default branch of {repository}.",
    "publisher": "Trains on the runner and publishes. For the default branch of {repository}.",
    "trainer": "What a rented instance may do.",
    "scheduler": "Terminates an instance at its deadline, for EventBridge Scheduler.",
}


def template(site: Site, *, plain_public: bool = False) -> dict[str, Any]:
    """Return the template, ready for `json.dumps`; `plain_public` makes the whole bucket public.

    It has parameters only for what differs from one deployment of the same stack to the next: whether the
    account has GitHub's identity provider already (an account can have one only), and the budget's alarm.
    """
    found = {each.name: each for each in policies(site, plain_public=plain_public)}
    resources: dict[str, Any] = {
        "GitHubProvider": {
            "Type": "AWS::IAM::OIDCProvider",
            "Condition": "MakeProvider",
            # Other stacks of the account use it, too.
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {"Url": f"https://{ISSUER}", "ClientIdList": [AUDIENCE]},
        },
        **_bucket(site, found["bucket"]),
    }
    for kind, about in ROLES.items():
        resources[f"{kind.title()}Role"] = _role(site, kind, about, found)
    resources["TrainerProfile"] = {
        "Type": "AWS::IAM::InstanceProfile",
        "Properties": {"InstanceProfileName": f"{site.name}-trainer", "Roles": [{"Ref": "TrainerRole"}]},
    }
    resources["Budget"] = _budget(site)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"gpu-offload for {site.repository}: roles, bucket, budget alarm. Costs nothing by itself.",
        "Parameters": {
            "CreateProvider": {
                "Type": "String",
                "Default": "true",
                "AllowedValues": ["true", "false"],
                "Description": f"false where the account has the provider {ISSUER} already.",
            },
            "AlertEmail": {
                "Type": "String",
                "Default": "",
                "Description": "E-mail address for the alert that the month's costs near the budget; empty for none.",
            },
            "MonthlyBudgetUsd": {
                "Type": "Number",
                "Default": 10,
                "MinValue": 1,
                "Description": "The account's budget a month, in USD. An alarm stops nothing; the run's own limits do.",
            },
        },
        "Conditions": {
            "MakeProvider": {"Fn::Equals": [{"Ref": "CreateProvider"}, "true"]},
            "MakeBudget": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlertEmail"}, ""]}]},
        },
        "Resources": resources,
        "Outputs": {
            "LauncherRoleArn": _output("The workflow's variable OFFLOAD_LAUNCHER_ROLE", "LauncherRole"),
            "JanitorRoleArn": _output("The workflow's variable OFFLOAD_JANITOR_ROLE", "JanitorRole"),
            "PublisherRoleArn": _output("The workflow's variable OFFLOAD_PUBLISHER_ROLE", "PublisherRole"),
            "ScheduleRoleArn": _output("offload.toml: ec2.schedule-role", "SchedulerRole"),
            "InstanceProfile": {
                "Description": "offload.toml: ec2.instance-profile",
                "Value": {"Ref": "TrainerProfile"},
            },
            "StoreUrl": {
                "Description": "offload.toml: store.url",
                "Value": f"s3://{site.bucket}/{site.prefix}".rstrip("/"),
            },
        },
    }


def in_cloudformation(value: Any) -> Any:
    """Return a document with CloudFormation's pseudo parameters marked for substitution.

    IAM has variables in the same form (`${aws:userid}`): they are escaped for IAM.
    """
    if isinstance(value, dict):
        return {key: in_cloudformation(each) for key, each in value.items()}
    if isinstance(value, list):
        return [in_cloudformation(each) for each in value]
    # In a substituted text CloudFormation writes `${!x}` as `${x}`.
    if isinstance(value, str) and "${AWS::" in value:
        return {"Fn::Sub": value.replace("${", "${!").replace("${!AWS::", "${AWS::")}
    return value


def _role(site: Site, kind: str, about: str, found: dict[str, Policy]) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": f"{site.name}-{kind}",
            "Description": about.format(environment=site.environment, repository=site.repository),
            "MaxSessionDuration": 3600,  # sessions are renewed; a stolen one ends soon
            "AssumeRolePolicyDocument": in_cloudformation(found[f"{kind}-trust"].json()),
            "Policies": [
                {"PolicyName": f"{site.name}-{kind}", "PolicyDocument": in_cloudformation(found[kind].json())}
            ],
        },
    }


def _bucket(site: Site, policy: Policy) -> dict[str, Any]:
    return {
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            # The models outlive the stack.
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "BucketName": site.bucket,
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                # Only the policy below makes objects public, under a few prefixes; no object can make
                # itself public by an ACL. https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
                "PublicAccessBlockConfiguration": {
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": False,
                    "RestrictPublicBuckets": False,
                },
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [
                        {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                    ]
                },
                # A compromised instance can overwrite checkpoints, but not their older versions.
                "VersioningConfiguration": {"Status": "Enabled"},
                "LifecycleConfiguration": {"Rules": _lifecycle(site.prefix)},
            },
        },
        "BucketPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": in_cloudformation(policy.json())},
        },
    }


def _lifecycle(prefix: str) -> list[dict[str, Any]]:
    # Rules of a versioned bucket: `Expiration` hides an object, and `Noncurrent...` removes what is hidden.
    return [
        {
            "Id": "abort-uploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_DAYS},
        },
        {
            "Id": "end-runs",
            "Status": "Enabled",
            "Prefix": f"{prefix}runs/",
            "ExpirationInDays": RUNS_DAYS,
            "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_RUN_VERSION_DAYS},
        },
        {
            "Id": "end-recent-runs",
            "Status": "Enabled",
            "Prefix": f"{prefix}recent/",
            "ExpirationInDays": RUNS_DAYS,
        },
        {
            "Id": "end-datasets",
            "Status": "Enabled",
            "Prefix": f"{prefix}datasets/",
            "ExpirationInDays": RUNS_DAYS,
        },
        {
            "Id": "end-old-versions",
            "Status": "Enabled",
            "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_VERSION_DAYS},
        },
    ]


def _budget(site: Site) -> dict[str, Any]:
    def alarm(kind: str, percent: int) -> dict[str, Any]:
        return {
            "Notification": {
                "NotificationType": kind,
                "ComparisonOperator": "GREATER_THAN",
                "Threshold": percent,
                "ThresholdType": "PERCENTAGE",
            },
            "Subscribers": [{"SubscriptionType": "EMAIL", "Address": {"Ref": "AlertEmail"}}],
        }

    return {
        "Type": "AWS::Budgets::Budget",
        "Condition": "MakeBudget",
        "Properties": {
            "Budget": {
                "BudgetName": f"{site.name}-monthly",
                "BudgetType": "COST",
                "TimeUnit": "MONTHLY",
                "BudgetLimit": {"Amount": {"Ref": "MonthlyBudgetUsd"}, "Unit": "USD"},
            },
            "NotificationsWithSubscribers": [alarm("ACTUAL", 80), alarm("FORECASTED", 100)],
        },
    }


def _output(about: str, resource: str) -> dict[str, Any]:
    return {"Description": about, "Value": {"Fn::GetAtt": [resource, "Arn"]}}
