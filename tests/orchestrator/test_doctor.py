"""`offload doctor`: a line for everything that a run stumbles over, before it does."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from policy_case import policy

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.aws.caller import skew
from gpu_offload.infra.github.protection import Protection
from gpu_offload.infra.simulator.account import IMAGE_ID
from gpu_offload.orchestrator.account import doctor
from gpu_offload.orchestrator.account.checklist import Check, Examination
from gpu_offload.orchestrator.account.doctor import examine
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.orchestrator.state import state_folder

REPOSITORY = "octo-org/octo-repo"
OFFLINE = {
    "GITHUB_API_URL": "http://127.0.0.1:9",
    "GITHUB_REPOSITORY": REPOSITORY,
    "GITHUB_REPOSITORY_OWNER_ID": "123456",
    "GITHUB_REPOSITORY_ID": "456789",
}
SITE = Site(
    REPOSITORY, "octo-models", owner_id=123456, repository_id=456789, account="1" * 12, partition="aws"
)


@pytest.fixture
def project(tmp_path):
    generate(tmp_path / "data", images=12, size=32)
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "data"\n[ec2]\nregions = ["us-east-1"]\n')
    return tmp_path


def look(project, *words, probe=True, roles=(), **environment):
    return examine(
        project,
        lambda: load_settings(project, overrides=words, environment={}),
        environment={**OFFLINE, **environment},
        roles=roles,
        probe=probe,
    )


def state(report, name):
    (found,) = [check for check in report.checks if check.name == name]
    return found.state


def line(report, name):
    (found,) = [check for check in report.checks if check.name == name]
    return found


@pytest.mark.parametrize(
    ("found", "state", "told"),
    [
        (None, "grey", "does not show"),
        (Protection(exists=False), "yellow", "no environment"),
        (Protection(exists=True), "yellow", "no required reviewers"),
        (Protection(exists=True, reviewers=1), "yellow", "every branch"),
        (Protection(exists=True, reviewers=1, limits_branches=True), "green", "1 reviewer"),
    ],
)
def test_the_protection_of_the_launchers_environment_is_read_and_judged(found, state, told, monkeypatch):
    asked = []
    monkeypatch.setattr(doctor, "protection_of", lambda *words: asked.append(words) or found)
    check = doctor._deployment(REPOSITORY, "gpu", OFFLINE)
    assert asked == [(REPOSITORY, "gpu", OFFLINE)]
    assert check.state == state
    assert told in check.text


# ------------------------------------------------------------------------------- without an account


@pytest.fixture
def no_account(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_account")
def test_without_an_account_all_is_well_and_what_is_not_needed_is_said(project):
    report = look(project)
    assert report.ok
    assert line(report, "AWS credentials") == Check(
        "AWS credentials", "grey", "there are none, and a CPU training needs none"
    )
    assert state(report, "store") == state(report, "dataset") == state(report, "repository") == "green"
    assert "store.url" in line(report, "instances").remedy
    assert not list(state_folder(project).glob("store/runs/*"))


def test_a_store_outside_aws_needs_no_account_for_trainings_on_the_cpu(project, cloud, monkeypatch):
    """With R2 or MinIO the keys are the store's: STS does not know them, and a training works all the same."""
    import boto3

    boto3.client("s3", endpoint_url=cloud.url, region_name="us-east-1").create_bucket(Bucket="outside")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    report = look(project, "store.url=s3://outside", f"store.endpoint-url={cloud.url}")
    assert report.ok, report.text()
    assert state(report, "store") == "green"
    assert line(report, "instances").state == "grey"


@pytest.mark.simulator
@pytest.mark.usefixtures("no_account")
def test_a_bucket_without_credentials_is_red(project):
    report = look(project, "store.url=s3://octo-models")
    assert not report.ok
    assert state(report, "AWS credentials") == "red"
    assert "AWS_ROLE_ARN" in line(report, "AWS credentials").remedy


@pytest.mark.process
@pytest.mark.usefixtures("no_account")
def test_a_faulty_dataset_or_configuration_is_red_and_says_where_to_look(project):
    (project / "data" / "0003.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    report = look(project)
    assert not report.ok
    assert "offload check" in line(report, "dataset").remedy
    wrong = look(project, "training.epochs=0")
    assert [check.name for check in wrong.checks] == ["training here", "configuration"]
    assert "training.epochs" in line(wrong, "configuration").text


@pytest.mark.usefixtures("no_account")
def test_a_folder_that_cannot_be_written_to_is_red(project):
    (project / "taken").write_text("a file")
    assert state(look(project, "store.url=file:taken"), "store") == "red"


# ------------------------------------------------------------------------------ in a simulated account


@pytest.fixture
def simulated(monkeypatch):
    behaviour = pytest.importorskip(
        "gpu_offload.infra.simulator.behaviour", reason="the extra [simulator] is missing"
    )
    from gpu_offload.infra.simulator.cloud import SimulatedCloud

    with SimulatedCloud(
        behaviour.Behaviour(boot_seconds=0.05, shutdown_seconds=0.05, lag_seconds=0.0)
    ) as one:
        for name, value in one.environment().items():
            monkeypatch.setenv(name, value)
        one.client("s3").create_bucket(Bucket="octo-models")
        yield one


IN_BUCKET = "store.url=s3://octo-models"


@pytest.mark.simulator
def test_in_a_good_account_nothing_is_red_nothing_is_launched_and_nothing_is_left(project, simulated):
    report = look(project, IN_BUCKET)
    assert report.ok, report.text()
    for name in (
        "store",
        "store is private",
        "AWS identity",
        "clock",
        "us-east-1: quota of spot GPU vCPUs",
        "us-east-1: image",
        "us-east-1: network",
        "us-east-1: launching",
    ):
        assert state(report, name) == "green", name
    assert line(report, "AWS credentials").text == "environment variables"
    assert simulated.calls["ec2.RunInstances"] == 1, "a dry run"
    assert not simulated.leftovers()
    assert "Contents" not in simulated.client("s3").list_objects_v2(Bucket="octo-models")


@pytest.mark.simulator
def test_without_probing_nothing_is_written_or_tried(project, simulated):
    report = look(project, IN_BUCKET, probe=False)
    assert report.ok
    assert state(report, "us-east-1: launching") == "grey"
    assert not [
        call for call in simulated.calls if call.startswith(("s3.Put", "s3.Delete", "ec2.Run", "ec2.Create"))
    ]


@pytest.mark.simulator
def test_a_role_that_rents_nothing_is_not_blamed_for_it(project, simulated):
    arn = "arn:aws:iam::111111111111:role/gpu-offload-publisher"
    report = look(project, IN_BUCKET, AWS_ROLE_ARN=arn)
    assert state(report, "us-east-1: launching") == "grey"
    assert state(report, "store") == "green"
    assert simulated.calls["ec2.RunInstances"] == 0


@pytest.mark.simulator
def test_a_new_accounts_quota_of_nothing_is_red_and_says_how_to_ask_for_more(project, simulated):
    simulated.behaviour = simulated.behaviour.__class__(quota_spot_gpu=0)
    with pytest.MonkeyPatch.context() as patch:
        from gpu_offload.infra.aws.spot_market import Quotas, SpotMarket

        patch.setattr(SpotMarket, "quotas", lambda self: Quotas(0.0, 0.0))
        report = look(project, IN_BUCKET)
    found = line(report, "us-east-1: quota of spot GPU vCPUs")
    assert (found.state, report.ok) == ("red", False)
    assert "L-3819A6DF" in found.remedy
    assert "servicequotas" in found.remedy


@pytest.mark.simulator
def test_one_region_that_works_is_enough(project, simulated):
    """The others are left out of a run's offers."""
    ec2 = simulated.client("ec2", "us-west-2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    report = look(project, IN_BUCKET, 'ec2.regions=["us-east-1","us-west-2"]')
    assert report.ok, report.text()
    assert state(report, "us-west-2: network") == "yellow"
    assert "create-default-vpc" in line(report, "us-west-2: network").remedy
    alone = look(project, IN_BUCKET, 'ec2.regions=["us-west-2"]')
    assert state(alone, "us-west-2: network") == "red"


@pytest.mark.simulator
def test_an_instance_of_ours_that_lives_is_used_to_ask_whether_we_may_terminate(project, simulated):
    simulated.client("ec2").run_instances(
        InstanceType="g4dn.xlarge",
        ImageId=IMAGE_ID,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "gpu-offload:run", "Value": "r-1"}]}
        ],
    )
    found = line(look(project, IN_BUCKET), "us-east-1: terminating")
    assert (found.state, found.text) == ("green", "we may (1 of ours are alive there)")
    assert simulated.leftovers().instances


@pytest.mark.simulator
def test_a_bucket_that_shows_its_runs_to_everybody_is_red(project, simulated):
    s3 = simulated.client("s3")
    s3.put_bucket_policy(
        Bucket="octo-models",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": "*",
                        "Action": "s3:GetObject",
                        "Resource": "arn:aws:s3:::octo-models/*",
                    }
                ],
            }
        ),
    )
    s3.put_bucket_acl(Bucket="octo-models", ACL="public-read")
    from gpu_offload.infra.store import probe as probes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "anonymous", lambda url: 206)  # moto's own answer depends on objects' ACLs
        report = look(project, IN_BUCKET)
    found = line(report, "store is private")
    assert (found.state, report.ok) == ("red", False)
    assert "datasets are public" in found.text


@pytest.mark.simulator
def test_a_published_model_that_the_public_cannot_read_is_yellow(project, simulated):
    simulated.client("s3").put_object(Bucket="octo-models", Key="models/1/model.pt", Body=b"x")
    report = look(project, IN_BUCKET)
    assert report.ok
    assert state(report, "models are public") == "yellow"
    simulated.client("s3").put_object(
        Bucket="octo-models", Key="models/1/model.pt", Body=b"x", ACL="public-read"
    )
    assert state(look(project, IN_BUCKET), "models are public") == "green"


# --------------------------------------------------------------------------------------- in moto's account


@pytest.fixture
def cloud(cloud):
    """moto knows no quotas of EC2's, and the SDK would ask again and again."""

    def quota(call, answer):
        if call.action == "GetServiceQuota":
            return 200, '{"Quota": {"Value": 8.0}}'
        return None

    cloud.faults.append(quota)
    return cloud


def test_what_aws_denies_is_red_with_the_remedy(project, cloud, bucket):
    def deny(call, answer):
        if call.action == "DescribeImages":
            code = "UnauthorizedOperation"
            text = f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
            return 403, text
        return None

    cloud.faults.append(deny)
    found = line(
        look(project, f"store.url=s3://{bucket}", "ec2.image=ami-0123456789abcdef0"), "us-east-1: image"
    )
    assert found.state == "red"
    assert "UnauthorizedOperation" in found.text
    assert "offload bootstrap" in found.remedy
    assert found.remedy not in found.text


def test_credentials_that_aws_does_not_accept_are_red_in_our_words(project, cloud, bucket):
    cloud.fail_once(
        lambda call: call.action == "GetCallerIdentity",
        403,
        "<ErrorResponse><Error><Code>ExpiredToken</Code><Message>gone</Message></Error></ErrorResponse>",
        times=3,
    )
    found = line(look(project, f"store.url=s3://{bucket}"), "AWS credentials")
    assert found.state == "red"
    assert "gone" in found.text
    assert "fresh ones" in found.remedy
    assert found.remedy not in found.text


def test_a_wrong_clock_is_found_by_the_date_of_an_aws_reply(project, cloud, bucket, monkeypatch):
    """A server of Python's dates its replies itself, so the distance is put in where it is measured."""
    monkeypatch.setattr("gpu_offload.infra.aws.caller.skew", lambda date, now: 420.0 if date else 0.0)
    report = look(project, f"store.url=s3://{bucket}")
    assert state(report, "clock") == "red"
    assert line(report, "clock").text == "this machine's clock is 420 s ahead of AWS's"
    assert state(look(project), "clock") == "yellow", "no bucket, no need"


def test_a_clock_is_measured_by_the_date_of_a_reply():
    now = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
    assert skew("Sun, 22 Nov 2026 12:00:00 GMT", now) == 30
    assert skew("nonsense", now) == skew("", now) == 0.0


def test_the_trust_of_a_role_is_read_from_the_account(project, cloud, bucket):
    import boto3

    client = boto3.client("iam")
    client.create_role(RoleName="good", AssumeRolePolicyDocument=json.dumps(policy(SITE, "launcher-trust")))
    other = Site("stranger/other", "octo-models", account="1" * 12, partition="aws")
    client.create_role(RoleName="bad", AssumeRolePolicyDocument=json.dumps(policy(other, "launcher-trust")))
    client.close()
    report = look(project, f"store.url=s3://{bucket}", roles=("good", "arn:aws:iam::1:role/bad", "none"))
    assert state(report, "trust of good") == "green"
    assert state(report, "trust of bad") == "red"
    assert "repo:stranger/other:environment:gpu" in line(report, "trust of bad").text
    assert state(report, "trust of none") == "yellow"


# ------------------------------------------------------------------------------------------- the parts


def test_the_report_counts_and_colours_and_keeps_to_its_line():
    report = Examination(
        (Check("a", "green", "fine"), Check("bb", "red", "x\x1b[2J\ny", "mend it"), Check("c", "grey", "-"))
    )
    text = report.text()
    assert not report.ok
    assert "1 to fix, 0 to know, 1 fine, 1 not needed here" in text
    assert "-> mend it" in text
    assert "\x1b" not in text
    assert "\x1b[31mFAIL\x1b[0m" in report.text(colour=True)
    assert report.json()["checks"][1]["remedy"] == "mend it"


@pytest.mark.process
@pytest.mark.usefixtures("no_account")
def test_the_command_exits_by_what_it_found(project):
    def doctor(*words):
        return subprocess.run(
            [sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli", "doctor", *words],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **OFFLINE},
        )

    well = doctor("--json")
    assert (well.returncode, well.stderr) == (0, "")
    assert json.loads(well.stdout)["ok"] is True
    ill = doctor("--set", "store.url=s3://octo-models")
    assert ill.returncode == 1
    assert "FAIL  AWS credentials" in ill.stdout
