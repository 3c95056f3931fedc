"""IAM's evaluation of policies, conditions included: enough of it to try ours without an account.

An implicit no, unless a statement allows; an explicit no beats every yes. A policy of a bucket counts like one of
the role (same account). https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """One thing that is asked for: an action on a resource. `context` holds condition keys; a list is multi-valued."""

    action: str
    resource: str = "*"
    context: dict = field(default_factory=dict)


def allowed(documents, request, *, public=False):
    """Whether the policies allow it. With `public`, only statements for everybody count: nobody has signed."""
    verdicts = {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if (not public or statement.get("Principal") == "*") and applies(statement, request)
    }
    return verdicts == {"Allow"}


def applies(statement, request):
    context = {key.lower(): value for key, value in request.context.items()}
    if not any(like(pattern.lower(), request.action.lower()) for pattern in listed(statement["Action"])):
        return False
    resources = listed(statement.get("Resource", "*"))
    if not any(like(filled(pattern, context), request.resource) for pattern in resources):
        return False
    return all(
        holds(operator, key, wanted, context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def holds(operator, key, wanted, context):
    """One key of one operator of a condition: any of the wanted values will do."""
    quantifier, _, operator = operator.rpartition(":")
    wanted = [filled(value, context) for value in listed(wanted)]
    present = key.lower() in context
    if operator == "Null":
        return present == (wanted == ["false"])
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    test = OPERATORS[operator]
    if not present:
        return if_exists or quantifier == "ForAllValues" or "Not" in operator
    values = [str(value) for value in listed(context[key.lower()])]
    hits = [any(test(value, each) for each in wanted) for value in values]
    return all(hits) if quantifier == "ForAllValues" else any(hits)


def like(pattern, text):
    """IAM's wildcards: `*` is anything, slashes included; `?` is one character."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def arn_like(text, pattern):
    """Like `like`, but none of an ARN's first five parts swallows the next."""
    texts, patterns = text.split(":", 5), pattern.split(":", 5)
    return len(texts) == len(patterns) and all(map(like, patterns, texts))


OPERATORS = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringNotEquals": lambda value, wanted: value != wanted,
    "StringLike": lambda value, wanted: like(wanted, value),
    "ArnEquals": arn_like,
    "ArnLike": arn_like,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "NumericEquals": lambda value, wanted: float(value) == float(wanted),
    "NumericLessThanEquals": lambda value, wanted: float(value) <= float(wanted),
}


def filled(text, context):
    """Put policy variables in; one without a value makes the text match nothing."""
    return re.sub(r"\$\{([^}]+)\}", lambda found: context.get(found[1].lower(), "\0"), text)


def listed(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


# ----------------------------------------------------------------------- what our calls ask IAM for


def launch_requests(
    parameters,
    *,
    region="us-east-1",
    account="111122223333",
    image_owner="amazon",
    group_tags=None,
    vpc="vpc-0123456789abcdef0",
    subnet="x-1",
):
    """What IAM is asked about one RunInstances: every resource that it touches, the tags, and the role's passing."""
    group_tags = {"gpu-offload:run": "r-1"} if group_tags is None else group_tags
    common = {"aws:RequestedRegion": region, "ec2:Region": region}
    tags = {spec["ResourceType"]: spec["Tags"] for spec in parameters.get("TagSpecifications", [])}

    def arn(kind, owner=account):
        return f"arn:aws:ec2:{region}:{owner}:{kind}/x-1"

    def tagged(kind):
        found = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags.get(kind, [])}
        return {
            **common,
            **found,
            **({"aws:TagKeys": [tag["Key"] for tag in tags[kind]]} if kind in tags else {}),
        }

    market = parameters.get("InstanceMarketOptions", {}).get("MarketType", "on-demand")
    metadata = parameters.get("MetadataOptions", {})
    profile = parameters.get("IamInstanceProfile", {}).get("Name")
    facts = {
        "ec2:InstanceType": parameters["InstanceType"],
        "ec2:InstanceMarketType": market,
        "ec2:Tenancy": parameters.get("Placement", {}).get("Tenancy", "default"),
        "ec2:MetadataHttpTokens": metadata.get("HttpTokens", "optional"),
        "ec2:MetadataHttpPutResponseHopLimit": metadata.get("HttpPutResponseHopLimit", 2),
    }
    if profile:
        facts["ec2:InstanceProfile"] = f"arn:aws:iam::{account}:instance-profile/{profile}"
    run = "ec2:RunInstances"
    requests = [
        Request(run, arn("instance"), {**tagged("instance"), **facts}),
        Request(run, arn("image", ""), {**common, "ec2:Owner": image_owner}),
        Request(
            run,
            f"arn:aws:ec2:{region}:{account}:subnet/{subnet}",
            {**common, "ec2:Vpc": f"arn:aws:ec2:{region}:{account}:vpc/{vpc}"},
        ),
        Request(run, arn("network-interface"), tagged("network-interface")),
        Request(
            run,
            arn("security-group"),
            {**common, **{f"aws:ResourceTag/{k}": v for k, v in group_tags.items()}},
        ),
    ]
    if parameters.get("KeyName"):
        requests.append(Request(run, arn("key-pair"), common))
    for mapping in parameters["BlockDeviceMappings"]:
        disk = mapping["Ebs"]
        facts = {
            "ec2:VolumeSize": disk["VolumeSize"],
            "ec2:VolumeType": disk.get("VolumeType", "gp2"),
            "ec2:Encrypted": str(disk.get("Encrypted", False)).lower(),
        }
        faster = {"Iops": "ec2:VolumeIops", "Throughput": "ec2:VolumeThroughput"}
        facts |= {key: disk[name] for name, key in faster.items() if name in disk}
        requests.append(Request(run, arn("volume"), {**tagged("volume"), **facts}))
    if "spot-instances-request" in tags:
        requests.append(Request(run, arn("spot-instances-request"), tagged("spot-instances-request")))
    requests += [
        Request("ec2:CreateTags", arn(kind), {**tagged(kind), "ec2:CreateAction": "RunInstances"})
        for kind in tags
    ]
    if profile:
        role = f"arn:aws:iam::{account}:role/{profile}"
        requests.append(Request("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}))
    return requests


def object_request(verb, bucket, key, headers=(), *, part=False):
    """What IAM is asked about one call to an object."""
    context = {"aws:SecureTransport": "true"}
    if verb == "PutObject":
        context["s3:ObjectCreationOperation"] = "false" if part else "true"
        context |= {f"s3:{name.lower()}": value for name, value in dict(headers).items()}
    return Request(f"s3:{verb}", f"arn:aws:s3:::{bucket}/{key}", context)


def list_request(bucket, prefix=None):
    """What IAM is asked about a listing."""
    context = {"aws:SecureTransport": "true"} | ({} if prefix is None else {"s3:prefix": prefix})
    return Request("s3:ListBucket", f"arn:aws:s3:::{bucket}", context)


def token_request(subject, audience="sts.amazonaws.com", **claims):
    """What IAM is asked when a workflow's token is to become a role: the repository's own, on its branch, by default."""
    issuer = "token.actions.githubusercontent.com"
    told = {"sub": subject, "aud": audience, "ref": "refs/heads/main", "repository_id": "456789", **claims}
    context = {f"{issuer}:{name}": value for name, value in told.items() if value is not None}
    return Request("sts:AssumeRoleWithWebIdentity", "*", context)
