"""A job on a host over a real SSH connection: set up, started once, followed, outliving the connection."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from commands import wait_until
from hypothesis import given
from hypothesis import strategies as st
from local_host import LocalHost
from real_sshd import end_processes, sshd

from gpu_offload.infra.instance import script
from gpu_offload.infra.instance.job import (
    InstanceJob,
    JobError,
    JobOptions,
    JobState,
    Look,
    read_look,
)
from gpu_offload.infra.instance.software import (
    HostSoftware,
    SetUpError,
    Software,
    look,
    own_software,
    read_instance,
    set_up,
)
from gpu_offload.infra.instance.wheel import PACKAGES, Wheel, pack_wheel
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.errors import CommandFailedError, ConnectionLostError, HostUnreachableError

TRAINING = """
import json, os, pathlib, signal, socket, sys, time
words = sys.argv[1:]
here = pathlib.Path.cwd()
if "--fetch" in words:
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    (here / "listens").touch()
    while os.environ.get("UNTIL_TOLD") and not told:
        time.sleep(0.02)
    (here / "spec.json").write_text("{}")
    (here / "key").write_text(os.environ.get("STORE_ACCESS_KEY_ID", ""))
    (here / "words").write_text(json.dumps(words))
    sys.exit()
if "--mirror" in words:
    (here / "trouble").write_text("denied\\nand so on")
    while not os.path.exists(words[words.index("--until") + 1]):
        time.sleep(0.02)
    sys.exit(int(os.environ.get("MIRROR_CODE", "0")))
def say(text):
    with open("progress.jsonl", "a") as progress:
        progress.write(json.dumps({"event": text, "uid": os.getuid(), "words": words, "key": os.environ.get("STORE_ACCESS_KEY_ID")}) + "\\n")
    with open("log.txt", "a") as log:
        log.write(f"log of {text}\\n")
def ask_to_stop(*_):
    say("interrupted")
    sys.exit(75)
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("DEAF") else ask_to_stop)
say("start")
print("printed", flush=True)
while not os.path.exists(os.environ["LET_GO"]):
    time.sleep(0.02)
say("finished")
sys.exit(int(os.environ.get("CODE", "0")))
"""
"""Stands for the training module: the real one takes half a minute to import what it needs."""


class Bench:
    """A simulated host behind a real SSH server, and a stand-in for the training that ends when it is let go."""

    def __init__(self, server, root, tmp_path):
        self.server, self.root, self.tmp_path = server, root, tmp_path
        self.host = SshHost(server.address, server.client_key, server.host_key.public)
        self.instance = look(self.host)
        self.job = InstanceJob(self.host, self.instance, "run-1", 1)

    def start(self, options=None, job=None, mirror=(), **environment):
        options = options or JobOptions(spot_notice=None)
        library = {"PYTHONPATH": str(self.tmp_path / "lib")}
        trainer = {**library, "LET_GO": str(self.tmp_path / "go"), **environment}
        (job or self.job).start(
            b"{}", sys.executable, options, trainer=trainer, uploader={**library, **dict(mirror)}
        )

    def let_go(self):
        (self.tmp_path / "go").touch()

    def powered_off(self):
        return (self.tmp_path / "shutdown-called").exists()


@contextmanager
def simulated_host(tmp_path, **more):
    root = tmp_path / "a root"
    root.mkdir()
    stand_in = tmp_path / "lib/gpu_offload/remote_job"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "__main__.py").write_text(TRAINING)
    shutdown = tmp_path / "shutdown"
    shutdown.write_text(f"#!/bin/sh\necho >>{tmp_path}/shutdown-called\n")
    shutdown.chmod(0o755)
    environment = {
        "GPU_OFFLOAD_ROOT": str(root), "GPU_OFFLOAD_SHUTDOWN": str(shutdown),
        "GPU_OFFLOAD_SAME_USER": "1", "GPU_OFFLOAD_POLL": "0.1",
    }  # fmt: skip
    with sshd(tmp_path / "sshd", environment=environment | more) as server:
        bench = Bench(server, root, tmp_path)
        yield bench
        bench.host.close()


@pytest.fixture
def bench(tmp_path):
    with simulated_host(tmp_path) as bench:
        yield bench


def events(found):
    return [line.split('"')[3] for line in found.decode().splitlines()]


def follow(job, progress_offset=0, log_offset=0):
    """Yield looks until the job has ended and nothing is left to read; a lost connection is made again."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            found = job.look(progress_offset, log_offset)
        except (HostUnreachableError, ConnectionLostError):
            continue
        progress_offset, log_offset = found.progress_offset, found.log_offset
        yield found
        if found.state is not JobState.RUNNING and not (found.more or found.progress or found.log):
            return
        time.sleep(0.05)
    pytest.fail("the job did not end")


def test_a_job_is_followed_from_start_to_end(bench):
    bench.start(JobOptions(spot_notice="http://127.0.0.1:1/"))
    looks = []
    for found in follow(bench.job):
        looks.append(found)
        if found.progress:
            bench.let_go()
    assert looks[-1].state is JobState.ENDED
    assert looks[-1].exit_code == 0
    assert events(b"".join(found.progress for found in looks)) == ["start", "finished"]
    assert b"".join(found.log for found in looks) == b"log of start\nlog of finished\n"
    assert bench.job.console() == "printed\n"
    fetched = json.loads(Path(bench.job.folder, "input/words").read_text())
    assert fetched[:3] == ["--rented", "--spot-notice", "http://127.0.0.1:1/"]
    assert looks[-1].trouble == "denied and so on", "what the store does not take"


def test_a_job_does_not_die_with_the_connection_and_another_launcher_finds_it(bench):
    bench.start()
    wait_until(lambda: bench.job.look().progress)
    known = bench.job.look()
    bench.server.drop_connections()
    bench.host.close()
    bench.let_go()
    with SshHost(bench.server.address, bench.server.client_key, bench.server.host_key.public) as other:
        again = InstanceJob(other, look(other), "run-1", 1)
        rest = list(follow(again, known.progress_offset, known.log_offset))
    assert rest[-1].exit_code == 0
    assert events(known.progress + b"".join(found.progress for found in rest)) == ["start", "finished"]


def test_a_connection_that_is_lost_while_following_loses_and_repeats_nothing(bench):
    bench.start()
    looks = []
    for number, found in enumerate(follow(bench.job)):
        looks.append(found)
        if number in {1, 3}:
            bench.server.drop_connections()
        if number == 4:
            bench.let_go()
    assert events(b"".join(found.progress for found in looks)) == ["start", "finished"]


def test_a_job_that_was_started_is_not_started_again(bench):
    bench.start()
    bench.start()
    bench.let_go()
    looks = list(follow(bench.job))
    bench.start()
    assert events(b"".join(found.progress for found in looks)) == ["start", "finished"]
    assert bench.job.look().progress_offset == looks[-1].progress_offset


def test_secrets_of_the_uploader_reach_neither_the_training_nor_a_disk(bench):
    uploader = {"PYTHONPATH": str(bench.tmp_path / "lib"), "STORE_ACCESS_KEY_ID": "it's 1 key"}
    trainer = {"PYTHONPATH": str(bench.tmp_path / "lib"), "LET_GO": str(bench.tmp_path / "go")}
    bench.job.start(b"{}", sys.executable, JobOptions(spot_notice=None), trainer=trainer, uploader=uploader)
    wait_until(lambda: bench.job.look().progress)
    memory = bench.root / f"run/gpu-offload/{bench.job.unit}.environment"
    assert memory.stat().st_mode & 0o777 == 0o600
    key = Path(bench.job.folder, "input/key")
    assert key.read_text() == "it's 1 key"
    key.unlink()
    assert b"1 key" not in bench.job.look().progress
    assert not [p for p in (bench.root / "var").rglob("*") if p.is_file() and "1 key" in p.read_text()]
    bench.let_go()
    wait_until(lambda: bench.job.look().state is JobState.ENDED)
    assert not memory.exists()


def test_stopping_lets_the_training_leave_a_checkpoint(bench):
    bench.start()
    wait_until(lambda: bench.job.look().progress)
    bench.job.stop(grace=60)
    found = bench.job.look()
    assert (found.state, found.exit_code, events(found.progress)) == (
        JobState.ENDED,
        75,
        ["start", "interrupted"],
    )


def test_a_stop_that_comes_just_when_everything_is_fetched_reaches_the_training(bench):
    library = {"PYTHONPATH": str(bench.tmp_path / "lib")}
    trainer, uploader = library | {"LET_GO": str(bench.tmp_path / "go")}, library | {"UNTIL_TOLD": "1"}
    bench.job.start(b"{}", sys.executable, JobOptions(spot_notice=None), trainer=trainer, uploader=uploader)
    wait_until(Path(bench.job.folder, "input/listens").exists)
    bench.job.stop(grace=60)
    found = bench.job.look()
    assert (found.state, found.exit_code) in {(JobState.ENDED, 75), (JobState.ENDED, 143)}


def test_a_training_that_does_not_listen_is_killed_after_the_grace(bench):
    bench.start(DEAF="1")
    wait_until(lambda: bench.job.look().progress)
    bench.job.stop(grace=1)
    wait_until(lambda: bench.job.look().state is JobState.ENDED)
    assert bench.job.look().exit_code == 128 + 9


def test_a_failure_is_its_exit_code_and_a_job_that_is_not_there_is_absent(bench):
    assert bench.job.look() == Look(JobState.ABSENT, None, b"", b"", 0, 0, more=False)
    bench.let_go()
    bench.start(CODE="3")
    assert list(follow(bench.job))[-1].exit_code == 3


def test_that_the_store_denied_what_was_written_is_the_exit_code_whatever_the_trainings_is(bench):
    bench.let_go()
    bench.start(CODE="75", mirror={"MIRROR_CODE": "78"})
    assert list(follow(bench.job))[-1].exit_code == 78


def test_a_job_whose_processes_are_gone_without_a_word_is_lost(bench):
    bench.start()
    wait_until(lambda: bench.job.look().progress)
    bench.host.close()
    bench.server.drop_connections()
    end_processes(bench.server.mark)
    assert bench.job.look().state is JobState.LOST


def test_a_job_from_before_a_reboot_is_lost(bench):
    bench.start()
    wait_until(lambda: bench.job.look().progress)
    Path(f"{bench.job.folder}/boot").write_text("another boot\n")
    assert bench.job.look().state is JobState.LOST


def test_after_its_end_the_machine_goes_down_by_itself(bench):
    bench.let_go()
    bench.start(JobOptions(spot_notice=None, power_off_after=0))
    wait_until(bench.powered_off)
    assert bench.job.look().exit_code == 0
    assert (bench.root / "run/gpu-offload/started").exists()


def test_a_launcher_that_still_looks_puts_the_power_off_off(bench):
    bench.start(JobOptions(spot_notice=None, power_off_after=1))
    wait_until(lambda: bench.job.look().progress)
    held = Path(bench.job.folder) / "hold"
    assert not held.exists()
    bench.job.look(hold=True)
    until = int(time.time()) + 3
    os.utime(held, (until, until))  # as if a process had looked until then
    bench.let_go()
    wait_until(bench.powered_off)
    assert time.time() >= until + 1


@pytest.mark.root
def test_on_a_real_machine_the_job_is_a_unit_of_its_own_with_a_memory_limit(tmp_path):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and `unshare` for namespaces")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemd-run").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/asked\n')
    (programs / "systemd-run").chmod(0o755)
    (tmp_path / "job.sh").write_text(script("job.sh"))
    (tmp_path / "known").write_text("KEY=secret\n")
    inside = textwrap.dedent(f"""\
        set -e
        mount -t tmpfs none /var/lib
        mount -t tmpfs none /run
        mkdir -p /var/lib/gpu-offload/inbox
        echo '{{}}' >/var/lib/gpu-offload/inbox/unit-1.json
        : >/var/lib/gpu-offload/inbox/unit-1.environment
        for again in 1 2; do sh {tmp_path}/job.sh start unit-1 /python 600 90% http://notice <{tmp_path}/known; done
        cd /var/lib/gpu-offload/jobs/unit-1
        stat -c '%u %a' output input home environment /run/gpu-offload/unit-1.environment
        cat /run/gpu-offload/unit-1.environment
        """)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespaces to be had: {done.stderr.strip()}")
    folders = ["64001 755", "64002 755", "64001 700"]
    assert done.stdout.splitlines() == [*folders, "0 600", "0 600", "KEY=secret"], done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "--unit=unit-1"
    assert {"--property=MemoryMax=90%", "--property=OOMPolicy=continue", "--property=KillMode=mixed"} < set(
        asked
    )
    supervise = "supervise unit-1 /python 600 90% http://notice"
    assert " ".join(asked).endswith(f"sh /var/lib/gpu-offload/jobs/unit-1/job.sh {supervise}")


def test_a_run_id_that_a_shell_or_a_path_could_misread_is_refused(tmp_path):
    for run in ("", "a b", "../x/y", "x;y", "$x"):
        with pytest.raises(ValueError, match="run's id"):
            InstanceJob(LocalHost({}, tmp_path), HostSoftware("", "", True, {}), run, 1)


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 99), st.integers(0, 99))
def test_a_look_is_read_back_whatever_the_files_hold(progress, log, at, log_at):
    header = f"state=running exit= progress={len(progress)} log={len(log)} console=0 trouble=\n".encode()
    found = read_look(header + progress + log, at, log_at)
    assert (found.progress, found.log) == (progress, log)
    assert (found.progress_offset, found.log_offset) == (at + len(progress), log_at + len(log))
    short = read_look(header + (progress + log)[:-1], at, log_at)
    if progress + log:
        assert (short.progress, short.log, short.progress_offset, short.log_offset) == (b"", b"", at, log_at)


@given(st.binary(max_size=80))
def test_nonsense_from_an_instance_is_an_error_of_ours(output):
    if not output.startswith(b"state="):
        with pytest.raises(JobError):
            read_look(output, 0, 0)
    with pytest.raises(JobError):
        read_look(b"state=dancing exit= progress=0 log=0 console=0 trouble=\n", 0, 0)


# Software


def software(**changes):
    return Software(**({"version": "1.2", "lock": b"lock", "wheel": Wheel("w.whl", b"wheel")} | changes))


def test_an_image_with_just_this_software_baked_in_needs_no_set_up():
    wanted = software()
    baked = f"root=/r\nprocessor=x\nuv=\nversion=1.2\nlock={wanted.lock_sha256}\npython=/r/python\n"
    assert read_instance(baked).ready_python(wanted) == "/r/python"
    assert read_instance(baked).ready_python(software(version="1.3")) is None
    assert read_instance(baked).ready_python(software(lock=b"other")) is None


def test_what_we_installed_is_used_again_only_if_the_wheel_is_the_very_same():
    wanted = software()
    text = (
        f"root=\nprocessor=x\nuv=/u\ninstalled_lock={wanted.lock_sha256}\n"
        f"installed_wheel={wanted.wheel.sha256}\ninstalled_python=/p\n"
    )
    assert read_instance(text).ready_python(wanted) == "/p"
    assert read_instance(text).ready_python(software(wheel=Wheel("w.whl", b"other"))) is None


def test_without_uv_on_either_side_the_error_says_what_to_do(bench):
    bare = HostSoftware(bench.instance.root, bench.instance.processor, has_uv=False, found={})
    with pytest.raises(SetUpError, match="baked in"):
        set_up(bench.host, bare, software())
    with pytest.raises(SetUpError, match="the instance is vax"):
        set_up(bench.host, HostSoftware("", "vax", has_uv=False, found={}), software(uv=Path(sys.executable)))


def test_our_wheel_is_the_code_that_runs_and_equal_code_gives_equal_bytes(tmp_path):
    for package in PACKAGES:
        (tmp_path / package / "__pycache__").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text(f'NAME = "{package}"\n')
        (tmp_path / package / "data.sh").write_text("echo\n")
        (tmp_path / package / "__pycache__/x.pyc").write_bytes(b"x")
    one, two = pack_wheel("1.2", tmp_path), pack_wheel("1.2", tmp_path)
    assert one == two
    assert one.name == "gpu_offload-1.2-py3-none-any.whl"
    (tmp_path / "infra/data.sh").write_text("echo changed\n")
    assert pack_wheel("1.2", tmp_path).sha256 != one.sha256
    assert len(pack_wheel("1.2").body) < 1_000_000


def find_uv():
    uv = own_software().uv
    if uv is None or subprocess.run([uv, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no uv on this machine")
    return uv


def with_uv(uv):
    """The PATH of a host whose image has uv."""
    return f"{uv.parent}:/usr/local/bin:/usr/bin:/bin"


def test_uv_sets_up_the_locked_requirements_and_our_own_wheel_once(bench, tmp_path):
    uv = find_uv()
    # A requirement of our own making stands for the lock's; it is found in a folder, without a network.
    requirement = tmp_path / "wheels/offload_requirement-7-py3-none-any.whl"
    requirement.parent.mkdir()
    info = "offload_requirement-7.dist-info"
    with zipfile.ZipFile(requirement, "w") as archive:
        archive.writestr("offload_requirement.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: offload-requirement\nVersion: 7\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    lock = f"offload-requirement==7 --hash=sha256:{hashlib.sha256(requirement.read_bytes()).hexdigest()}\n"
    options = ("--offline", "--no-index", "--find-links", str(requirement.parent))
    wanted = Software("0.1.0", lock.encode(), pack_wheel("0.1.0"), uv, options)
    python = set_up(bench.host, bench.instance, wanted)
    assert python.startswith(f"{bench.root}/opt/gpu-offload/venv/")
    check = (
        "import offload_requirement as r, gpu_offload.infra.instance as i, importlib.util as u; "
        "print(r.ANSWER, len(i.script('job.sh')) > 0, u.find_spec('gpu_offload.remote_job.spec') is not None)"
    )
    assert bench.host.run([python, "-I", "-c", check], timeout=30).text == "42 True True\n"
    again = look(bench.host)
    sent = bench.host.traffic.sent
    assert set_up(bench.host, again, wanted) == python
    assert bench.host.traffic.sent == sent


@pytest.mark.process
def test_a_requirement_whose_hash_is_wrong_stops_the_set_up(tmp_path):
    uv = find_uv()
    lock = b"six==1.17.0 --hash=sha256:" + b"0" * 64 + b"\n"
    wanted = software(lock=lock, uv_options=("--offline", "--no-index"))
    with (
        simulated_host(tmp_path, PATH=with_uv(uv)) as bench,
        pytest.raises(CommandFailedError, match="locked requirements"),
    ):
        set_up(bench.host, look(bench.host), wanted)


@pytest.mark.process
def test_the_real_lock_sets_up_an_environment_that_trains(tmp_path):
    """Torch, Ultralytics and our own wheel, as an image without them gets them; here from uv's cache, without a network."""
    uv = find_uv()
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    wanted = replace(own_software(), uv_options=("--offline",))
    with simulated_host(tmp_path, UV_CACHE_DIR=cache, PATH=with_uv(uv)) as bench:
        try:
            python = set_up(bench.host, bench.instance, wanted)
        except CommandFailedError as error:
            if "not found in the cache" not in str(error):
                raise
            pytest.skip(f"uv's cache is not warm (`make` warms it): {str(error)[-300:]}")
        assert python.startswith(str(bench.root))
        check = "import gpu_offload.remote_job as r; print(r.__file__)"
        assert bench.host.run([python, "-c", check], timeout=60).text.startswith(str(bench.root))
        device = json.loads(
            bench.host.run([python, "-P", "-m", "gpu_offload.remote_job", "--device-check"], timeout=300).text
        )
        assert device["ok"]
        assert look(bench.host).ready_python(wanted) == python
