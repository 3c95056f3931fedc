"""The statements of all policies together, and the template that holds them."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_case import ACCOUNT, BUCKET, ROLES, SITE, policy

from gpu_offload.infra.account.policies import policies
from gpu_offload.infra.account.site import Site, SiteError
from gpu_offload.infra.account.template import in_cloudformation, template


def statements():
    return [
        pytest.param(found.name, statement, id=f"{found.name}/{statement.sid}")
        for found in policies(SITE)
        for statement in found.statements
    ]


@pytest.mark.parametrize(("name", "statement"), statements())
def test_every_statement_has_a_reason_a_link_and_no_wildcard_action(name, statement):
    assert len(statement.reason) > 20
    assert statement.link.startswith(
        ("https://docs.aws.amazon.com/", "https://docs.github.com/", "https://github.blog/")
    )
    if statement.effect == "Allow":
        assert not [action for action in statement.actions if "*" in action]
        assert statement.principal != "*" or name == "bucket"


READS = ("Describe", "Get", "List")
BESIDE = {"LaunchImage", "LaunchInSubnet", "CreateGroupInNetwork"}
"""Resources that a call uses without our tag, beside the tagged one: image, subnet and network belong to others."""


@pytest.mark.parametrize(("name", "statement"), statements())
def test_what_changes_something_in_ec2_does_so_by_tag_and_never_everywhere(name, statement):
    changing = [a for a in statement.actions if not a.split(":")[1].startswith(READS)]
    if statement.effect == "Deny" or not changing or not statement.resources:
        return
    assert "*" not in statement.resources
    if any(action.startswith("ec2:") for action in changing) and statement.sid not in BESIDE:
        keys = statement.conditions["Null"]
        assert (
            keys.get("aws:ResourceTag/gpu-offload:run", keys.get("aws:RequestTag/gpu-offload:run")) == "false"
        )


@cache
def aws_data():
    """AWS's own list of actions, resources and condition keys, as cfn-lint carries it."""
    found = find_spec("cfnlint")  # not imported: that takes seconds
    if found is None or found.origin is None:
        pytest.skip("cfn-lint is not installed")
    path = Path(found.origin).parent / "data" / "AdditionalSpecs" / "Policies.json"
    return json.loads(path.read_text())


@pytest.mark.parametrize(("name", "statement"), statements())
def test_aws_knows_the_actions_and_the_keys_for_the_resources_that_we_name(name, statement):
    """A condition key that a resource does not have never holds, or always: neither is what one meant."""
    data = aws_data()
    for action in statement.actions:
        service, verb = action.lower().split(":")
        if verb == "*":
            continue
        assert verb in data[service]["Actions"], action
        kinds = data[service]["Actions"][verb].get("Resources", [])
        if service != "ec2" or statement.resources == ("*",):
            continue
        for resource in statement.resources:
            kind = resource.split(":", 5)[5].split("/")[0]
            assert kind in kinds, f"{action} on {kind}"
            known = [k.replace("/${TagKey}", "") for k in data["ec2"]["Resources"][kind]["ConditionKeys"]]
            for keys in statement.conditions.values():
                for key in keys:
                    assert key.split("/")[0] in [*known, "aws:RequestedRegion", "ec2:CreateAction"], key


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_policy_fits_into_what_iam_takes(role):
    """10,240 characters for a role's own policies, white space not counted."""
    size = len(json.dumps(policy(SITE, role), separators=(",", ":")))
    assert size < 10_240
    assert len(json.dumps(policy(SITE, "bucket"))) < 20_480


def test_faults_of_a_site_come_all_at_once():
    with pytest.raises(SiteError) as caught:
        Site(
            "octo-org/*",
            "My_Bucket",
            owner_id=1,
            branch="*",
            environment="gpu:x",
            prefix="../",
            markets=("free",),
        )
    assert len(caught.value.faults) == 7
    for text in ("repository", "bucket", "branch", "environment", "prefix", "market", "together"):
        assert text in str(caught.value)


@given(st.text(alphabet="*?${}:/ @\"'ab\n", min_size=1, max_size=12))
def test_no_name_smuggles_a_wildcard_or_a_variable_into_a_policy(text):
    for field in ("repository", "branch", "environment", "bucket", "prefix", "name"):
        values = {"repository": "octo-org/octo-repo", "bucket": BUCKET, field: text}
        try:
            site = Site(**values)
        except SiteError:
            continue
        assert not set("*?${}:@\n \"'") & set(getattr(site, field))


def resolved(value):
    """What CloudFormation makes of the template's documents in our account."""
    if isinstance(value, dict):
        if set(value) == {"Fn::Sub"}:
            text = value["Fn::Sub"].replace("${AWS::AccountId}", ACCOUNT).replace("${AWS::Partition}", "aws")
            return text.replace("${!", "${")
        return {key: resolved(each) for key, each in value.items()}
    return [resolved(each) for each in value] if isinstance(value, list) else value


OPEN = Site("octo-org/octo-repo", BUCKET, owner_id=123456, repository_id=456789)


def test_the_template_holds_the_very_policies_that_were_tried():
    resources = template(OPEN)["Resources"]
    for role in ROLES:
        properties = resources[f"{role.title()}Role"]["Properties"]
        assert resolved(properties["AssumeRolePolicyDocument"]) == policy(SITE, f"{role}-trust")
        assert [resolved(p["PolicyDocument"]) for p in properties["Policies"]] == [policy(SITE, role)]
    assert resolved(resources["BucketPolicy"]["Properties"]["PolicyDocument"]) == policy(SITE, "bucket")
    assert resources["TrainerProfile"]["Properties"]["InstanceProfileName"] == "gpu-offload-trainer"


def test_iams_own_variables_survive_cloudformation():
    text = "arn:${AWS::Partition}:s3:::b/${aws:userid}/*"
    assert in_cloudformation([text]) == [{"Fn::Sub": "arn:${AWS::Partition}:s3:::b/${!aws:userid}/*"}]
    assert resolved(in_cloudformation(text)) == "arn:aws:s3:::b/${aws:userid}/*"
    assert in_cloudformation("${aws:userid}") == "${aws:userid}"


def test_the_bucket_is_encrypted_versioned_kept_and_public_by_policy_only():
    bucket = template(OPEN)["Resources"]["Bucket"]
    properties = bucket["Properties"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert properties["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {rule["Id"]: rule for rule in properties["LifecycleConfiguration"]["Rules"]}
    assert rules["end-runs"]["Prefix"] == "runs/"
    assert "Prefix" not in rules["abort-uploads"]
    assert all("models" not in rule.get("Prefix", "") for rule in rules.values())
    assert not [r for r in rules.values() if "ExpirationInDays" in r and not r.get("Prefix")]


def test_the_provider_is_made_where_there_is_none_and_the_budget_where_there_is_an_address():
    found = template(OPEN)
    assert found["Resources"]["GitHubProvider"]["Condition"] == "MakeProvider"
    assert found["Resources"]["GitHubProvider"]["Properties"]["ClientIdList"] == ["sts.amazonaws.com"]
    assert found["Resources"]["Budget"]["Condition"] == "MakeBudget"


@pytest.mark.parametrize("plain", [False, True])
def test_cfn_lint_finds_nothing(plain):
    api = pytest.importorskip("cfnlint.api", reason="cfn-lint is not installed")
    site = Site("octo-org/octo-repo", BUCKET, prefix="keys/", image_owners=("amazon", "${AWS::AccountId}"))
    found = api.lint(json.dumps(template(site, plain_public=plain)))
    assert [str(match) for match in found] == []


def test_cfn_lint_does_find_what_is_wrong():
    """A silent linter would prove nothing."""
    api = pytest.importorskip("cfnlint.api", reason="cfn-lint is not installed")
    wrong = template(OPEN)
    wrong["Resources"]["Bucket"]["Properties"]["Versioning"] = "yes"
    wrong["Resources"]["LauncherRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][0][
        "Efect"
    ] = "Allow"
    assert {match.rule.id[0] for match in api.lint(json.dumps(wrong))} == {"E"}
