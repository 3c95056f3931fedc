"""What our calls ask IAM for, without a cloud."""

from gpu_offload.infra.simulator.iam import Request


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
