"""A job on a host over a real SSH connection: started once, followed, outliving the connection."""

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
from hypothesis import given
from hypothesis import strategies as st
from instance_bench import simulated_host
from local_host import LocalHost
from real_sshd import end_processes

from gpu_offload.infra.instance import script
from gpu_offload.infra.instance.job import InstanceJob, JobError, JobState, Look, read_look
from gpu_offload.infra.instance.software import HostSoftware, look
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.errors import CommandFailedError, ConnectionLostError, HostUnreachableError


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
    bench.start(spot_notice="http://127.0.0.1:1/")
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


def test_a_start_whose_input_was_cut_off_starts_nothing_and_can_be_repeated(bench):
    """The connection was lost before the variables of the uploader had arrived."""
    for arrived in (b"", b"STORE_ACCESS_KEY_ID=1\n"):
        with pytest.raises(CommandFailedError, match="did not arrive"):
            bench.host.run(bench.start_command(), timeout=30, stdin=arrived)
    assert bench.job.look().state is JobState.ABSENT
    assert list((bench.root / "run/gpu-offload").iterdir()) == []
    bench.let_go()
    bench.start()
    assert list(follow(bench.job))[-1].exit_code == 0


def test_of_two_that_start_a_job_at_the_same_time_one_does_and_both_succeed(bench):
    """A driver that lost its connection repeats the start while the first one still waits for its input."""
    inbox, library = Path(bench.instance.inbox), f"PYTHONPATH={bench.tmp_path / 'lib'}\n"
    (inbox / f"{bench.job.unit}.json").write_text("{}")
    (inbox / f"{bench.job.unit}.environment").write_text(f"{library}LET_GO={bench.tmp_path / 'go'}\n")
    mark = dict([bench.server.mark.split("=", 1)])
    environment = os.environ | {"GPU_OFFLOAD_ROOT": str(bench.root), "GPU_OFFLOAD_SAME_USER": "1"} | mark
    command = bench.start_command()
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) for _ in range(2)]
    memory = bench.root / "run/gpu-offload"
    wait_until(lambda: len(list(memory.glob("*.environment.*"))) == 2)
    for one in both:
        one.communicate(f"{library}# end\n".encode(), timeout=60)
    assert [one.returncode for one in both] == [0, 0]
    assert list(memory.glob("*.environment.*")) == []
    bench.let_go()
    looks = list(follow(bench.job))
    assert events(b"".join(found.progress for found in looks)) == ["start", "finished"]


def test_secrets_of_the_uploader_reach_neither_the_training_nor_a_disk(bench):
    uploader = {"PYTHONPATH": str(bench.tmp_path / "lib"), "STORE_ACCESS_KEY_ID": "it's 1 key"}
    trainer = {"PYTHONPATH": str(bench.tmp_path / "lib"), "LET_GO": str(bench.tmp_path / "go")}
    bench.job.start(b"{}", sys.executable, trainer=trainer, uploader=uploader, spot_notice="")
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


def test_a_shutdown_lets_the_training_leave_a_checkpoint(bench):
    bench.start()
    wait_until(lambda: bench.job.look().progress)
    bench.shut_down()
    found = bench.job.look()
    assert (found.state, found.exit_code, events(found.progress)) == (
        JobState.ENDED,
        75,
        ["start", "interrupted"],
    )


def test_a_shutdown_just_when_everything_is_fetched_is_resumable(bench):
    library = {"PYTHONPATH": str(bench.tmp_path / "lib")}
    trainer, uploader = library | {"LET_GO": str(bench.tmp_path / "go")}, library | {"UNTIL_TOLD": "1"}
    bench.job.start(b"{}", sys.executable, trainer=trainer, uploader=uploader, spot_notice="")
    wait_until(Path(bench.job.folder, "input/listens").exists)
    bench.shut_down()
    found = bench.job.look()
    assert (found.state, found.exit_code) == (JobState.ENDED, 75)


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
    bench.start(power_off_after=0)
    wait_until(bench.powered_off)
    assert bench.job.look().exit_code == 0
    assert (bench.root / "run/gpu-offload/started").exists()


def test_a_launcher_that_still_looks_puts_the_power_off_off(bench):
    bench.start(power_off_after=1)
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
    (tmp_path / "known").write_text("KEY=secret\n# end\n")
    inside = textwrap.dedent(f"""\
        set -e
        mount -t tmpfs none /var/lib
        mount -t tmpfs none /run
        mkdir -p /var/lib/gpu-offload/inbox
        echo '{{}}' >/var/lib/gpu-offload/inbox/unit-1.json
        : >/var/lib/gpu-offload/inbox/unit-1.environment
        for again in 1 2; do sh {tmp_path}/job.sh start unit-1 /python 600 http://notice <{tmp_path}/known; done
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
    assert done.stdout.splitlines() == [*folders, "0 600", "0 600", "KEY=secret", "# end"], done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "--unit=unit-1"
    assert {"--property=MemoryMax=90%", "--property=OOMPolicy=continue", "--property=KillMode=mixed"} < set(
        asked
    )
    supervise = "supervise unit-1 /python 600 http://notice"
    assert " ".join(asked).endswith(f"sh /var/lib/gpu-offload/jobs/unit-1/job.sh {supervise}")


def test_a_run_id_that_a_shell_or_a_path_could_misread_is_refused(tmp_path):
    for run in ("", "a b", "../x/y", "x;y", "$x"):
        with pytest.raises(ValueError, match="run's id"):
            InstanceJob(LocalHost({}, tmp_path), HostSoftware("", "", True, {}), run, 1)


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 99), st.integers(0, 99))
def test_a_look_is_read_back_whatever_the_files_hold(progress, log, at, log_at):
    header = f"state=running exit= progress={len(progress)} log={len(log)} trouble=\n".encode()
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
        read_look(b"state=dancing exit= progress=0 log=0 trouble=\n", 0, 0)
