"""The hosts of the simulated cloud: real SSH, user data, metadata, and an end that leaves nothing."""

import json
import shlex
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from commands import wait_until
from simulated_time import hasten

from gpu_offload.infra.instance.user_data import user_data
from gpu_offload.infra.simulator.account import IMAGE_ID
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.guest import due
from gpu_offload.infra.simulator.guest_paths import PathMap
from gpu_offload.infra.simulator.guest_processes import marked
from gpu_offload.infra.simulator.isolation import Isolation, isolation
from gpu_offload.infra.simulator.namespace import why_not
from gpu_offload.infra.simulator.user_data import read_user_data
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.errors import (
    ConnectionLostError,
    HostError,
    HostKeyMismatchError,
    HostUnreachableError,
)
from gpu_offload.infra.ssh.key import ClientKey, HostKey

QUICK = Behaviour(boot_seconds=0.05, shutdown_seconds=0.2, lag_seconds=0.0)
RUN = {"Key": "gpu-offload:run", "Value": "r1"}
KINDS = ["sshd", "own-server", "no-namespace", "namespaces"]
two_networks = pytest.mark.parametrize("lab", ["sshd", "namespaces"], indirect=True)
"""For what depends on the network and not on the SSH server: our relay, and a cable."""


class Lab:
    """A cloud and how to launch and log in."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.key, self.host_key = ClientKey.generate(), HostKey.generate()

    def launch(self, text=None, *, lifetime=600, **options):
        now = time.time()
        text = text or user_data(
            deadline=now + lifetime, launched=now, host_key=self.host_key, client_key=self.key.public
        )
        wanted = {
            "ImageId": IMAGE_ID,
            "InstanceType": "g4dn.xlarge",
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": text,
            "InstanceMarketOptions": {"MarketType": "spot"},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "IamInstanceProfile": {"Name": "gpu-offload-instance"},
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [RUN]}],
        }
        return self.cloud.client("ec2").run_instances(**(wanted | options))["Instances"][0]

    def ssh(self, instance, host_key=None, key=None, patience=60):
        address = Address(instance["PublicIpAddress"], self.cloud.ssh_port, self.cloud.ssh_user)
        return SshHost(address, key or self.key, (host_key or self.host_key).public, patience=patience)

    def state(self, instance):
        found = self.cloud.client("ec2").describe_instances(InstanceIds=[instance["InstanceId"]])
        return found["Reservations"][0]["Instances"][0]


@pytest.fixture(params=KINDS)
def lab(request, monkeypatch):
    """Every kind of host that this machine can have."""
    kind = request.param
    if kind == "namespaces" and (reason := why_not()):
        pytest.skip(reason)
    if kind in {"sshd", "no-namespace"} and isolation().sshd is None:
        pytest.skip("no sshd that would work for this user")
    if kind == "no-namespace":
        for module in ("host", "instance_file", "place"):
            monkeypatch.setattr(
                f"gpu_offload.infra.simulator.{module}.isolation",
                lambda: Isolation((), users=False, sshd=isolation().sshd),
            )
    with SimulatedCloud(QUICK, namespaces=kind == "namespaces", sshd=kind != "own-server") as cloud:
        yield Lab(cloud)
        assert [event for event in cloud.events if event.kind == "error"] == []
        folders = [one.host.folder for one in cloud.compute.rented.values()]
    assert [pid for folder in folders for pid in marked(folder)] == []
    assert not any(folder.exists() for folder in folders)


@pytest.fixture
def plain():
    """The default kind."""
    with SimulatedCloud(QUICK) as cloud:
        yield Lab(cloud)
        assert [event for event in cloud.events if event.kind == "error"] == []


def test_a_host_is_reached_by_ssh_with_the_planted_key_and_does_what_user_data_says(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        assert ssh.run("echo out; echo err >&2; exit 7", timeout=60, check=False).exit_code == 7
        assert ssh.run("cat", timeout=60, stdin=b"\0bytes\xff").stdout == b"\0bytes\xff"
        ready = "${GPU_OFFLOAD_ROOT%/}/var/lib/gpu-offload/ready"
        wait_until(lambda: ssh.run(f'test -e "{ready}"', timeout=60, check=False).exit_code == 0)
        baked = ssh.run('cat "${GPU_OFFLOAD_ROOT%/}/opt/gpu-offload/baked"', timeout=60).text
        python = dict(line.split("=", 1) for line in baked.splitlines())["python"]
        assert ssh.run([python, "-c", "import gpu_offload.remote_job"], timeout=30).exit_code == 0
        ssh.put(b"data", "/opt/gpu-offload/some/file")
        assert ssh.run("cat /opt/gpu-offload/some/file", timeout=60).text == "data"
        assert "AWS_SECRET_ACCESS_KEY" not in ssh.run("env", timeout=60).text
    assert not Path("/opt/gpu-offload/some/file").exists()


def test_an_impostor_and_a_foreign_key_are_distinguished_from_the_host(lab):
    instance = lab.launch()
    lab.ssh(instance).run("true", timeout=60)
    with pytest.raises(HostKeyMismatchError):
        lab.ssh(instance, host_key=HostKey.generate()).run("true", timeout=60)
    with pytest.raises(HostError, match="refused"):
        lab.ssh(instance, key=ClientKey.generate()).run("true", timeout=60)


def test_the_dead_man_terminates_the_instance_at_its_time(lab):
    instance = lab.launch(lifetime=3)
    wait_until(lambda: lab.state(instance)["State"]["Name"] == "terminated")
    assert lab.state(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert not lab.cloud.leftovers()


def test_a_machine_whose_time_is_up_before_it_boots_never_opens_its_door(lab):
    instance = lab.launch(lifetime=-1)
    wait_until(lambda: lab.state(instance)["State"]["Name"] == "terminated")
    with pytest.raises(HostUnreachableError):
        lab.ssh(instance, patience=0).connect()


def test_processes_are_notified_before_the_power_goes(lab):
    lab.cloud.behaviour = lab.cloud.compute.behaviour = replace(QUICK, grace_seconds=20.0)
    instance = lab.launch()
    s3 = lab.cloud.client("s3")
    with lab.ssh(instance) as ssh:
        script = (
            "trap 'curl -s -o /dev/null -X PUT -d bye \"$AWS_ENDPOINT_URL/gpu-offload/told\"; exit' TERM; "
            'mkdir -p "${GPU_OFFLOAD_ROOT%/}/tmp"; : >"${GPU_OFFLOAD_ROOT%/}/tmp/listens"; while :; do sleep 0.02; done'
        )
        ssh.run(f"setsid sh -c {shlex.quote(script)} >/dev/null 2>&1 </dev/null &", timeout=60)
        listens = 'test -e "${GPU_OFFLOAD_ROOT%/}/tmp/listens"'
        wait_until(lambda: ssh.run(listens, timeout=60, check=False).exit_code == 0)
    lab.cloud.client("ec2").terminate_instances(InstanceIds=[instance["InstanceId"]])
    lab.cloud.settle()
    listed = s3.list_objects_v2(Bucket="gpu-offload", Prefix="told")
    assert listed["KeyCount"] == 1


def metadata(ssh, path):
    base = "${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}"
    token = f'$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" {base}/latest/api/token)'
    command = f'curl -s -w "\\n%{{http_code}}" -H "X-aws-ec2-metadata-token: {token}" {base}{path}'
    text, _, code = ssh.run(command, timeout=60).text.rpartition("\n")
    return int(code), text


def test_the_metadata_service_wants_a_token_and_knows_the_instance(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        assert metadata(ssh, "/latest/meta-data/instance-id") == (200, instance["InstanceId"])
        _, text = metadata(ssh, "/latest/dynamic/instance-identity/document")
        assert json.loads(text)["instanceType"] == "g4dn.xlarge"
        assert metadata(ssh, "/latest/meta-data/spot/instance-action")[0] == 404
        bare = "curl -s -o /dev/null -w '%{http_code}' ${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest/"
        assert ssh.run(bare, timeout=60).text == "401"


@two_networks
def test_a_reclaim_shows_in_the_metadata_before_it_happens(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        ssh.connect()
        lab.cloud.faults.reclaim(instance["InstanceId"], notice=3600)
        code, text = metadata(ssh, "/latest/meta-data/spot/instance-action")
        assert (code, json.loads(text)["action"]) == (200, "terminate")
        assert metadata(ssh, "/latest/meta-data/events/recommendations/rebalance")[0] == 200
    hasten(lab.cloud)
    wait_until(lambda: lab.state(instance)["State"]["Name"] == "terminated")
    assert lab.state(instance)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


@two_networks
def test_a_silent_cut_is_noticed_by_the_client_and_heals(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        ssh.run("true", timeout=60)
        lab.cloud.faults.cut(instance["InstanceId"])
        began = time.monotonic()
        with pytest.raises((ConnectionLostError, HostUnreachableError)):
            ssh.run("true", timeout=60)
        assert time.monotonic() - began < 12
        assert lab.state(instance)["State"]["Name"] == "running"
        lab.cloud.faults.heal(instance["InstanceId"])
        assert ssh.run("echo back", timeout=60).text == "back\n"


@two_networks
def test_a_short_cut_only_delays(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        ssh.run("true", timeout=60)
        lab.cloud.faults.cut(instance["InstanceId"])
        time.sleep(1)  # the length of the cut, not a wait for anything
        lab.cloud.faults.heal(instance["InstanceId"])
        assert ssh.run("echo still", timeout=60).text == "still\n"


@two_networks
def test_a_power_loss_is_silent_and_costs_money_until_the_instance_is_terminated(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        ssh.run("true", timeout=60)
        lab.cloud.faults.power_loss(instance["InstanceId"])
        with pytest.raises((ConnectionLostError, HostUnreachableError)):
            ssh.run("true", timeout=60)
    assert lab.state(instance)["State"]["Name"] == "running"
    status = lab.cloud.client("ec2").describe_instance_status(InstanceIds=[instance["InstanceId"]])
    assert status["InstanceStatuses"][0]["SystemStatus"]["Status"] == "impaired"
    assert lab.cloud.leftovers().costs_money
    lab.cloud.client("ec2").terminate_instances(InstanceIds=[instance["InstanceId"]])
    lab.cloud.settle()
    assert not lab.cloud.leftovers()


def test_a_full_disk_refuses_what_is_written(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        ssh.put(b"before", "/var/lib/gpu-offload/before")
        lab.cloud.faults.full_disk(instance["InstanceId"])
        with pytest.raises(HostError):
            ssh.put(b"x" * 100_000, "/var/lib/gpu-offload/after")
        assert ssh.run("cat /var/lib/gpu-offload/before", timeout=60).text == "before"


@two_networks
def test_a_slow_network_is_slow(lab):
    instance = lab.launch()
    with lab.ssh(instance) as ssh:
        ssh.run("true", timeout=60)
        lab.cloud.faults.slow_network(instance["InstanceId"], 4e5)
        began = time.monotonic()
        assert len(ssh.run("head -c 100000 /dev/zero", timeout=60).stdout) == 100_000
        assert time.monotonic() - began > 1
        lab.cloud.faults.heal(instance["InstanceId"])


@pytest.mark.simulator
def test_a_slow_disk_slows_what_runs_but_lets_it_go_on(plain):
    instance = plain.launch()
    with plain.ssh(instance) as ssh:
        count = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); sleep 0.01; done; echo $i"
        plain.cloud.faults.slow_disk(instance["InstanceId"])
        began = time.monotonic()
        assert ssh.run(count, timeout=60).text == "40\n"
        assert time.monotonic() - began > 0.8


@pytest.mark.simulator
def test_an_instances_role_reaches_its_own_run_and_nothing_else(plain):
    instance = plain.launch()
    s3 = plain.cloud.client("s3")
    for key in ("datasets/d.tar", "runs/r1/spec", "runs/r2/spec", "models/m/model.pt"):
        s3.put_object(Bucket="gpu-offload", Key=key, Body=b"x")
    script = """
import json, sys, boto3
from botocore.exceptions import ClientError
s3 = boto3.client("s3", region_name="us-east-1")
def tries(call, **options):
    try:
        getattr(s3, call)(Bucket="gpu-offload", **options)
        return True
    except ClientError as error:
        return error.response["Error"]["Code"]
ec2 = boto3.client("ec2", region_name="us-east-1")
try:
    ec2.describe_instances()
    seen = True
except ClientError as error:
    seen = error.response["Error"]["Code"]
print(json.dumps([
    tries("get_object", Key="datasets/d.tar"), tries("get_object", Key="runs/r1/spec"),
    tries("put_object", Key="runs/r1/out", Body=b"x"), tries("list_objects_v2", Prefix="runs/r1/"),
    tries("get_object", Key="runs/r2/spec"), tries("put_object", Key="runs/r2/out", Body=b"x"),
    tries("put_object", Key="datasets/d.tar", Body=b"x"), tries("get_object", Key="models/m/model.pt"),
    tries("list_objects_v2", Prefix=""), seen]))
"""
    with plain.ssh(instance) as ssh:
        answers = json.loads(ssh.run(["python", "-c", script], timeout=60).text)
    assert answers == [True] * 4 + ["AccessDenied"] * 5 + ["UnauthorizedOperation"]


@pytest.mark.simulator
def test_eight_hosts_at_once(plain):
    instances = [plain.launch() for _ in range(8)]
    for instance in instances:
        with plain.ssh(instance) as ssh:
            assert metadata(ssh, "/latest/meta-data/instance-id")[1] == instance["InstanceId"]


@pytest.mark.simulator
def test_a_reboot_arms_the_dead_man_again_and_keeps_the_files(plain):
    instance = plain.launch(lifetime=600)
    with plain.ssh(instance) as ssh:
        ssh.put(b"kept", "/var/lib/gpu-offload/kept")
        with suppress(ConnectionLostError):
            ssh.run("reboot", timeout=60, check=False)
    wait_until(lambda: any("went down: reboot" in event.text for event in plain.cloud.events))
    with plain.ssh(instance) as ssh:
        assert ssh.run("cat /var/lib/gpu-offload/kept", timeout=60).text == "kept"
    console = plain.cloud.console(instance["InstanceId"])
    assert console.count("Linux (simulated)") == 2
    assert plain.state(instance)["State"]["Name"] == "running"


@pytest.mark.simulator
def test_an_instance_that_stops_itself_stays_as_a_stopped_one_that_costs(plain):
    instance = plain.launch(InstanceInitiatedShutdownBehavior="stop", InstanceMarketOptions={})
    with plain.ssh(instance) as ssh, suppress(ConnectionLostError):
        ssh.run("shutdown -h now", timeout=60, check=False)
    wait_until(lambda: plain.state(instance)["State"]["Name"] == "stopped")
    assert plain.cloud.leftovers().costs_money


@pytest.mark.simulator
def test_an_image_without_our_software_has_no_marker():
    with SimulatedCloud(Behaviour(lag_seconds=0, baked=False)) as cloud:
        lab = Lab(cloud)
        with lab.ssh(lab.launch()) as ssh:
            assert ssh.run("ls /opt/gpu-offload/baked", timeout=60, check=False).exit_code != 0


@pytest.mark.simulator
def test_user_data_is_carried_out_in_a_folder_of_its_own(plain):
    config = {
        "runcmd": [
            "echo in the shell > /opt/gpu-offload/shell",
            ["sh", "-c", "echo list > /opt/gpu-offload/list"],
        ],
        "ssh_keys": {
            "ed25519_private": plain.host_key.private,
            "ed25519_public": str(plain.host_key.public),
        },
        "ssh_authorized_keys": [str(plain.key.public)],
        "snap": {"commands": []},
    }
    with plain.ssh(plain.launch("#cloud-config\n" + yaml.safe_dump(config))) as ssh:
        wait_until(lambda: ssh.run("cat /opt/gpu-offload/list", timeout=60, check=False).text == "list\n")
        assert ssh.run("cat /opt/gpu-offload/shell", timeout=60).text == "in the shell\n"
    (one,) = plain.cloud.compute.living()
    assert "does not do `snap`" in plain.cloud.console(one.id)


# ------------------------------------------------------------------ pure parts


def test_only_a_cloud_config_is_user_data():
    assert read_user_data(b"#cloud-config\nruncmd: [one]\n") == {"runcmd": ["one"]}
    assert read_user_data(b"") == {}
    for other in (b"hello", b"#!/bin/sh\ntrue", b"#cloud-config\n[one]"):
        with pytest.raises(ValueError, match="no #cloud-config"):
            read_user_data(other)


def test_shutdown_understands_now_minutes_and_a_time_of_day():
    from datetime import UTC, datetime

    noon = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    assert due(["-h", "now"], noon) == ("poweroff", 0.0)
    assert due(["-P", "+5"], noon) == ("poweroff", 300.0)
    assert due(["-r"], noon) == ("reboot", 60.0)
    assert due(["11:59"], noon) == ("poweroff", 86_340.0)
    assert due(["-c"], noon) is None
    with pytest.raises(ValueError, match="unknown option"):
        due(["--soon"], noon)


def test_private_paths_are_mapped_and_the_machines_own_stay(tmp_path):
    paths = PathMap(tmp_path / "root")
    root = tmp_path / "root"
    assert paths.text("cat /opt/gpu-offload/x") == f"cat {root}/opt/gpu-offload/x"
    assert paths.text("a=/var/lib/gpu-offload; ls '/run/gpu-offload'") == (
        f"a={root}/var/lib/gpu-offload; ls '{root}/run/gpu-offload'"
    )
    for same in (
        "/usr/bin/env sh",
        "$root/opt/gpu-offload/x",
        f"{root}/opt/gpu-offload/x",
        "/opt/gpu-offloads",
    ):
        assert paths.text(same) == same
    assert paths.path("/etc/thing") == root / "etc/thing"
    assert PathMap(None).text("/opt/gpu-offload") == "/opt/gpu-offload"


@pytest.mark.simulator
def test_metadata_is_only_on_the_instances_own_address(plain):
    instance = plain.launch()
    with plain.ssh(instance) as ssh:
        url = ssh.run("echo $AWS_EC2_METADATA_SERVICE_ENDPOINT", timeout=60).text.strip()
    assert instance["PublicIpAddress"] in url
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/latest/meta-data/", timeout=60)
