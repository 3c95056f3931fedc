"""Any command runs in a simulated cloud, which says what is left and leaves nothing itself."""

import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from commands import wait_until

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.command import EXIT_LEFTOVERS, simulate
from gpu_offload.infra.simulator.fault import FaultSyntaxError
from gpu_offload.infra.simulator.isolation import isolation
from gpu_offload.infra.simulator.namespace import why_not

ROOT = Path(__file__).parents[2]
LAUNCH = """
import boto3, sys
ec2 = boto3.client("ec2")
name = boto3.client("ssm").get_parameter(
    Name="/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)["Parameter"]["Value"]
instance = ec2.run_instances(ImageId=name, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)["Instances"][0]
print(instance["InstanceId"], instance["PublicIpAddress"], flush=True)
"""
TERMINATE = 'import time; time.sleep(0.5); ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])\n'
QUICK = Behaviour(boot_seconds=0.05, shutdown_seconds=0.05, lag_seconds=0.1)


def run(script, *faults, **options):
    report = io.StringIO()
    code = simulate([sys.executable, "-c", script], faults, behaviour=QUICK, report=report, **options)
    return code, report.getvalue()


@pytest.mark.simulator
def test_a_command_that_leaves_an_instance_exits_with_3_and_names_it():
    code, report = run(LAUNCH)
    assert code == EXIT_LEFTOVERS
    assert "1 instances (i-" in report
    assert "1 volumes (vol-" in report
    assert "would go on costing money" in report


@pytest.mark.simulator
def test_a_command_that_cleans_up_exits_with_0_and_the_calls_are_counted():
    code, report = run(LAUNCH + TERMINATE)
    assert code == 0
    assert "left: 0 instances, 0 volumes, 0 security groups, 0 schedules" in report
    assert "3 API calls, and 0 by instances" in report


@pytest.mark.simulator
def test_the_commands_own_exit_code_and_output_come_through(capfd):
    assert run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")[0] == 7
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out\n", "err\n")
    assert run("import os; os.kill(os.getpid(), 9)")[0] == 128 + 9
    assert simulate(["no-such-command-here"], report=io.StringIO()) == 127


@pytest.mark.simulator
def test_a_failed_command_keeps_its_code_even_if_something_is_left():
    assert run(LAUNCH + "sys.exit(5)")[0] == 5


@pytest.mark.simulator
def test_the_command_sees_the_cloud_and_not_the_users_account(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMINE")
    check = (
        "import os, sys; e = os.environ; sys.exit(0 if 'AWS_PROFILE' not in e and e['AWS_ACCESS_KEY_ID'] != 'AKIAMINE'"
        " and e['AWS_ENDPOINT_URL'].startswith('http://127.0.0.1:') and int(e['GPU_OFFLOAD_SSH_PORT']) else 1)"
    )
    assert run(check)[0] == 0


@pytest.mark.simulator
def test_faults_are_injected_and_reported():
    code, report = run(LAUNCH, "api:RunInstances:error=InsufficientInstanceCapacity")
    assert code == 1
    assert "ec2.RunInstances: api:RunInstances:error=InsufficientInstanceCapacity" in report
    with pytest.raises(FaultSyntaxError):
        simulate(["true"], ["nonsense"])


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "gpu_offload.orchestrator.cli", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def exports(process):
    """What the simulator prints for a shell."""
    found = {}
    while "GPU_OFFLOAD_SIMULATOR" not in found:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        name, _, value = line.removeprefix("export ").strip().partition("=")
        found[name] = value
    return found


def traces(mark):
    """Processes and files that carry a cloud's name."""
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark.encode() in text and state not in "ZX" and int(entry.name) != os.getpid():
                left.append(entry.name)
    return left


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("plain", signal.SIGKILL),
        ("own-server", signal.SIGKILL),
        ("no-namespace", signal.SIGKILL),
        ("namespaces", signal.SIGKILL),
        ("namespaces", signal.SIGTERM),
        ("plain", signal.SIGINT),
    ],
)
def test_nothing_is_left_whatever_ends_the_simulator(kind, end, tmp_path, monkeypatch):
    if kind == "namespaces" and (reason := why_not()):
        pytest.skip(reason)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if kind == "no-namespace":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))  # so there is no `unshare`
    process = start(*{"own-server": ["--no-sshd"], "namespaces": ["--namespaces"]}.get(kind, []))
    try:
        environment = exports(process)
        done = subprocess.run(
            [sys.executable, "-c", LAUNCH],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        name, address = done.stdout.split()
        wait_until(lambda: list(tmp_path.glob(f"*/{name}/ssh.log")))
        wait_until(lambda: len(traces(str(tmp_path))) > 2)
        process.send_signal(end)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (-9 if end == signal.SIGKILL else 0), err
        if end != signal.SIGKILL:
            assert f"1 instances ({name})" in err
        wait_until(lambda: traces(str(tmp_path)) == [])
        wait_until(lambda: list(tmp_path.iterdir()) == [])
        if kind == "namespaces":
            routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
            assert address.rpartition(".")[0] not in routes
    finally:
        process.kill()
        process.communicate()


@pytest.mark.process
def test_a_signal_goes_on_to_the_command_which_may_clean_up():
    script = LAUNCH + (
        "import signal, time\n"
        "def end(*_):\n    time.sleep(0.2); ec2.terminate_instances(InstanceIds=[instance['InstanceId']]); sys.exit(9)\n"
        "signal.signal(signal.SIGINT, end)\nprint('ready', flush=True)\n"
        # In pieces: a signal that comes right before a sleep is heard only when that ends.
        "for _ in range(1200): time.sleep(0.05)\n"
    )
    process = start("--", sys.executable, "-c", script)
    try:
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 9, err
    assert "left: 0 instances, 0 volumes" in err


@pytest.mark.process
def test_another_process_can_look_and_inject():
    process = start("--fault", "api:DescribeVpcs:error=Unavailable")
    try:
        base = exports(process)["GPU_OFFLOAD_SIMULATOR"]

        def post(line):
            request = urllib.request.Request(f"{base}fault", data=line.encode(), method="POST")
            return urllib.request.urlopen(request, timeout=60).status

        assert post("network:cut:heal=1s") == 200
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post("network:dance")
        with urllib.request.urlopen(f"{base}state", timeout=60) as reply:
            state = json.load(reply)
        assert state["instances"] == []
        assert [event[3] for event in state["events"]] == [
            "api:DescribeVpcs:error=Unavailable",
            "network:cut:heal=1s",
        ]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.process
def test_usage_errors_exit_with_2():
    process = start("--fault", "what")
    assert "starts with none of" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


@pytest.mark.process
def test_what_this_machine_offers_is_found_out_by_trying():
    own = isolation()
    assert own.user
    assert own.sshd is None or Path(own.sshd).exists()
