"""Ceph's S3 server: a monitor, an object daemon in memory and radosgw, from Debian's packages."""

import shutil
import subprocess
import time
import uuid

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from real_sshd import free_port

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
ACCESS_KEY, SECRET_KEY = "access-of-the-tests", "secret-of-the-tests"
START_S = 120

CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{monitor}]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
run_dir = {folder}
admin_socket = {folder}/$name.sock
log_file = {folder}/$name.log
keyring = {folder}/keyring
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
mon_allow_pool_size_one = true
paxos_propose_interval = 0.05
osd_objectstore = memstore
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
rgw_frontends = beast endpoint=127.0.0.1:{port}
[osd]
keyring = {folder}/osd/keyring
"""


class RadosGateway:
    """The server with one user. It needs no root."""

    def __init__(self, folder):
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            pytest.skip(f"no {missing[0]} on this machine: apt-get install radosgw ceph-mon ceph-osd")
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._daemons = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    def _start(self):
        (self.folder / "osd").mkdir(parents=True)
        fsid, monitor = str(uuid.uuid4()), free_port()
        ring, monitors = self.folder / "keyring", self.folder / "monitors"
        (self.folder / "ceph.conf").write_text(
            CONFIGURATION.format(
                fsid=fsid, monitor=monitor, folder=self.folder, port=self.url.rpartition(":")[2]
            )
        )
        every = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self._run("ceph-authtool", ring, "--create-keyring", "--gen-key", "-n", "mon.", *every[:3])
        self._run("ceph-authtool", ring, "--gen-key", "-n", "client.admin", *every)
        self._run(
            "monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{monitor}]", "--fsid", fsid, monitors
        )
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors, "--keyring", ring)
        self._daemon("ceph-mon", "-i", "a")
        disk = str(uuid.uuid4())
        self._run("ceph", "osd", "new", disk)
        key = self._run(
            "ceph", "auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *"
        )
        (self.folder / "osd" / "keyring").write_text(key)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._daemon("ceph-osd", "-i", "0")
        self._daemon("radosgw", "-n", "client.admin")
        keys = (f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}")
        self._run("radosgw-admin", "user", "create", "--uid=tests", "--display-name=tests", *keys)
        self._wait()

    def _wait(self):
        """Wait until the server answers and knows the user, whom it can refuse for a while after its start."""
        client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY, config=Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1}),
        )  # fmt: skip
        deadline, why = time.monotonic() + START_S, None
        while time.monotonic() < deadline:
            try:
                client.list_buckets()
            except (BotoCoreError, ClientError) as error:
                why = error
                time.sleep(0.05)
            else:
                return
        log = (self.folder / "client.admin.log").read_text(errors="replace")
        raise AssertionError(f"radosgw did not answer within {START_S} s: {why}\n{log[-2000:]}")

    def _command(self, program, *words):
        own = () if program in {"ceph-authtool", "monmaptool"} else ("-c", self.folder / "ceph.conf")
        return [program, *map(str, own), *map(str, words)]

    def _run(self, *words):
        done = subprocess.run(
            self._command(*words),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, f"{words[0]}: {done.stderr[-2000:]}"
        return done.stdout

    def _daemon(self, *words):
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._daemons.append(
            subprocess.Popen([*self._command(*words), "-f"], start_new_session=True, **quiet)
        )
