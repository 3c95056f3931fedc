"""This machine with the three verbs of a host."""

import time
from pathlib import Path

import pytest

from gpu_offload.infra.ssh.host import CommandFailedError, CommandTimeoutError, Host, HostError
from gpu_offload.infra.ssh.local_host import LocalHost


@pytest.fixture
def host(tmp_path) -> Host:
    return LocalHost({"GREETING": "hello"}, tmp_path)


def test_a_command_runs_in_its_folder_with_its_environment(host, tmp_path):
    pieces = []
    done = host.run(
        'echo "$GREETING $PWD"; cat; exit 3', timeout=20, check=False, stdin=b"in", stream=pieces.append
    )
    assert (done.exit_code, done.text) == (3, f"hello {tmp_path}\nin")
    assert "".join(pieces) == done.text
    assert host.run(["printf", "%s", "a b'c$HOME"], timeout=20).text == "a b'c$HOME"


def test_a_failed_command_quotes_its_standard_error(host):
    with pytest.raises(CommandFailedError, match=r"exit code 4.*no such luck"):
        host.run("echo no such luck >&2; exit 4", timeout=20)


def test_a_time_out_ends_the_command_and_its_children(host, tmp_path):
    with pytest.raises(CommandTimeoutError, match=r"within 0\.3 s"):
        host.run("sleep 60 & echo $! > child; wait", timeout=0.3)
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def _runs(pid):
    """Whether a process is there and not a zombie that its new parent has not buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_are_written_whole_and_private(host, tmp_path):
    host.put(b"one", "folder/file")
    assert ((tmp_path / "folder/file").stat().st_mode & 0o777) == 0o600
    (tmp_path / "source").write_bytes(b"two")
    host.put(tmp_path / "source", "folder/file", 0o755)
    host.get("folder/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"two"
    assert ((tmp_path / "folder/file").stat().st_mode & 0o777) == 0o755
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
    with pytest.raises(HostError, match="nowhere"):
        host.get("nowhere", tmp_path / "back")
    with pytest.raises(HostError, match="cannot write"):
        host.put(b"x", "source/x")
