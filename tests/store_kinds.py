"""Stores of every kind that can be written to, for tests that hold for each of them."""

import getpass
from pathlib import Path

import pytest
from hub_case import REPOSITORY, Hub
from real_sshd import Sshd, end_processes

from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.remote_files import RemoteFiles

KINDS = [
    "folder",
    pytest.param("bucket", marks=pytest.mark.simulator),
    "memory",
    pytest.param("sftp", marks=pytest.mark.process),
    pytest.param("hub", marks=pytest.mark.simulator),
]
"""`memory` is fsspec's, `sftp` a real OpenSSH server, `hub` a server with the API of Hugging Face's."""


class SftpServer:
    """An sshd with an SFTP subsystem, and a home directory whose keys and known hosts lead to it."""

    def __init__(self, folder):
        self.sshd = Sshd(folder / "sshd")
        with (folder / "sshd" / "config").open("a") as file:
            file.write("Subsystem sftp internal-sftp\n")
        self.home, self.files = folder / "home", folder / "files"
        (self.home / ".ssh").mkdir(parents=True)
        key = self.home / ".ssh" / "id_ed25519"
        key.touch(0o600)
        key.write_text(self.sshd.client_key.private)
        self.trust(self.sshd.host_key.public)

    def trust(self, public):
        hosts = ",".join(f"[{name}]:{self.sshd.port}" for name in ("127.0.0.1", "localhost"))
        (self.home / ".ssh" / "known_hosts").write_text(f"{hosts} {public}\n")

    def stop(self):
        """End the server; its connections are closed by then."""
        self.sshd.process.kill()
        self.sshd.process.wait()
        end_processes(self.sshd.mark)

    def url(self, name):
        (self.files / name).mkdir(parents=True, exist_ok=True)
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.sshd.port}{self.files / name}"


@pytest.fixture(scope="session")
def sftp_server(tmp_path_factory):
    server = SftpServer(tmp_path_factory.mktemp("sftp"))
    server.sshd.start()
    yield server
    server.stop()


@pytest.fixture
def new_store(request, tmp_path, monkeypatch):
    """Open an empty store of a kind."""
    opened = []

    def made(kind):
        if kind == "folder":
            return open_store("file:store", base=tmp_path)
        if kind == "bucket":
            store = open_store(f"s3://{request.getfixturevalue('bucket')}/some/prefix")
            store.multipart_above, store.part_size = 6 << 20, 5 << 20  # S3's smallest part: tests stay small
            opened.append(store._bucket.reader.close)
            return store
        if kind == "hub":
            pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
            from gpu_offload.infra.store.hub import HubStore

            hub = Hub().__enter__()
            opened.append(hub.__exit__)
            monkeypatch.setenv("HF_TOKEN", "hf_test")
            return HubStore(f"hf://{REPOSITORY}", endpoint=hub.url)
        pytest.importorskip("fsspec", reason="the extra [fsspec] is not installed")
        if kind == "memory":
            return open_store(f"fsspec+memory://{tmp_path.name}")
        server = request.getfixturevalue("sftp_server")
        monkeypatch.setenv("HOME", str(server.home))
        store = open_store(server.url(Path(tmp_path).name))
        assert isinstance(store, RemoteFiles)
        opened.append(store._files.client.close)
        return store

    yield made
    for close in opened:
        close()
