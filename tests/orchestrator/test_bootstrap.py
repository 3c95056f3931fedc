"""`offload bootstrap`: shows a stack without asking anybody, and makes it behind a question."""

import io
import json
import os
import re
import subprocess
import sys
import tomllib

import boto3
import pytest
from local_http import LocalServer

from gpu_offload.infra.account.site import ACCOUNT
from gpu_offload.infra.account.stack import Stacks
from gpu_offload.infra.aws.errors import InvalidRequestError
from gpu_offload.infra.github.repository import from_remote, numbers_of, repository_of
from gpu_offload.orchestrator.account.bootstrap import Bootstrap, deploy
from gpu_offload.orchestrator.account.site_settings import bucket_name, site_of
from gpu_offload.orchestrator.cli import main
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.load import load_settings

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")
"""moto's word for what its CloudFormation drops."""

REPOSITORY = "octo-org/octo-repo"


def settings(folder, *words, store="s3://octo-models/keys"):
    return load_settings(
        folder, overrides=["dataset.path=data", f"store.url={store}", *words], environment={}
    )


@pytest.fixture
def console():
    return Console(io.StringIO())


@pytest.fixture
def stacks(cloud):
    return Stacks("us-east-1", sleep=lambda seconds: None)


def prepared(**changes):
    return Bootstrap(
        site_of(None, REPOSITORY, numbers=(12, 34), bucket="octo-models"), "us-east-1", **changes
    )


# --------------------------------------------------------------------------- what it is made of


def test_the_roles_allow_what_the_settings_may_ask_for(tmp_path):
    found = site_of(
        settings(tmp_path, 'ec2.regions=["eu-west-1"]', "ec2.market=spot", "ec2.volume-gib=200"),
        REPOSITORY,
        numbers=None,
    )
    assert (found.bucket, found.prefix) == ("octo-models", "keys/")
    assert (found.regions, found.markets, found.max_volume_gib) == (("eu-west-1",), ("spot",), 200)
    assert found.image_owners == ("amazon",)


def test_an_image_of_ones_own_is_allowed_where_the_settings_name_one(tmp_path):
    own = site_of(
        settings(tmp_path, "ec2.image=ami-0123456789abcdef0", 'ec2.regions=["us-east-1"]'),
        REPOSITORY,
        numbers=None,
    )
    assert own.image_owners == ("amazon", ACCOUNT)


def test_a_bucket_is_named_after_the_repository_where_none_is_set(tmp_path):
    assert (
        site_of(settings(tmp_path, store="file:here"), REPOSITORY, numbers=None).bucket
        == "octo-org-octo-repo-models"
    )
    assert len(bucket_name(f"{'a' * 39}/{'b.C_' * 25}")) <= 63


@pytest.mark.process
@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/octo-org/octo-repo.git", REPOSITORY),
        ("https://github.com/octo-org/octo-repo", REPOSITORY),
        ("https://token@github.com/octo-org/octo-repo.git", REPOSITORY),
        ("git@github.com:octo-org/octo-repo.git", REPOSITORY),
        ("ssh://git@github.com/octo-org/octo.repo", "octo-org/octo.repo"),
        ("https://github.com.evil.example/octo-org/octo-repo", None),
        ("https://example.org/octo-org/octo-repo.git", None),
        ("/somewhere/else", None),
    ],
)
def test_the_repository_is_read_from_the_remote(url, name, tmp_path):
    assert from_remote(url) == name
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert repository_of(tmp_path, {}) is None
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", url], check=True)
    assert repository_of(tmp_path, {}) == name
    assert repository_of(tmp_path, {"GITHUB_REPOSITORY": "a/b"}) == "a/b"
    subprocess.run(["git", "-C", tmp_path, "remote", "rename", "origin", "upstream"], check=True)
    assert repository_of(tmp_path, {}) == name


@pytest.fixture
def github():
    """GitHub's API, as far as one repository goes."""

    def reply(request):
        if request.path == f"/repos/{REPOSITORY}":
            return 200, {"id": 34, "owner": {"id": 12}}
        return 404, {"message": "Not Found"}

    with LocalServer(reply) as server:
        yield {"GITHUB_API_URL": server.url}


def test_githubs_numbers_come_from_the_runner_or_from_github(github):
    assert numbers_of(REPOSITORY, github) == (12, 34)
    assert numbers_of("octo-org/private", github) is None
    runner = {"GITHUB_REPOSITORY": "a/b", "GITHUB_REPOSITORY_OWNER_ID": "5", "GITHUB_REPOSITORY_ID": "6"}
    assert numbers_of("a/b", runner) == (5, 6)
    assert numbers_of("a/b", {"GITHUB_API_URL": "http://127.0.0.1:9"}) is None
    assert numbers_of("a/b", {"GITHUB_API_URL": "http://example.org"}) is None


# ------------------------------------------------------------------------------- what it shows


def test_it_prints_what_it_would_create_which_roles_it_trusts_and_what_follows():
    text = prepared().text()
    assert text.startswith("would create the stack gpu-offload in us-east-1")
    for piece in (
        "IAM::OIDCProvider",
        "S3::Bucket",
        "Budgets::Budget",
        "repo:octo-org/octo-repo:environment:gpu",
        "repo:octo-org@12/octo-repo@34:ref:refs/heads/main",
        "gh variable set OFFLOAD_LAUNCHER_ROLE --repo octo-org/octo-repo --body arn:aws:iam::ACCOUNT:role/gpu-offload-launcher",
        'instance-profile = "gpu-offload-trainer"',
    ):
        assert piece in text
    assert "${" not in text


def test_it_warns_where_numbers_are_missing_or_everything_becomes_public():
    without = Bootstrap(site_of(None, REPOSITORY, numbers=None), "us-east-1", plain_public=True).text()
    assert "gh api repos/octo-org/octo-repo --jq '.owner.id, .id'" in without
    assert "--plain-public makes datasets, logs and checkpoints public" in without


def test_its_toml_is_what_the_settings_understand(tmp_path):
    (tmp_path / "offload.toml").write_text(
        '[dataset]\npath = "x"\n' + prepared().toml({"ScheduleRoleArn": "arn:aws:iam::111122223333:role/s"})
    )
    found = load_settings(tmp_path, environment={})
    assert found.store.url == "s3://octo-models"
    assert found.ec2.instance_profile == "gpu-offload-trainer"
    assert tomllib.loads(prepared().toml())["store"]["region"] == "us-east-1"


def test_every_statement_is_shown_after_its_reason_and_link():
    text = prepared().policies_text()
    assert text.count("# https://") == text.count('"Sid"') > 50
    for name in ("launcher-trust", "launcher", "janitor", "publisher", "trainer", "scheduler", "bucket"):
        assert f"## {name}: " in text


# ------------------------------------------------------------------------------- making it


def test_nothing_is_made_where_the_answer_is_no(stacks, console, cloud):
    seen = []

    def refuse(change):
        seen.append(change)
        return False

    assert deploy(prepared(), console, refuse, stacks=stacks) is None
    (change,) = seen
    assert change.new
    assert "add AWS::S3::Bucket Bucket" in [str(each) for each in change.changes]
    assert not cloud.of("ExecuteChangeSet")
    assert cloud.of("DeleteChangeSet")
    client = boto3.client("iam")
    assert client.list_roles()["Roles"] == []
    client.close()


@pytest.fixture
def outputs(cloud):
    """moto forgets the outputs of a stack that was made by a change set: they are answered in its place."""
    told = {key: value.replace("ACCOUNT", "111122223333") for key, value in prepared().outputs().items()}

    def tell(call, answer):
        if call.action == "DescribeStacks" and cloud.of("ExecuteChangeSet"):
            status, body, _ = answer()
            members = "".join(
                f"<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>"
                for key, value in told.items()
            )
            body = re.sub(rb"<Outputs>.*?</Outputs>|<Outputs/>", b"", body, flags=re.DOTALL)
            found = f"<Outputs>{members}</Outputs></member>".encode()
            head, _, tail = body.rpartition(b"</member>")
            return status, head + found + tail, {"Content-Type": "text/xml"}
        return None

    cloud.faults.append(tell)
    return told


def test_a_stack_is_created_reported_and_then_up_to_date(stacks, console, outputs):
    """moto's CloudFormation drops much of a template in silence: what it makes is not looked at here."""
    assert deploy(prepared(), console, lambda change: True, stacks=stacks) == outputs
    lines = prepared().afterwards(outputs)
    assert any("111122223333:role/gpu-offload-janitor" in line for line in lines)
    assert not [line for line in lines if "ACCOUNT" in line]


def test_the_provider_is_left_to_the_account_that_has_it(stacks, console, cloud):
    client = boto3.client("iam")
    assert not stacks.has_provider()
    client.create_open_id_connect_provider(
        Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"]
    )
    client.close()
    assert stacks.has_provider()
    deploy(prepared(), console, lambda change: False, stacks=stacks)
    (sent,) = cloud.of("CreateChangeSet")
    assert sent.form["Parameters.member.1.ParameterKey"] == "CreateProvider"
    assert sent.form["Parameters.member.1.ParameterValue"] == "false"
    assert sent.form["Capabilities.member.1"] == "CAPABILITY_NAMED_IAM"
    assert json.loads(sent.form["TemplateBody"]) == prepared().template
    assert len(sent.form["TemplateBody"]) < 51_200


def xml(inner, action):
    return f"<{action}Response><{action}Result>{inner}</{action}Result></{action}Response>"


def test_a_refusal_of_cloudformation_is_shown_in_its_words(stacks, console, cloud):
    def refuse(call, answer):
        if call.action == "DescribeChangeSet":
            return 200, xml(
                "<Status>FAILED</Status><StatusReason>no such type</StatusReason>", "DescribeChangeSet"
            )
        return None

    cloud.faults.append(refuse)
    with pytest.raises(InvalidRequestError, match="no such type"):
        deploy(prepared(), console, lambda change: True, stacks=stacks)
    assert cloud.of("DeleteChangeSet")
    assert not cloud.of("ExecuteChangeSet")


def test_a_stack_that_needs_no_change_is_left_alone(stacks, console, cloud):
    deploy(prepared(), console, lambda change: True, stacks=stacks)
    cloud.calls.clear()

    def same(call, answer):
        if call.action == "DescribeChangeSet":
            reason = "The submitted information didn't contain changes."
            return 200, xml(
                f"<Status>FAILED</Status><StatusReason>{reason}</StatusReason>", "DescribeChangeSet"
            )
        return None

    cloud.faults.append(same)
    assert deploy(prepared(), console, lambda change: pytest.fail("asked"), stacks=stacks) is not None
    assert not cloud.of("ExecuteChangeSet")
    assert cloud.of("CreateChangeSet")[0].form["ChangeSetType"] == "UPDATE"


def failure(number, reason):
    return (
        f"<member><EventId>{number}</EventId><StackId>s</StackId><StackName>gpu-offload</StackName>"
        "<LogicalResourceId>Bucket</LogicalResourceId><ResourceStatus>CREATE_FAILED</ResourceStatus>"
        f"<ResourceStatusReason>{reason}</ResourceStatusReason>"
        "<Timestamp>2026-11-22T00:00:00Z</Timestamp></member>"
    )


def test_a_stack_that_fails_says_which_resource_and_why(stacks, console, cloud):
    """Not what failed at an earlier deployment, which CloudFormation still tells."""

    def fail(call, answer):
        if call.action == "DescribeStackEvents":
            new = failure(2, "octo-models already exists") if cloud.of("ExecuteChangeSet") else ""
            events = new + failure(1, "fixed last week")
            return 200, xml(f"<StackEvents>{events}</StackEvents>", "DescribeStackEvents")
        if call.action == "DescribeStacks" and cloud.of("ExecuteChangeSet"):
            stack = (
                "<member><StackName>gpu-offload</StackName><StackStatus>ROLLBACK_COMPLETE</StackStatus>"
                "<CreationTime>2026-11-22T00:00:00Z</CreationTime></member>"
            )
            return 200, xml(f"<Stacks>{stack}</Stacks>", "DescribeStacks")
        return None

    cloud.faults.append(fail)
    with pytest.raises(InvalidRequestError, match="ROLLBACK_COMPLETE: Bucket: octo-models already exists"):
        deploy(prepared(), console, lambda change: True, stacks=stacks)
    # The next try meets what is left of it.
    with pytest.raises(InvalidRequestError, match="aws cloudformation delete-stack"):
        deploy(prepared(), console, lambda change: True, stacks=stacks)


# ------------------------------------------------------------------------------- the command


def offload(folder, *words, answer="", **environment):
    return subprocess.run(
        [sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli", *words],
        cwd=folder,
        input=answer,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "GITHUB_API_URL": "http://127.0.0.1:9",
            **environment,
        },
    )


WHO = ("bootstrap", "--repository", REPOSITORY, "--owner-id", "12", "--repository-id", "34")


@pytest.mark.process
def test_the_command_shows_without_asking_anybody(tmp_path):
    """AWS_ENDPOINT_URL is unreachable here: a request to AWS would fail."""
    shown = offload(tmp_path, *WHO)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "would create the stack" in shown.stdout
    printed = offload(tmp_path, *WHO, "--print")
    assert json.loads(printed.stdout)["Resources"]["LauncherRole"]["Type"] == "AWS::IAM::Role"
    machine = json.loads(offload(tmp_path, *WHO, "--json", "--branch", "trunk").stdout)
    assert machine["deployed"] is False
    assert machine["subjects"]["janitor"][0] == "repo:octo-org/octo-repo:ref:refs/heads/trunk"
    assert set(machine["variables"]) == {
        "OFFLOAD_LAUNCHER_ROLE",
        "OFFLOAD_JANITOR_ROLE",
        "OFFLOAD_PUBLISHER_ROLE",
    }


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("bootstrap",), "--repository ORG/REPO"),
        (("bootstrap", "--repository", REPOSITORY, "--owner-id", "1"), "belong together"),
        ((*WHO, "--classic-subject"), "leaves out the numbers"),
        ((*WHO, "--print", "--deploy"), "choose one of"),
        ((*WHO, "--yes"), "belongs to --deploy"),
        (("bootstrap", "--repository", "octo-repo"), "is not ORG/REPO"),
        (("doctor", "--repository", "octo-repo"), "is not ORG/REPO"),
        ((*WHO, "--branch", "*"), "not allowed in a policy"),
        (("bootstrap", "--repository", REPOSITORY, "--deploy", "--yes"), "does not show the numbers"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_happens(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_store_outside_aws_neither_names_the_region_of_the_stack_nor_is_replaced(tmp_path, capsys):
    """R2's region is "auto", and no stack can be there."""
    (tmp_path / "offload.toml").write_text(
        '[dataset]\npath = "data"\n[store]\nurl = "s3://models"\nregion = "auto"\n'
        'endpoint-url = "https://account.r2.cloudflarestorage.com"\n[ec2]\nregions = ["eu-west-1"]\n'
    )
    with pytest.raises(SystemExit) as ended:
        main([*WHO, "--json", "-C", str(tmp_path)])
    made = json.loads(capsys.readouterr().out)
    assert (ended.value.code, made["region"]) == (0, "eu-west-1")
    assert set(tomllib.loads(made["toml"])) == {"ec2"}


def test_the_command_asks_before_it_makes_anything(tmp_path, cloud):
    refused = offload(tmp_path, *WHO, "--deploy", "--json", answer="n\n")
    assert refused.returncode == 1
    assert "add AWS::IAM::Role LauncherRole" in refused.stderr
    assert "nothing was created" in json.loads(refused.stdout)["error"]["message"]
    unanswered = offload(tmp_path, *WHO, "--deploy")
    assert (unanswered.returncode, "give --yes" in unanswered.stderr) == (2, True)
    assert len(cloud.of("DeleteChangeSet")) == 2
    assert not cloud.of("ExecuteChangeSet")
    made = offload(tmp_path, *WHO, "--deploy", "--yes", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["deployed"] is True
    assert cloud.of("ExecuteChangeSet")
