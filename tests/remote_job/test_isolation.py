"""On an instance the process that trains has no network, no credentials and nothing to say about those who do."""

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from commands import offload, run, start, wait_until
from leak_case import STORE, train_project

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.infra.instance import isolation
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.simulator.namespace import why_not
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.backends import isolated_training
from gpu_offload.orchestrator.state import state_folder

HOSTILE = '''
import ctypes, os, signal, socket, stat, time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained


def succeeds(deed):
    try:
        deed()
    except Exception:
        return 0.0
    return 1.0


FOLDERS = ("/run", "/var/run/", "/tmp", "/var/tmp", "/dev/shm")
libc = ctypes.CDLL(None, use_errno=True)


def main(context):
    """Train two epochs, the second until it is told to stop, and try everything meanwhile that must not be possible."""
    output = Path(context.spec.output)
    job = output.parent
    # Whoever reads either of these runs it.
    (output / "infra.py").write_text(f"open({str(job / 'input/planted')!r}, 'w')")
    (Path.home() / ".aws").mkdir()
    (Path.home() / ".aws/config").write_text("[default]\\ncredential_process = touch " + str(job / "input/planted"))
    status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
    uploaders = [p for p in Path("/proc").glob("[0-9]*") if p.stat().st_uid == 64002]
    tried = {
        "metadata": succeeds(lambda: socket.create_connection(("169.254.169.254", 80), 1)),
        "cloud": succeeds(lambda: socket.create_connection(("GATEWAY", PORT), 1)),
        "loopback": succeeds(lambda: socket.create_server(("127.0.0.1", 0))),
        "uploaders": float(len(uploaders)),
        "environment": sum(succeeds((p / "environ").read_bytes) for p in uploaders),
        "keys": succeeds(lambda: next(Path("/run/gpu-offload").glob("*.environment")).read_bytes()),
        "own_keys": float(any(name.startswith("AWS_") for name in os.environ)),
        "spec": succeeds(lambda: (job / "spec.json").write_text("{}")),
        "inputs": succeeds(lambda: (job / "input/spec.json").write_text("{}")),
        "dataset": succeeds(lambda: (context.tree / "more").write_text("")),
        "stop": succeeds(lambda: (job / "input/stop").write_text("")),
        "signal": sum(succeeds(lambda p=p: os.kill(int(p.name), signal.SIGTERM)) for p in uploaders),
        "root": succeeds(lambda: os.setuid(0)),
        "sockets": float(sum(stat.S_ISSOCK(p.lstat().st_mode) for f in FOLDERS for p in Path(f).rglob("*"))),
        "run": float(len(os.listdir("/run"))),
        "tmp": float(len([p for f in ("/tmp", "/dev/shm") for p in Path(f).iterdir() if p.stat().st_uid == 0])),
        "shared_memory": succeeds(lambda: Path("/dev/shm/theirs").read_bytes()),
        "capabilities": float(sum(int(v, 16) for k, v in status.items() if k.startswith("Cap"))),
        "new_privileges": float(status["NoNewPrivs"] != "1"),
        "unmount": float(libc.umount2(b"/run", 2) == 0),
        "mount": float(libc.mount(b"none", str(Path.home()).encode(), b"tmpfs", 0, None) == 0),
        "namespace": float(libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0) == 0),
        "raw": succeeds(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        "device": succeeds(lambda: os.mknod(str(output / "disk"), 0o60600, os.makedev(259, 0))),
        "chroot": succeeds(lambda: os.chroot(str(output))),
    }
    model = context.output / "model.bin"
    model.write_text("model")
    resumed = context.epochs_completed
    for epoch in range(resumed + 1, 3):
        context.epoch(epoch, metrics={}, losses={})
        context.checkpoint(model, epochs_completed=epoch)
        while epoch == 1 and not context.interrupted():
            time.sleep(0.02)
        if context.interrupted():
            return None
    tried |= {"planted": float((job / "input/planted").exists()), "resumed": float(resumed)}
    (output / "log.txt").unlink()
    (output / "log.txt").symlink_to(job / "input/spec.json")
    return Trained(model, tried)
'''


@pytest.mark.root
def test_a_training_that_was_led_astray_reaches_nothing_and_its_run_is_published_all_the_same(
    tmp_path, monkeypatch
):
    """And a notice of reclaim reaches it across the users' border, and it goes on elsewhere from the store."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    fault = "instance:reclaim:notice=30s:after=epoch=1"
    with SimulatedCloud(Behaviour(lag_seconds=0.05), [fault], namespaces=True) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        address = urlsplit(cloud._endpoint)
        train_project(tmp_path, epochs=2)
        hostile = HOSTILE.replace("GATEWAY", str(address.hostname)).replace("PORT", str(address.port))
        (tmp_path / "mine.py").write_text(hostile)
        report = json.loads(offload(tmp_path, "train", "--on", "ec2", "--json"))
        store = open_store(STORE)
        logs = {i.key: store.read(i.key)[0] for i in store.list("runs/") if i.key.endswith("log.txt")}
        beats = [
            json.loads(store.read(i.key)[0]) for i in store.list("runs/") if i.key.endswith("heartbeat.json")
        ]
        cloud.settle()
        assert not cloud.leftovers().costs_money
    tried = report["metrics"]
    assert tried.pop("loopback") == 1, "several GPUs talk over it"
    assert tried.pop("uploaders") >= 1, "the mirror runs beside it"
    assert tried.pop("resumed") == 1, "the second attempt went on from the store's checkpoint"
    assert {name for name, value in tried.items() if value} == set()
    assert [beat["state"] for beat in beats] == ["interrupted", "finished"]
    assert "spot interruption notice" in beats[0]["message"]
    assert not [key for key, body in logs.items() if b"training_key" in body]


ON_RUNNER = '''
import os, socket, stat, subprocess, sys, time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained

SECRETS = ("ACTIONS_", "AWS_", "GITHUB_", "GPU_OFFLOAD_", "MY_", "RUNNER_", "STORE_")
CHECKOUT, TEMP, ELSEWHERE, PORT, ABSTRACT = GIVEN


def succeeds(deed):
    try:
        deed()
    except Exception:
        return 0.0
    return 1.0


def appends(path):
    return succeeds(lambda: open(path, "a").write("x"))


def main(context):
    """Train two epochs, the second after it was told to stop, and try everything meanwhile that must not be possible."""
    subprocess.Popen(["sh", "-c", "setsid sleep 987654 &"])
    others = [p for p in Path("/proc").glob("[0-9]*") if p.stat().st_uid != os.getuid()]
    folders = ("/run", "/tmp", "/var/tmp", "/dev/shm")
    tried = {
        "environment": float(sum(name.startswith(SECRETS) for name in os.environ)),
        "its beginning": float(any(n.encode() in Path("/proc/1/environ").read_bytes() for n in SECRETS)),
        "processes": float(len(others)),
        "git credentials": succeeds(lambda: Path(CHECKOUT, ".git/config").read_bytes()),
        "checkout": succeeds(lambda: next(Path(CHECKOUT).iterdir())),
        "workspace": appends(f"{CHECKOUT}/action.yml"),
        "later steps": appends(f"{TEMP}/env") + appends(f"{TEMP}/step.sh"),
        "the store": succeeds(lambda: next(Path(TEMP).rglob("run.json"))),
        "inputs": appends(context.tree / "dataset.json") + appends(Path(context.output).parents[2] / "input/stop"),
        "our Python": appends(f"{sys.prefix}/x.pth") + appends(f"{sys.base_prefix}/x"),
        "a folder for all": appends(f"{ELSEWHERE}/x"),
        "network": succeeds(lambda: socket.create_connection(("127.0.0.1", PORT), 1)),
        "metadata": succeeds(lambda: socket.create_connection(("169.254.169.254", 80), 1)),
        "abstract socket": succeeds(lambda: socket.socket(socket.AF_UNIX).connect(ABSTRACT)),
        "docker": sum(succeeds(lambda p=p: socket.socket(socket.AF_UNIX).connect(p))
            for p in ("/run/docker.sock", "/var/run/docker.sock")),
        "sockets": float(sum(stat.S_ISSOCK(p.lstat().st_mode) for f in folders for p in Path(f).rglob("*"))),
        "root": succeeds(lambda: os.setuid(0)),
        "sudo": succeeds(lambda: subprocess.run(["sudo", "-n", "true"], check=True, capture_output=True)),
    }
    model = context.output / "model.bin"
    model.write_text("model")
    resumed = context.epochs_completed
    for epoch in range(resumed + 1, 3):
        context.epoch(epoch, metrics={}, losses={})
        context.checkpoint(model, epochs_completed=epoch)
        while epoch == 1 and not context.interrupted():
            time.sleep(0.02)
        if context.interrupted():
            return None
    output = Path(context.spec.output)
    (output / "heartbeat.json").unlink()
    (output / "heartbeat.json").symlink_to("/etc/passwd")
    return Trained(model, tried | {"resumed": float(resumed)})
'''


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Return a checkout with credentials and the variables of a step on a runner, whose user may become root."""
    checkout, temp = tmp_path / "checkout", tmp_path / "temp"
    checkout.mkdir()
    temp.mkdir()
    train_project(checkout, epochs=2)
    configuration = checkout / "offload.toml"
    configuration.write_text(configuration.read_text().replace(STORE, "file:.offload"))
    (checkout / ".git").mkdir()
    (checkout / ".git/config").write_text("[http]\nextraheader = AUTHORIZATION: basic abc\n")
    variables = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(checkout),
        "GITHUB_ENV": str(temp / "env"),
        "RUNNER_TEMP": str(temp),
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MY_API_KEY": "secret",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if (reason := isolation.why_not(temp, ())) is not None:
        pytest.skip(reason)
    return checkout


@pytest.mark.root
def test_a_hostile_training_on_a_runner_reaches_nothing_and_resumes_after_a_signal(runner, tmp_path):
    """Its checkpoint of the cancelled job is kept, nothing that it started outlives it, and its files are ours again."""
    name = f"\0gpu-offload-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
        tempfile.TemporaryDirectory(dir="/opt") as elsewhere,
    ):
        Path(elsewhere).chmod(0o777)
        abstract.bind(name)
        abstract.listen()
        given = (str(runner), str(tmp_path / "temp"), elsewhere, server.getsockname()[1], name)
        (runner / "mine.py").write_text(ON_RUNNER.replace("GIVEN", repr(given)))
        process = start(runner, "train", "--on", "cpu")
        work = state_folder(runner) / "work"
        wait_until(lambda: list(work.glob("*/output/checkpoint/*.json")), process=process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == EXIT_RESUMABLE, (out, err)
        assert {path.owner() for path in work.rglob("*")} == {work.owner()}
        tried = json.loads(offload(runner, "train", "--on", "cpu", "--json"))["metrics"]
    assert tried.pop("resumed") == 1
    assert {name for name, value in tried.items() if value} == set()
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"987654" in _read(path)]
    assert not left


@pytest.mark.root
def test_no_way_leads_from_the_working_folder_to_what_is_hidden_and_links_to_no_file_of_ours(tmp_path):
    """The folder in which a command begins is on the mount that hides; what it links to is not given to it afterwards."""
    if (reason := isolation.why_not(tmp_path, ())) is not None:
        pytest.skip(reason)
    secret, job = tmp_path / "secret", tmp_path / "job"
    secret.write_text("secret")
    apart = isolation.Isolation(job, (tmp_path,))
    apart.prepare(os.environ)
    os.chown(job, 1001, 1001)
    hostile = f"ln -s {secret} link; ln {secret} hard; cp /bin/true root; chmod 4755 root; cat {'../' * 20}{secret} ../../secret"
    for _ in range(2):  # what one attempt leaves is given to the next
        done = subprocess.run(apart.command("sh", "-c", hostile), capture_output=True, text=True, check=False)
        assert not done.stdout
        assert "Read-only" not in done.stderr
    assert secret.stat().st_uid == 0
    assert not (job / "output/hard").exists()
    left = (job / "output/root").stat()
    assert (left.st_uid, left.st_mode & 0o4000) == (1001, 0)


@pytest.mark.root
def test_on_a_runner_of_ones_own_other_checkouts_and_the_runners_credentials_are_hidden(monkeypatch):
    """And the checkout, too, where PYTHONPATH names it."""
    with tempfile.TemporaryDirectory(dir="/opt") as name:
        top = Path(name)
        top.chmod(0o755)
        checkout, temp = top / "_work/mine/mine", top / "_work/_temp"
        secrets = [top / ".credentials", top / "_work/other/secret", checkout / ".git/config"]
        for secret in (*secrets, top / ".runner"):
            secret.parent.mkdir(parents=True, exist_ok=True)
            secret.write_text("secret")
        temp.mkdir()
        variables = {
            "GITHUB_WORKSPACE": str(checkout),
            "RUNNER_TEMP": str(temp),
            "RUNNER_WORKSPACE": str(checkout.parent),
        }
        hidden = isolated_training.hidden_folders(checkout, variables)
        if (reason := isolation.why_not(temp, hidden)) is not None:
            pytest.skip(reason)
        monkeypatch.syspath_prepend(str(checkout))
        apart = isolation.Isolation(temp / "job", hidden)
        apart.prepare(os.environ)
        read = apart.command(sys.executable, "-P", "-c", READ, *map(str, secrets))
        done = subprocess.run(read, capture_output=True, text=True, check=False)
        assert done.stdout == "absent\n" * len(secrets), done.stderr
        (top / ".runner").unlink()
        assert top / "_work" in isolated_training.hidden_folders(checkout, variables)


READ = "import os, sys; [print('there' if os.path.exists(path) else 'absent') for path in sys.argv[1:]]"


@pytest.mark.root
def test_a_training_that_ignores_the_end_of_its_driver_is_killed(tmp_path, monkeypatch):
    """A cancelled job's runner kills the driver, not what root started: the training's processes end all the same."""
    if (reason := isolation.why_not(tmp_path, ())) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(isolation, "GRACE_S", 1)
    apart = isolation.Isolation(tmp_path / "job", (tmp_path,))
    apart.prepare(os.environ)
    hostile = "trap '' HUP INT TERM PIPE; (setsid sleep 876543 &); echo started; while :; do sleep 1; done"
    process = subprocess.Popen(
        apart.command("sh", "-c", hostile),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline() == b"started\n"
    try:
        process.communicate(timeout=60)  # closes its standard input
    finally:
        subprocess.run(apart.end_command(), capture_output=True, check=False)
    assert process.returncode != 0
    assert (tmp_path / "job/trained").exists()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"876543" in _read(path)]


@pytest.mark.root
def test_an_isolated_training_killed_by_the_kernel_is_distinguished_from_a_failure(tmp_path):
    """The exit code names SIGKILL, as where memory is short."""
    if (reason := isolation.why_not(tmp_path, ())) is not None:
        pytest.skip(reason)
    apart = isolation.Isolation(tmp_path / "job", (tmp_path,))
    apart.prepare(os.environ)
    done = subprocess.run(
        apart.command("sh", "-c", "kill -KILL $$"), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 137


LIMITS = """
import os, resource, shutil, sys
sizes = {folder: shutil.disk_usage(folder).total for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run")}
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
print(sum(sizes.values()) / memory < 0.75, sizes["/run"] <= 16 << 20)
print(max(resource.getrlimit(resource.RLIMIT_NPROC)) <= 4096, open("/proc/self/oom_score_adj").read().strip())
print(os.listdir("/dev/mqueue") if os.path.ismount("/dev/mqueue") else [])
"""


@pytest.mark.root
def test_a_training_on_a_runner_takes_neither_all_memory_nor_all_processes(tmp_path):
    """Memory files and processes are limited, and where memory is short it ends before the runner does."""
    if (reason := isolation.why_not(tmp_path, ())) is not None:
        pytest.skip(reason)
    apart = isolation.Isolation(tmp_path / "job", (tmp_path,))
    apart.prepare(os.environ)
    command = apart.command(sys.executable, "-I", "-c", LIMITS)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["True True", "True 1000", "[]"], done.stderr


@pytest.mark.root
def test_an_attempt_ends_what_an_earlier_one_left_running(tmp_path):
    """Its driver was killed, and the training has some seconds left."""
    if (reason := isolation.why_not(tmp_path, ())) is not None:
        pytest.skip(reason)
    apart = isolation.Isolation(tmp_path / "job", (tmp_path,))
    apart.prepare(os.environ)
    stubborn = "trap '' HUP INT TERM; echo started; while :; do sleep 1; done"
    with subprocess.Popen(
        apart.command("sh", "-c", stubborn), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as former:
        try:
            assert former.stdout.readline() == b"started\n"
            done = subprocess.run(
                apart.command("echo", "new"), stdin=subprocess.PIPE, capture_output=True, check=False
            )
            assert done.stdout == b"new\n", done.stderr
            assert former.wait(timeout=20) != 0
        finally:
            subprocess.run(apart.end_command(), capture_output=True, check=False)


SESSION, JOIN = -3, 1
FIND = f"""
import ctypes, sys
libc = ctypes.CDLL(None)
found = libc.syscall({isolation.KEYCTL.get(platform.machine(), 0)}, 10, {SESSION}, b"user", b"token", 0)
print("none" if found < 0 else "found")
"""


@pytest.mark.root
def test_a_training_finds_no_key_of_the_session_that_started_it(tmp_path):
    """A session keyring is of use for every process below it, whichever user that is."""
    if (reason := isolation.why_not(tmp_path, ())) is not None:
        pytest.skip(reason)
    number = isolation.KEYCTL.get(platform.machine())
    if number is None:
        pytest.skip("the number of keyctl is not known here")
    apart = isolation.Isolation(tmp_path / "job", (tmp_path,))
    apart.prepare(os.environ)
    add = (
        f"import ctypes, os, sys; libc = ctypes.CDLL(None); libc.syscall({number}, {JOIN}, None); "
        f"libc.syscall({number - 2}, b'user', b'token', b'secret', 6, {SESSION}); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    keyed = [sys.executable, "-I", "-c", add]
    find = [sys.executable, "-I", "-c", FIND]
    if subprocess.run([*keyed, *find], capture_output=True, check=True).stdout != b"found\n":
        pytest.skip("this kernel or container has no keyrings")
    done = subprocess.run(
        [*keyed, *apart.command(*find)], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.stdout == b"none\n", done.stderr


def _read(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


@pytest.mark.root
def test_a_training_on_a_runner_that_wants_the_network_learns_which_setting_lets_it(runner, monkeypatch):
    """With that setting it trains as before, and a warning says so; where isolation is required, nothing is trained."""
    fetch = "import urllib.request\n\ndef main(context):\n    urllib.request.urlopen('http://weights.example/x.pt')\n"
    kept = (runner / "mine.py").read_text()
    (runner / "mine.py").write_text(fetch)
    code, _, err = run(runner, "train", "--on", "cpu")
    assert code == 1
    assert "training.isolation" in err
    (runner / "mine.py").write_text(kept)
    configuration = runner / "offload.toml"
    configuration.write_text(configuration.read_text().replace("[training]", '[training]\nisolation = "off"'))
    code, _, err = run(runner, "train", "--on", "cpu")
    assert code == 0, err
    assert "::warning" in err
    assert "not isolated" in err
    configuration.write_text(
        configuration.read_text().replace('"off"', '"required"').replace("epochs = 2", "epochs = 3")
    )
    monkeypatch.setattr(isolated_training, "why_not", lambda *_: "sudo asks for a password")
    isolated_training._why_not.cache_clear()
    code, _, err = run(runner, "train", "--on", "cpu")
    isolated_training._why_not.cache_clear()
    assert code == 1
    assert "sudo asks for a password" in err


def test_inputs_that_were_fetched_say_what_was_said_before(tmp_path):
    """Whoever follows a training sees one progress, though two users wrote it."""
    from gpu_offload.remote_job.mirror.inputs import InputFolder

    inputs, output = InputFolder(tmp_path / "input"), tmp_path / "output"
    inputs.folder.mkdir()
    (inputs.folder / "progress.jsonl").write_text("start\n")
    assert inputs.continue_traces(output)
    (output / "progress.jsonl").write_text("start\nmore\n")
    assert not inputs.continue_traces(output)
    assert (output / "progress.jsonl").read_text() == "start\nmore\n"
    reasons = []
    inputs.ask_to_stop("the first reason")
    inputs.ask_to_stop("another")
    end = inputs.watch(reasons.append)
    while not reasons:
        os.sched_yield()
    end()
    assert reasons == ["the first reason"]
