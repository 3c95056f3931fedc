"""What an instance is told at launch: valid for cloud-init, and armed before anything else."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from commands import wait_until
from real_sshd import end_processes, processes_with

from gpu_offload.infra.instance import script
from gpu_offload.infra.instance.user_data import LIMIT, TRAINER_UID, UserDataTooLargeError, user_data
from gpu_offload.infra.ssh.key import ClientKey, HostKey


def make(deadline=None, lifetime=3600, start_within=1800, **changes):
    now = time.time()
    host_key, client_key = HostKey.generate(), ClientKey.generate()
    text = user_data(
        deadline=now + 3600 if deadline is None else deadline, launched=(now if deadline is None else deadline - lifetime),
        host_key=host_key, client_key=client_key.public, start_within=start_within, **changes,
    )  # fmt: skip
    return text, json.loads(text.partition("\n")[2]), host_key, client_key


@pytest.fixture
def simulated(tmp_path):
    """A simulated host's folder and environment; `shutdown` writes down that it was called."""
    root, programs = tmp_path / "root", tmp_path / "bin"
    root.mkdir()
    programs.mkdir()
    shutdown = programs / "shutdown"
    shutdown.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/shutdown-called\n')
    for name in ("systemctl", "systemd-run", "sudo", "poweroff"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/touched-the-machine\n')
    date = programs / "date"
    date.write_text(f"#!/bin/sh\necho >>{tmp_path}/looked\nread -r now <{tmp_path}/now\necho $now\n")
    clock(root, time.time())
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "GPU_OFFLOAD_ROOT": str(root),
        "GPU_OFFLOAD_POLL": "0.1",
    }
    yield root, environment
    end_processes(f"GPU_OFFLOAD_ROOT={root}")
    assert not (tmp_path / "touched-the-machine").exists()


def boot(document, environment):
    return subprocess.run(document["bootcmd"][0], env=environment, check=False, timeout=60).returncode


def clock(root, at):
    """Set the simulated host's clock, which stands still until it is set again."""
    fresh = root.parent / "set"
    fresh.write_text(f"{int(at)}\n")
    fresh.replace(root.parent / "now")


def rounds(root):
    """Wait until the watching loop has looked at the clock twice from now on."""
    looked = root.parent / "looked"
    before = looked.stat().st_size
    wait_until(lambda: looked.stat().st_size >= before + 2)


def calls(root):
    path = root.parent / "shutdown-called"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.process
def test_it_is_small_and_valid_for_cloud_init(tmp_path):
    text = make()[0]
    assert len(text) < LIMIT / 2
    if shutil.which("cloud-init") is None:
        pytest.skip("no cloud-init on this machine")
    path = tmp_path / "user-data"
    path.write_text(text)
    done = subprocess.run(
        ["cloud-init", "schema", "--config-file", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deprecat" not in (done.stdout + done.stderr).lower()


def test_it_plants_the_pinned_key_and_lets_in_only_the_runs_own():
    text, document, host_key, client_key = make()
    assert text.startswith("#cloud-config\n")
    assert document["ssh_keys"] == {
        "ed25519_private": host_key.private,
        "ed25519_public": str(host_key.public),
    }
    assert document["ssh_deletekeys"] is True
    assert document["ssh_pwauth"] is False
    assert document["disable_root"] is True
    entering = [user for user in document["users"] if user.get("ssh_authorized_keys")]
    assert [user["ssh_authorized_keys"] for user in entering] == [[str(client_key.public)]]
    assert all(user["lock_passwd"] for user in document["users"])
    assert [user["name"] for user in document["users"] if "sudo" in user] == ["offload"]
    assert client_key.private not in text


def test_more_than_ec2_takes_is_an_error():
    with pytest.raises(UserDataTooLargeError, match="16384"):
        make(ssh_user="x" * LIMIT)


@pytest.mark.process
def test_the_power_off_is_armed_first_and_comes_at_the_deadline(simulated):
    root, environment = simulated
    document = make()[1]
    deadline = int(document["bootcmd"][0][5])
    assert next(iter(document)) == "bootcmd"
    clock(root, deadline - 1)
    assert boot(document, environment) == 0
    rounds(root)
    assert calls(root) == []
    clock(root, deadline)
    wait_until(lambda: calls(root))
    assert set(calls(root)) == {"-h now"}


@pytest.mark.process
def test_a_deadline_that_has_passed_ends_the_boot_at_once(simulated):
    root, environment = simulated
    assert boot(make(deadline=time.time() - 1)[1], environment) != 0
    assert calls(root) == ["-h now"]
    assert list(processes_with(f"GPU_OFFLOAD_ROOT={root}")) == []


@pytest.mark.process
def test_a_reboot_does_not_move_the_deadline(simulated):
    root, environment = simulated
    document = make()[1]
    deadline = int(document["bootcmd"][0][5])
    assert boot(document, environment) == 0
    end_processes(f"GPU_OFFLOAD_ROOT={root}")
    clock(root, deadline - 1)
    assert boot(document, environment) == 0
    rounds(root)
    assert calls(root) == []
    clock(root, deadline)
    wait_until(lambda: calls(root))
    end_processes(f"GPU_OFFLOAD_ROOT={root}")
    assert boot(document, environment) != 0


@pytest.mark.process
def test_a_clock_that_is_wrong_does_not_keep_the_machine_up(simulated):
    root, environment = simulated
    now = time.time()
    # The clock says that there is a day left; the machine was meant to live for a second (and the slack).
    assert boot(make(deadline=now + 86_400, lifetime=-299)[1], environment) == 0
    wait_until(lambda: calls(root))


@pytest.mark.process
def test_a_machine_without_a_job_goes_down(simulated):
    root, environment = simulated
    assert boot(make(start_within=1)[1], environment) == 0
    wait_until(lambda: calls(root))


@pytest.mark.process
def test_a_machine_with_a_job_stays_up(simulated):
    root, environment = simulated
    (root / "run/gpu-offload").mkdir(parents=True)
    (root / "run/gpu-offload/started").touch()
    document = make(start_within=0)[1]
    assert boot(document, environment) == 0
    rounds(root)
    assert calls(root) == []
    clock(root, int(document["bootcmd"][0][5]))
    wait_until(lambda: calls(root))


@pytest.mark.process
def test_cloud_inits_own_quoting_carries_the_commands_out(simulated, tmp_path):
    root, environment = simulated
    document = make(deadline=time.time() - 1)[1]
    quote = "import json, sys\nfrom cloudinit.util import shellify\nsys.stdout.write(shellify(json.load(sys.stdin)))"
    made = subprocess.run(
        ["/usr/bin/python3", "-c", quote],
        input=json.dumps(document["bootcmd"][:1]),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("no cloud-init modules on this machine")
    subprocess.run(["sh"], input=made.stdout, text=True, env=environment, check=False, timeout=60)
    assert calls(root) == ["-h now"]


@pytest.mark.process
def test_the_last_command_says_that_all_is_done(simulated):
    root, environment = simulated
    subprocess.run(make()[1]["runcmd"][0], env=environment, check=True, timeout=60)
    assert (root / "var/lib/gpu-offload/ready").exists()


@pytest.mark.root
def test_under_systemd_the_power_off_is_a_service_and_a_timer_too(tmp_path):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and `unshare` for namespaces")
    document = make(deadline=time.time() + 100_000)[1]
    deadline = document["bootcmd"][0][5]
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "systemd-run", "shutdown", "poweroff"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n')
        (programs / name).chmod(0o755)
    # The first process of a namespace, under the name by which the script knows a real machine.
    shutil.copy("/bin/sh", tmp_path / "systemd")
    (tmp_path / "command.json").write_text(json.dumps(document["bootcmd"][0]))
    inside = textwrap.dedent(f"""\
        set -e
        mkdir -p /etc/systemd/system /usr/local/sbin
        mount -t tmpfs none /etc/systemd/system
        mount -t tmpfs none /usr/local/sbin
        mount -t tmpfs none /run
        {sys.executable} -c 'import json, subprocess; subprocess.run(json.load(open("{tmp_path}/command.json")), check=True)'
        cp /etc/systemd/system/* /usr/local/sbin/* {tmp_path}
        """)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", tmp_path / "systemd", "-c", inside],
        env={"PATH": f"{programs}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespaces to be had: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gpu-offload-dead-man").read_text() == script("dead_man.sh") + "\n"
    unit = (tmp_path / "gpu-offload-dead-man.service").read_text()
    limits = " ".join(document["bootcmd"][0][5:])
    assert f"ExecStart=/bin/sh /usr/local/sbin/gpu-offload-dead-man watch {limits}\n" in unit
    assert (tmp_path / "calls").read_text().splitlines() == [
        "systemctl daemon-reload",
        "systemctl enable gpu-offload-dead-man.service",
        "systemctl --no-block start gpu-offload-dead-man.service",
        f"systemd-run --no-block --unit=gpu-offload-power-off --on-calendar=@{deadline} systemctl poweroff --force",
    ]
    if shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "calendar", f"@{deadline}"], check=True, capture_output=True)


@pytest.mark.root
def test_the_user_that_trains_cannot_reach_the_metadata(tmp_path):
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "iptables", "setpriv"))):
        pytest.skip("needs root, `unshare`, `ip`, `iptables` and `setpriv`")
    block = tmp_path / "block.sh"
    block.write_text(script("block_metadata.sh"))
    inside = textwrap.dedent(f"""\
        import socket, subprocess, sys
        subprocess.run("ip link set lo up && ip addr add 169.254.169.254/32 dev lo", shell=True, check=True)
        server = socket.create_server(("169.254.169.254", 80))
        probe = "import socket; socket.create_connection(('169.254.169.254', 80), 2)"
        def reaches(uid):
            words = ["setpriv", "--reuid", uid, "--clear-groups", "/usr/bin/python3", "-c", probe]
            return subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0
        before = reaches("{TRAINER_UID}")
        for _ in range(2):
            subprocess.run(["sh", "{block}", "{TRAINER_UID}"], check=True)
        print(before, reaches("{TRAINER_UID}"), reaches("0"))
        """)
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no Python that every user may run")
    done = subprocess.run(
        ["unshare", "--net", "/usr/bin/python3", "-c", inside],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespaces to be had: {done.stderr.strip()}")
    assert done.stdout.split() == ["True", "False", "True"], done.stderr
