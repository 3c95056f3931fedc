"""The simulated cloud: moto in this process, made honest, and a real SSH host for every instance.

    with SimulatedCloud() as cloud:
        subprocess.run(command, env=os.environ | cloud.environment())
        print(cloud.leftovers())

Nothing of it outlives this process, however it dies: every host, and a watcher that removes the files, ends when
a pipe that only this process holds open closes.
"""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moto.core.base_backend import BackendDict
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends

from gpu_offload.infra.simulator.admission import offerings, vcpus
from gpu_offload.infra.simulator.behaviour import Behaviour, Event, Leftovers
from gpu_offload.infra.simulator.call import Call, Reply, error_reply, json_reply, xml_reply
from gpu_offload.infra.simulator.catalogue import products, quotas, spot_price_history
from gpu_offload.infra.simulator.compute import Compute
from gpu_offload.infra.simulator.endpoint import Application, Server, Verdict
from gpu_offload.infra.simulator.fault import Fault, FaultSyntaxError, parse
from gpu_offload.infra.simulator.fault_book import FaultBook, of_run
from gpu_offload.infra.simulator.host import SYSTEM_PATH, Hardware, Machine, baked_software
from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.images import IMAGE_ID
from gpu_offload.infra.simulator.isolation import isolation
from gpu_offload.infra.simulator.link import Network
from gpu_offload.infra.simulator.rented import Rented
from gpu_offload.infra.simulator.schedules import Schedules
from gpu_offload.infra.simulator.timers import Timers

ACCESS_KEY, SECRET_KEY = "AKIASIMULATEDCLOUD00", "simulated"
BUCKET = "gpu-offload"
"""A bucket that is there from the start."""
PROFILE = "gpu-offload-instance"
"""The role and instance profile that are there from the start."""
TRUST = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}'  # fmt: skip
HEARTBEAT = re.compile(r"(?:^|/)runs/([^/]+)/attempts/([^/]+)/heartbeat\.json$")
CHECKPOINT = re.compile(r"(?:^|/)runs/([^/]+)/checkpoint/manifest\.json$")
SELF_SERVED = {"DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "DescribeRegions"}
"""EC2 calls that only read tables, and take long: they need not wait for each other."""
_SESSION_LOCK = threading.Lock()
CLEANER = 'if read -r _; then exit; fi; sleep 1; rm -rf "$1"; [ -z "$2" ] || sh -c "$2"'
"""Waits for the end of the cloud. A line means that it has cleaned up by itself."""


class SimulatedCloud:
    """A cloud of one account. All methods may be called from any thread.

    Args:
        behaviour: delays, capacity, quotas, seed.
        faults: faults, as lines or parsed, that are armed from the start.
        namespaces: give every instance a network, a file system and processes of its own; needs root.
        sshd: use real sshd where there is one; False takes our own server.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        faults: Iterable[Fault | str] = (),
        *,
        namespaces: bool = False,
        sshd: bool = True,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.region = self.behaviour.region
        self.account = f"{random.SystemRandom().randrange(10**11, 10**12)}"
        self.namespaces = namespaces
        self.calls: Counter[str] = Counter()
        """API calls by `service.Operation`, whoever made them."""
        self.runner_calls: Counter[str] = Counter()
        """API calls that no instance made."""
        self._initial = [parse(fault) if isinstance(fault, str) else fault for fault in faults]
        self._sshd = sshd
        self._events: list[Event] = []
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._shift = 0.0
        self._cut: set[str] = set()
        self._addresses = 0
        self._clients: dict[tuple[str, str], Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything and leave nothing."""
        self.close()

    def close(self) -> None:
        """End everything and leave nothing; harmless when it has ended."""
        self._stopped.set()
        self._stack.close()

    # ---------------------------------------------------------------- what a caller wants to know

    def environment(self) -> dict[str, str]:
        """What a command needs to find this cloud instead of AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
            "GPU_OFFLOAD_SSH_PORT": str(self.ssh_port),
            "GPU_OFFLOAD_SSH_USER": self.ssh_user,
            "GPU_OFFLOAD_SIMULATOR": self.url + "/_simulator/",
        }

    def client(self, service: str, region: str | None = None, **options: Any) -> Any:
        """A boto3 client of this cloud, whatever the process's environment says; the same one when asked again."""
        key = (service, region or self.region)
        with self._lock:
            if options or key not in self._clients:
                with _SESSION_LOCK:
                    made = _session().client(service, region_name=key[1], endpoint_url=self.url, **options)
                self._stack.callback(made.close)
                if options:
                    return made
                self._clients[key] = made
            return self._clients[key]

    @property
    def url(self) -> str:
        """The API's endpoint."""
        return self._server.url

    @property
    def ssh_port(self) -> int:
        """The port of every instance's SSH server."""
        return self._ssh_port

    @property
    def ssh_user(self) -> str:
        """As whom one logs in."""
        return "offload" if self.namespaces or not self._sshd else isolation().user

    @property
    def image_id(self) -> str:
        """The image that the public parameter points to."""
        return IMAGE_ID

    @property
    def events(self) -> tuple[Event, ...]:
        """What has happened so far, in order."""
        with self._lock:
            return tuple(self._events)

    def leftovers(self) -> Leftovers:
        """What is still there."""
        living = tuple(one.id for one in self.compute.living())
        return Leftovers(
            living, self.compute.volumes(), self.compute.security_groups(), self._schedules.names()
        )

    def settle(self, seconds: float = 10.0) -> None:
        """Wait until no instance is on its way down; on AWS, too, that takes a while."""
        end = time.monotonic() + seconds
        while not self.compute.settled() and time.monotonic() < end:
            time.sleep(0.02)

    def console(self, instance_id: str) -> str:
        """An instance's boot log."""
        return self.compute.console(instance_id)

    def now(self) -> float:
        """The cloud's time, Unix seconds: ours, unless `advance` has moved it."""
        return time.time() + self._shift

    # ---------------------------------------------------------------- what a caller can do to it

    def advance(self, seconds: float) -> None:
        """Move the cloud's time on: prices, schedules, and how long a ClientToken is remembered."""
        with self._lock:
            self._shift += seconds
        self._schedules.fire()

    def inject(self, fault: Fault | str) -> None:
        """Arm a fault. Raises FaultSyntaxError."""
        armed = parse(fault) if isinstance(fault, str) else fault
        self._say("fault", "armed", str(armed))
        self._faults.add(armed, self.compute.living())

    def set_capacity(self, pattern: str, machines: int | None) -> None:
        """Let zones and types (`us-east-1a:g4dn.*`) have so many machines for us from now on; None for plenty."""
        with self.compute.lock:
            rest = {key: value for key, value in self.compute.capacity.items() if key != pattern}
            self.compute.capacity = rest if machines is None else {pattern: machines, **rest}

    def reclaim(self, instance_id: str, notice: float | None = None) -> None:
        """Take a spot instance back after so many seconds of notice; 0 for none."""
        seconds = self.behaviour.reclaim_notice_seconds if notice is None else notice
        self.compute.reclaim(instance_id, seconds)

    def power_loss(self, instance_id: str) -> None:
        """Let an instance's machine lose power: silence on the network, `running` in the API."""
        self._say("fault", instance_id, "power loss")
        self.compute.find(instance_id).host.unplug()
        self.compute.impair(instance_id)

    def crash(self, instance_id: str) -> None:
        """Let an instance's system crash: connections are reset, `running` in the API."""
        self._say("fault", instance_id, "crash")
        self.compute.find(instance_id).host.kill()
        self.compute.impair(instance_id)

    def slow_disk(self, instance_id: str) -> None:
        """Let an instance wait for its disk most of the time."""
        self._say("fault", instance_id, "slow disk")
        self.compute.find(instance_id).host.slow_disk()

    def full_disk(self, instance_id: str) -> None:
        """Let an instance write nothing more."""
        self._say("fault", instance_id, "full disk")
        self.compute.find(instance_id).host.full_disk()

    def kill_ssh(self, instance_id: str) -> None:
        """Let an instance's SSH server and every session of it die; what runs without a session runs on."""
        self._say("fault", instance_id, "SSH server dead")
        self.compute.find(instance_id).host.kill_ssh()

    def cut(self, instance_id: str) -> None:
        """Cut an instance's network silently: SSH and its own calls to the API."""
        self._say("fault", instance_id, "network cut")
        with self._lock:
            self._cut.add(instance_id)
        self.compute.find(instance_id).host.cut()

    def heal(self, instance_id: str) -> None:
        """Undo `cut` and `slow_network`."""
        self._say("fault", instance_id, "network healed")
        with self._lock:
            self._cut.discard(instance_id)
        self.compute.find(instance_id).host.heal()

    def slow_network(self, instance_id: str, bits_per_second: float) -> None:
        """Let an instance's network be no faster than this."""
        self._say("fault", instance_id, f"network at {bits_per_second:g} bit/s")
        self.compute.find(instance_id).host.slow_network(bits_per_second)

    def expire_credentials(self, who: str = "runner", seconds: float | None = None) -> None:
        """Let every key of these (`runner`, `instance`, `all`) that was used so far expire."""
        self._say("fault", who, "credentials expire")
        self.identities.expire(who, seconds)
        if who != "runner":
            self.compute.renew_credentials()

    # ---------------------------------------------------------------- what the endpoint asks

    def before(self, call: Call) -> Verdict:
        """See `infra.simulator.endpoint.Cloud`."""
        name = f"{call.service}.{call.operation}"
        instance = self.identities.instance_of(call.access_key)
        with self._lock:
            self.calls[name] += 1
            if instance is None:
                self.runner_calls[name] += 1
        while instance in self._cut and not self._stopped.wait(0.05):
            pass
        if self._stopped.is_set():
            return Verdict(drop=True)
        lose = False
        zone = self.compute.zone_of(call) if call.operation == "RunInstances" else None
        for fault in self._faults.of_call(call, zone):
            self._say("fault", name, str(fault))
            match fault.effect:
                case "delay":
                    self._stopped.wait(fault.seconds or 0.0)
                case "unreachable":
                    return Verdict(drop=True)
                case "error":
                    code = fault.code or "InternalError"
                    return Verdict(error_reply(call, code, f"injected fault: {fault}"), lose=lose)
                case "lost-reply":
                    lose = True
        if refusal := self.identities.check(call):
            return Verdict(error_reply(call, refusal.code, refusal.message), lose=lose)
        return Verdict(self._own_answer(call), lose=lose)

    def during(self, call: Call) -> AbstractContextManager[None]:
        """See `infra.simulator.endpoint.Cloud`."""
        if call.service in {"ec2", "ssm"}:
            self.compute.region(call.region)
        if call.service not in {"ec2", "scheduler"} or call.operation in SELF_SERVED:
            return nullcontext()
        return self.compute.during(call)

    def after(self, call: Call, status: int) -> None:
        """See `infra.simulator.endpoint.Cloud`."""
        if (
            call.service != "s3"
            or call.operation not in {"PutObject", "CompleteMultipartUpload"}
            or status >= 300
        ):
            return
        if not (found := HEARTBEAT.search(call.key) or CHECKPOINT.search(call.key)):
            return
        run, attempt = found[1], found[2] if found.lastindex == 2 else None
        one = of_run(self.compute.living(), run, attempt)
        if one is None:
            return
        self._faults.reached(one, "heartbeat" if attempt is not None else "checkpoint")
        try:
            document = json.loads(s3_backends[self.account]["aws"].get_object(call.bucket, call.key).value)
            epoch = int(document.get("epochs_completed") or 0)
        except (AttributeError, TypeError, ValueError):
            return
        for number in range(1, epoch + 1):
            self._faults.reached(one, "epoch", number)

    def control(self, method: str, path: str, body: bytes) -> Reply:
        """Let another process look (`GET state`) and inject (`POST fault`, a line)."""
        match method, path.removeprefix("/_simulator/"):
            case "GET", "state":
                left = self.leftovers()
                return json_reply(
                    {
                        "instances": left.instances,
                        "volumes": left.volumes,
                        "security_groups": left.security_groups,
                        "schedules": left.schedules,
                        "calls": dict(self.calls),
                        "runner_calls": dict(self.runner_calls),
                        "events": [[e.time, e.kind, e.subject, e.text] for e in self.events],
                    }
                )
            case "POST", "fault":
                try:
                    self.inject(body.decode().strip())
                except (FaultSyntaxError, UnicodeDecodeError) as error:
                    return json_reply({"error": str(error)}, 400)
                return json_reply({})
        return json_reply({"error": f"no such thing: {method} {path}"}, 404)

    def _own_answer(self, call: Call) -> Reply | None:
        """Answer what moto does not."""
        match call.service, call.operation:
            case "ec2", "DescribeSpotPriceHistory":
                return spot_price_history(call, self.behaviour, self.now(), offerings, vcpus)
            case "ec2", "GetConsoleOutput":
                return self._console_output(call)
            case "servicequotas", _:
                return quotas(call, self.behaviour)
            case "pricing", _:
                return products(call, vcpus)
        return None

    def _console_output(self, call: Call) -> Reply:
        import base64

        name = str(call.parameters.get("InstanceId"))
        try:
            text = self.compute.console(name)
        except KeyError:
            return error_reply(call, "InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        output = base64.b64encode(text.encode()).decode()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        return xml_reply(
            '<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>0</requestId>'
            f"<instanceId>{name}</instanceId><timestamp>{stamp}</timestamp><output>{output}</output>"
            "</GetConsoleOutputResponse>"
        )

    # ---------------------------------------------------------------- how it starts

    def _start(self) -> None:
        stack = self._stack
        self._folder = Path(tempfile.mkdtemp(prefix="gpu-offload-cloud-")).resolve()
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._timers = Timers(lambda error: self._say("error", "timer", f"{type(error).__name__}: {error}"))
        self.identities = Identities()
        self._network = Network()
        self._network.start()
        stack.callback(self._network.stop)
        self._application = Application(self)
        self._server = Server(self._application, "127.0.0.1")
        self._endpoint = self._server.url
        self._build: Callable[[Hardware, Callable[[str], None]], Machine] = self._build_plain
        self._address: Callable[[], str] = self._next_loopback
        self._clean_command = ""
        self._ssh_port = random.SystemRandom().randrange(20_000, 30_000)
        if self.namespaces:
            self._start_namespaces()
        stack.enter_context(_cleaner(self._folder, self._clean_command))
        self.compute = Compute(
            self.account,
            self.behaviour,
            self._timers,
            self.identities,
            now=self.now,
            say=self._say,
            build=self._build,
            address=self._address,
            folder=self._folder,
            hardware=lambda: {
                "endpoint": self._endpoint,
                "ssh_port": self._ssh_port,
                "baked": (self.behaviour.baked_as or baked_software()) if self.behaviour.baked else {},
                "environment": self.behaviour.environment,
            },
        )
        self._faults = FaultBook(self._timers, self._perform)
        self.compute.on_launch = self._faults.launched
        self.compute.on_running = lambda one: self._faults.reached(one, "running")
        self._schedules = Schedules(
            self.account,
            self.now,
            self.compute.end_by_schedule,
            lambda who, text: self._say("schedule", who, text),
        )
        stack.callback(self._forget)
        stack.callback(self.compute.close)
        self._provision()
        for fault in self._initial:
            self.inject(fault)
        self._timers.every(0.1, self._schedules.fire)
        self._timers.every(1.0, self.compute.tick)
        self._timers.start()
        stack.callback(self._timers.stop)
        self._server.start()
        stack.callback(self._server.stop)
        stack.callback(self._stopped.set)

    def _start_namespaces(self) -> None:
        """Every instance in a network of its own, with the API at our end of its cable."""
        from gpu_offload.infra.simulator.namespace import NamespaceMachine, Range

        net = Range()
        net.open()
        self._stack.callback(net.close)
        self._clean_command = net.clean_command
        self._address = net.next_address
        self._ssh_port = 22
        outside = Server(self._application, net.gateway)
        self._endpoint = outside.url
        outside.start()
        self._stack.callback(outside.stop)
        self._build = lambda hardware, on_exit: NamespaceMachine(
            hardware, self._network, on_exit, use_sshd=self._sshd, range=net
        )

    def _build_plain(self, hardware: Hardware, on_exit: Callable[[str], None]) -> Machine:
        return Machine(hardware, self._network, on_exit, use_sshd=self._sshd)

    def _next_loopback(self) -> str:
        with self._lock:
            self._addresses += 1
            return f"127.77.{self._addresses // 250}.{self._addresses % 250 + 1}"

    def _provision(self) -> None:
        """What setting an account up leaves: a bucket, and the role of instances."""
        # Bucket names are global, also over the clouds of one process.
        if BUCKET not in s3_backends.bucket_accounts:
            s3_backends[self.account]["aws"].create_bucket(BUCKET, self.region)
        iam = iam_backends[self.account]["aws"]
        iam.create_role(
            role_name=PROFILE,
            assume_role_policy_document=TRUST,
            path="/",
            permissions_boundary=None,
            description="what an instance may do",
            tags=[],
            max_session_duration="3600",
        )
        iam.create_instance_profile(name=PROFILE, path="/", role_names=[], tags=[])
        iam.add_role_to_instance_profile(PROFILE, PROFILE)

    def _perform(self, fault: Fault, one: Rented | None) -> None:
        """Let a fault happen."""
        if fault.target == "token":
            self.expire_credentials(fault.who, fault.lasts)
            return
        if one is None or one.state in {"shutting-down", "terminated"}:
            return
        if fault.effect == "reclaim":
            self.reclaim(one.id, fault.notice)
        elif fault.effect == "slow":
            self.slow_network(one.id, fault.bits_per_second or 1e6)
        else:
            simple = {
                "power-loss": self.power_loss,
                "crash": self.crash,
                "slow-disk": self.slow_disk,
                "full-disk": self.full_disk,
                "cut": self.cut,
            }
            simple[fault.effect](one.id)
        if fault.target == "network" and fault.lasts is not None:
            self._timers.after(fault.lasts, lambda: self._heal_if_there(one.id))

    def _heal_if_there(self, instance_id: str) -> None:
        with contextlib.suppress(KeyError):
            self.heal(instance_id)

    def _say(self, kind: str, subject: str, text: str) -> None:
        with self._lock:
            self._events.append(Event(time.time(), kind, subject, text))

    def _forget(self) -> None:
        """Take this account out of moto's books."""
        with contextlib.suppress(KeyError):
            s3_backends[self.account]["aws"].reset()
        for backends in list(BackendDict._instances):  # noqa: SLF001  moto has no other list
            backends.pop(self.account, None)


@cache
def _session() -> Any:
    """One session for all clouds of this process: it reads the services' models once."""
    import boto3

    return boto3.Session(ACCESS_KEY, SECRET_KEY)


@contextlib.contextmanager
def _cleaner(folder: Path, command: str) -> Iterator[None]:
    """A process that removes what we leave if we die without a word."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", CLEANER, "gpu-offload-cleaner", str(folder), command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={"PATH": SYSTEM_PATH},
    )
    try:
        yield
    finally:
        process.communicate(b"done\n", timeout=10)


__all__ = ["Behaviour", "Event", "Fault", "Leftovers", "SimulatedCloud"]
