"""What every test stands on: no way out to a real network or account, and moto behind real HTTP."""

import gc
import importlib
import ipaddress
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import stamina
from hypothesis import HealthCheck, settings

from gpu_offload.infra.signals import ENDING_SIGNALS

pytest_plugins = ["resources", "store_kinds"]

# No test depends on speed.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")
# Each of the many processes that tests start would compile every import again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Threads that wait by spinning starve one another where several small trainings run at once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_finish():
    """Look for garbage seldom, and not among what the imports made: that took a quarter of the tests' processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
OURS = [LOOPBACK, ipaddress.ip_network("10.77.0.0/16"), ipaddress.ip_network("::1/128")]
"""Addresses that tests may connect to: this machine's, and those of the hosts in network namespaces."""

FAKE_AWS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # no server answers there, until a test starts its own
}


@pytest.fixture(scope="session", autouse=True)
def _no_way_out(tmp_path_factory):
    """No credentials or state of the developer's, and no connection but to this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in list(os.environ):
            if name.startswith(("AWS_", "ACTIONS_ID_TOKEN_", "OFFLOAD_", "GITHUB_", "RUNNER_")):
                patch.delenv(name)
        for name, value in FAKE_AWS.items():
            patch.setenv(name, value)
        connect = socket.socket.connect

        def guarded(self, address):
            if self.family in {socket.AF_INET, socket.AF_INET6} and isinstance(address, tuple):
                host = "127.0.0.1" if address[0] == "localhost" else address[0]
                try:
                    allowed = any(ipaddress.ip_address(host) in network for network in OURS)
                except ValueError:
                    allowed = False
                if not allowed:
                    raise PermissionError(
                        f"a test wanted to connect to {address}: only this machine is allowed"
                    )
            return connect(self, address)

        def resolve(host, *args, **more):
            name = host.decode() if isinstance(host, bytes) else host
            try:
                ipaddress.ip_address(name or "127.0.0.1")
            except ValueError:
                if name not in {"localhost", socket.gethostname()}:
                    raise socket.gaierror(socket.EAI_NONAME, f"a test wanted to resolve {name}") from None
            return getaddrinfo(host, *args, **more)

        getaddrinfo = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", resolve)
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut():
    """Nothing that a test writes has to reach the disk, which takes 4 ms for each file and each folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session", autouse=True)
def _foreground():
    """Take SIGINT, and let the commands that tests start take it, also where the suite runs in the background.

    A shell without job control starts `make test &` with SIGINT ignored, and what is ignored is inherited.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def same_environment():
    """Put the environment back: a training's isolation sets variables for the whole process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def foreground():
    """Take every ending signal, also where the suite was started with `nohup`, which ignores SIGHUP."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Call:
    """A request that the cloud got. `action` is EC2's or `METHOD` for REST; `form` the parameters, flat."""

    method: str
    host: str
    path: str
    query: str
    headers: dict
    body: bytes
    form: dict = field(default_factory=dict)

    @property
    def action(self):
        target = self.headers.get("X-Amz-Target", "")
        return self.form.get("Action") or target.rpartition(".")[2] or self.method


@dataclass
class Cloud:
    """moto behind HTTP, with what it was asked and a place to inject faults.

    A fault is a function `(call, answer) -> (status, body[, headers]) | None`. `answer()` lets moto do what was
    asked, and returns its (status, body, headers): so a fault can come before the deed, after it (a lost reply)
    or in its place.
    """

    url: str
    calls: list[Call] = field(default_factory=list)
    faults: list = field(default_factory=list)

    def fail_once(self, match, status, body=b"", *, after=False, times=1):
        """Answer the next `times` calls that `match(call)` with an error; with `after`, once the deed is done."""
        left = [times]

        def fault(call, answer):
            if left[0] and match(call):
                left[0] -= 1
                if after:
                    answer()
                return status, body
            return None

        self.faults.append(fault)

    def of(self, action):
        return [call for call in self.calls if call.action == action]


@pytest.fixture(scope="session")
def moto_server():
    """moto's server on a free port of this machine; use `cloud`, which is fresh for every test."""
    pytest.importorskip("moto.server", reason="the extra [simulator] is not installed")
    import logging

    from werkzeug.serving import make_server
    from werkzeug.wrappers import Response

    from gpu_offload.infra.simulator.endpoint import Dispatcher

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = Dispatcher()
    writing = threading.Lock()

    def moto(environ, start_response):
        # moto looks at a write's condition first and writes then: two threads may both find it true.
        with nullcontext() if environ["REQUEST_METHOD"] in {"GET", "HEAD"} else writing:
            return backend(environ, start_response)

    cloud = Cloud("")

    def application(environ, start_response):
        import io

        if environ.get("HTTP_TRANSFER_ENCODING") == "chunked":
            body = environ["wsgi.input"].read()
        else:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        headers = {
            name[5:].replace("_", "-").title(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        call = Call(
            environ["REQUEST_METHOD"],
            environ.get("HTTP_HOST", ""),
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            headers,
            body,
        )
        if "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
            call.form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if not call.path.startswith("/moto-api"):
            cloud.calls.append(call)

            def answer():
                seen = []
                chunks = moto(environ, lambda status, headers, *_: seen.extend([status, dict(headers)]))
                return seen[0], b"".join(chunks), seen[1]

            for fault in list(cloud.faults):
                reply = fault(call, answer)
                if reply is not None:
                    headers = reply[2] if len(reply) > 2 else {"Content-Type": "text/xml"}
                    body = reply[1].encode() if isinstance(reply[1], str) else reply[1]
                    # As a list: werkzeug then leaves a Content-Length that promises more than there is.
                    return Response([body], status=reply[0], headers=headers)(environ, start_response)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield cloud
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cloud(moto_server, monkeypatch):
    """An empty simulated AWS account; `AWS_ENDPOINT_URL` leads to it."""
    import http.client

    connection = http.client.HTTPConnection(urlsplit(moto_server.url).netloc, timeout=30)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()
    moto_server.calls.clear()
    moto_server.faults.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.url)
    yield moto_server
    moto_server.faults.clear()


@pytest.fixture
def store(tmp_path):
    """An empty store in a folder."""
    from gpu_offload.infra.store.factory import open_store

    return open_store(f"file:{tmp_path / 'store'}")


@pytest.fixture
def bucket(cloud):
    """The name of an empty bucket in the simulated account."""
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="offload-test")
    client.close()
    return "offload-test"


@pytest.fixture
def scratch(tmp_path_factory, monkeypatch):
    """What commands that a test kills leave in their temporary folder is removed with the test's own files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))


@pytest.fixture
def hurried(monkeypatch, scratch):
    """Commands, in this process and as ones of their own, pause only shortly between two looks at a simulated cloud."""
    folder = Path(__file__).parent / "hurried"
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    )
    importlib.import_module("gpu_offload.orchestrator.run.controller")  # the modules that copy a constant
    for name, values in runpy.run_path(str(folder / "sitecustomize.py"))["PAUSES"].items():
        owner = importlib.import_module(name)
        for constant, value in values.items():
            usual = getattr(owner, constant)
            for module in [m for n, m in sys.modules.items() if n.startswith("gpu_offload.")]:
                if getattr(module, constant, None) is usual:
                    monkeypatch.setattr(module, constant, value)


@pytest.fixture
def no_waiting():
    """Retries happen as often as they would, at once."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, as a function that makes it full or read-only."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)

    def spoil(how):
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            return
        room = os.statvfs(disk)
        (disk / "filler").write_bytes(b"x" * room.f_bavail * room.f_bsize)

    yield disk, spoil
    subprocess.run(["umount", disk], check=True)
