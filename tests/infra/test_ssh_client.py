"""SSH as the launcher uses it, against a real OpenSSH server."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
import stamina
from commands import wait_until
from real_sshd import Sshd, sshd

from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.errors import (
    CommandFailedError,
    CommandTimeoutError,
    ConnectionLostError,
    HostAuthError,
    HostKeyMismatchError,
    HostUnreachableError,
)
from gpu_offload.infra.ssh.key import ClientKey, HostKey, PublicKey


@pytest.fixture
def server(tmp_path):
    with sshd(tmp_path / "sshd") as running:
        yield running


def connect(server, **options):
    return SshHost(server.address, server.client_key, server.host_key.public, **options)


def test_a_command_runs_with_its_input_and_its_output_is_bytes(server):
    with connect(server) as host:
        done = host.run("echo one; echo two >&2; cat; exit 3", timeout=60, check=False, stdin=b"\xff\x00in")
        quoted = host.run(["printf", "%s", "a b'c$HOME"], timeout=60)
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"one\n\xff\x00in", b"two\n")
    assert quoted.text == "a b'c$HOME"


def test_a_user_without_a_name_connects(server, monkeypatch):
    """A container may run under a uid that /etc/passwd does not have; from Python 3.13 on that is an OSError."""

    def no_name():
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", no_name)
    with connect(server) as host:
        assert host.run("echo on", timeout=60).text == "on\n"


def test_large_output_on_both_streams_does_not_block(server):
    with connect(server) as host:
        done = host.run("head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero", timeout=60)
    assert (len(done.stdout), len(done.stderr)) == (5_000_000, 5_000_000)


def test_a_failed_command_quotes_its_standard_error(server):
    with connect(server) as host, pytest.raises(CommandFailedError, match=r"exit code 4.*no such luck"):
        host.run("echo no such luck >&2; exit 4", timeout=60)


def test_a_command_that_does_not_end_is_given_up(server):
    with connect(server) as host:
        with pytest.raises(CommandTimeoutError, match=r"within 0[.]3 s"):
            host.run("exec sleep 30", timeout=0.3)
        assert host.run("echo on", timeout=60).text == "on\n"


def test_files_arrive_whole_and_private(server, tmp_path):
    body = os.urandom(3_000_000)
    source = tmp_path / "source"
    source.write_bytes(body)
    remote = tmp_path / "a new folder" / "file 'quoted'"
    with connect(server) as host:
        host.put(source, str(remote), 0o640)
        assert (remote.stat().st_mode & 0o777, remote.read_bytes() == body) == (0o640, True)
        host.put(b"", str(remote))
        assert (remote.stat().st_mode & 0o777, remote.read_bytes()) == (0o600, b"")
        with pytest.raises(CommandFailedError):
            host.put(b"x", "/proc/none/x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a new folder", "source", "sshd"]


def test_an_upload_that_is_cut_short_leaves_the_old_file(server, tmp_path):
    remote = tmp_path / "file"
    remote.write_bytes(b"old")
    with connect(server) as host:
        host.connect()
        part = tmp_path / "file.part"

        def cut_when_underway():
            wait_until(lambda: part.exists() and part.stat().st_size > 0)
            server.drop_connections()

        thread = threading.Thread(target=cut_when_underway)
        thread.start()
        with pytest.raises(ConnectionLostError):
            host.put(bytes(200_000_000), str(remote))
        thread.join()
    assert remote.read_bytes() == b"old"


@pytest.mark.simulator
def test_an_impostor_at_the_same_address_is_rejected_and_learns_nothing(tmp_path):
    key, pinned = ClientKey.generate(), HostKey.generate().public
    with sshd(tmp_path / "theirs") as theirs:
        # The impostor even lets our key in; it must never be offered.
        (theirs.folder / "authorized_keys").write_text(str(key.public))
        host = SshHost(theirs.address, key, pinned)
        with host, pytest.raises(HostKeyMismatchError, match="not our instance"):
            host.run("echo secret", timeout=60)
        log = (theirs.folder / "log").read_text()
    assert "Accepted" not in log
    assert "publickey" not in log
    assert "user" not in log


@pytest.mark.simulator
def test_an_impostor_without_an_ed25519_key_is_rejected(tmp_path):
    server = Sshd(tmp_path / "sshd")
    key = tmp_path / "sshd" / "host_key"
    key.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(key)], check=True)
    try:
        server.start()
        with connect(server) as host, pytest.raises(HostKeyMismatchError, match="got ecdsa"):
            host.run("echo secret", timeout=60)
    finally:
        server.stop()


def test_a_key_that_the_host_does_not_know_is_an_auth_error_at_once(server):
    host = SshHost(server.address, ClientKey.generate(), server.host_key.public, patience=60)
    with host, pytest.raises(HostAuthError, match="our key was refused"):
        host.connect()


@pytest.fixture
def waits():
    """Seconds that were to be waited before each retry; nothing waits, and there are five attempts."""
    found = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: found.append(details.wait_for)])
    try:
        with stamina.set_testing(True, attempts=5):
            yield found
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.simulator
def test_silence_at_the_address_is_tried_again(waits):
    with socket.socket() as silent:  # its port is taken, and nothing listens there
        silent.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", silent.getsockname()[1])
        host = SshHost(address, ClientKey.generate(), HostKey.generate().public)
        with pytest.raises(HostUnreachableError, match=f"offload@127.0.0.1:{address.port}"):
            host.connect()
    assert len(waits) == 4


@pytest.mark.simulator
def test_a_host_that_comes_up_late_is_reached(tmp_path, waits):
    server = Sshd(tmp_path / "sshd")

    def start_before_the_third_attempt(details):
        if details.retry_num == 2:
            server.start()

    stamina.instrumentation.set_on_retry_hooks([start_before_the_third_attempt])
    try:
        with connect(server) as host:
            assert host.run("echo up", timeout=60).text == "up\n"
    finally:
        server.stop()


@contextmanager
def once_it_runs(folder, act):
    """Yield a command that takes a minute; `act` is called when it runs."""
    runs, over = folder / "runs", threading.Event()

    def wait():
        wait_until(lambda: runs.exists() or over.is_set())
        if not over.is_set():
            act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield f"touch {runs}; exec sleep 60"
    finally:
        over.set()
        thread.join()


def test_an_interrupt_while_a_command_runs_is_raised_at_once(server, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    main = threading.get_ident()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with connect(server) as host:
            host.connect()
            with (
                pytest.raises(KeyboardInterrupt),
                once_it_runs(tmp_path, lambda: signal.pthread_kill(main, signal.SIGALRM)) as command,
            ):
                host.run(command, timeout=50)
            assert host.run("echo on", timeout=60).text == "on\n"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_command_may_end_without_reading_its_input(server):
    with connect(server) as host:
        assert host.run("echo done", timeout=60, stdin=bytes(50_000_000)).text == "done\n"


@pytest.mark.simulator
def test_a_port_that_answers_without_ssh_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = SshHost(Address("127.0.0.1", mute.getsockname()[1]), ClientKey.generate(),
                       HostKey.generate().public, connect_timeout=0.5, patience=0)  # fmt: skip
        with pytest.raises(HostUnreachableError):
            host.connect()


def test_a_lost_connection_is_distinguished_from_a_failed_command_and_made_again(server, tmp_path):
    with connect(server) as host:
        host.connect()
        with (
            pytest.raises(ConnectionLostError),
            once_it_runs(tmp_path, server.drop_connections) as command,
        ):
            host.run(command, timeout=50)
        assert host.run("echo again", timeout=60).text == "again\n"


def test_a_command_ended_by_a_signal_is_a_failed_command(server):
    with connect(server) as host, pytest.raises(CommandFailedError):
        host.run("exec sh -c 'kill -9 $$'", timeout=60)


def test_the_users_own_ssh_and_fabric_settings_are_not_read(server, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(
        "Host *\n  HostName 192.0.2.1\n  User nobody\n  ProxyCommand exit 1\n  ForwardAgent yes\n"
    )
    for name in (".fabric", ".invoke"):
        (home / f"{name}.yaml").write_text("run: {dry: true, echo: true}\nuser: nobody\ngateway: 192.0.2.1\n")
        (home / f"{name}.py").write_text("raise SystemExit('read')\n")
    monkeypatch.setenv("FABRIC_RUN_DRY", "1")
    monkeypatch.setenv("INVOKE_RUN_DRY", "1")
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {HostKey.generate().public}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "no-agent"))
    with connect(server) as host:
        assert host.run("echo in", timeout=60).text == "in\n"


@pytest.mark.root
def test_a_silent_cut_is_noticed_within_ten_seconds_waiting_or_sending(tmp_path):
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and `ip` for a network namespace")
    name, third = f"offload-{os.getpid()}", 200 + os.getpid() % 50
    here, there = f"10.77.{third}.1", f"10.77.{third}.2"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no network namespace to be had: {made.stderr.strip()}")
    inside = ["ip", "netns", "exec", name]

    def ip(*words, prefix=()):
        subprocess.run([*prefix, "ip", *words], check=True)

    server = Sshd(tmp_path / "sshd", address=there, prefix=inside)
    try:
        ip("link", "add", f"ofl{third}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{here}/30", "dev", f"ofl{third}")
        ip("link", "set", f"ofl{third}", "up")
        ip("addr", "add", f"{there}/30", "dev", "eth0", prefix=inside)
        ip("link", "set", "eth0", "up", prefix=inside)
        ip("link", "set", "lo", "up", prefix=inside)
        server.start()
        for command, stdin in (("sleep 60", b""), ("cat >/dev/null", bytes(400_000_000))):
            with connect(server) as host:
                host.connect()
                cut_at = []

                def cut(cut_at=cut_at):
                    ip("route", "add", "blackhole", f"{here}/32", prefix=inside)
                    cut_at.append(time.monotonic())

                timer = threading.Timer(0.5, cut)
                timer.start()
                with pytest.raises(ConnectionLostError):
                    host.run(command, timeout=60, stdin=stdin)
                noticed = time.monotonic() - cut_at[0]
                timer.join()
                logging.getLogger("offload.tests").info("cut noticed in %.1f s during %s", noticed, command)
                assert noticed < 10
                ip("route", "del", "blackhole", f"{here}/32", prefix=inside)
                assert host.run("echo healed", timeout=60).text == "healed\n"
    finally:
        server.stop()
        subprocess.run(["ip", "netns", "del", name], check=False)


def test_a_private_key_is_not_in_the_repr_and_a_public_line_reads_back():
    pair = ClientKey.generate()
    assert "PRIVATE" not in repr(pair)
    assert PublicKey.parse(f"{pair.public} someone@somewhere") == pair.public
    with pytest.raises(ValueError, match="ssh-ed25519"):
        PublicKey.parse("ssh-rsa AAAA")
