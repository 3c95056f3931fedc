"""The simulated cloud: moto in this process with EC2's delays and limits, and a real SSH host for every instance.

    with SimulatedCloud() as cloud:
        subprocess.run(command, env=os.environ | cloud.environment())
        print(cloud.leftovers())

Nothing of it outlives this process, even if it is killed: every host, and a watcher that removes the files, ends
when a pipe that only this process holds open closes.
"""

import contextlib
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from gpu_offload.infra.simulator.account import forget, provision
from gpu_offload.infra.simulator.admission import vcpus
from gpu_offload.infra.simulator.api_front import ApiFront
from gpu_offload.infra.simulator.behaviour import Behaviour, Event, EventLog, Leftovers
from gpu_offload.infra.simulator.call import Call, CallDecision
from gpu_offload.infra.simulator.cleaner import cleaner
from gpu_offload.infra.simulator.clients import Clients
from gpu_offload.infra.simulator.compute import Compute
from gpu_offload.infra.simulator.endpoint import Application, Server
from gpu_offload.infra.simulator.fault import InjectedFault, parse
from gpu_offload.infra.simulator.fault_injection import FaultInjection
from gpu_offload.infra.simulator.hardware import baked_software
from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.link import LinkRelay
from gpu_offload.infra.simulator.market import SimulatedMarket
from gpu_offload.infra.simulator.moto_ec2 import MotoEc2
from gpu_offload.infra.simulator.place import LoopbackPlace, NamespacePlace
from gpu_offload.infra.simulator.schedules import ScheduleRunner
from gpu_offload.infra.simulator.spot_series import SpotSeries
from gpu_offload.infra.simulator.stack_roles import StackRoles
from gpu_offload.infra.simulator.timers import Timers


class SimulatedCloud:
    """A cloud of one account. All methods may be called from any thread. `faults` does harm to its instances, `calls`
    and `runner_calls` count API calls by `service.Operation`, of all callers and of all but instances.

    Args:
        behaviour: delays, capacity, quotas, seed.
        faults: faults, as lines or parsed, that are armed from the start.
        namespaces: give every instance a network, a file system and processes of its own; needs root.
        sshd: use real sshd where there is one; False takes our own server.
        clock: Unix seconds; another one than this machine's also needs instances that follow it. Delays stay wall seconds.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        faults: Iterable[InjectedFault | str] = (),
        *,
        namespaces: bool = False,
        sshd: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.region = self.behaviour.region
        self.account = f"{random.SystemRandom().randrange(10**11, 10**12)}"
        self.namespaces = namespaces
        self._initial = [parse(fault) if isinstance(fault, str) else fault for fault in faults]
        self._sshd = sshd
        self._clock = clock
        self._log = EventLog(self.now)
        self._lock = threading.RLock()
        self._shift = 0.0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove its files; harmless when it has ended."""
        self._stack.close()

    # ---------------------------------------------------------------- queries

    def environment(self) -> dict[str, str]:
        """Return the variables by which a command finds this cloud instead of AWS."""
        return self._clients.environment() | {
            "GPU_OFFLOAD_SSH_PORT": str(self.ssh_port),
            "GPU_OFFLOAD_SSH_USER": self.ssh_user,
        }

    def client(self, service: str, region: str | None = None, **options: Any) -> Any:
        """A boto3 client of this cloud, independent of the process's environment; cached."""
        return self._clients.get(service, region, **options)

    @property
    def url(self) -> str:
        """The API's endpoint."""
        return self._server.url

    @property
    def ssh_port(self) -> int:
        """The port of every instance's SSH server."""
        return self._place.ssh_port

    @property
    def ssh_user(self) -> str:
        """The user to log in as."""
        return self._place.ssh_user

    @property
    def events(self) -> tuple[Event, ...]:
        """The events so far, in order."""
        return self._log.all()

    def leftovers(self) -> Leftovers:
        """Return the resources that still exist."""
        living = tuple(one.id for one in self.compute.living())
        return Leftovers(living, self.ec2.volumes(), self.ec2.security_groups(), self._schedules.names())

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until no instance is on its way down; on AWS, too, that takes a while."""
        end = time.monotonic() + seconds
        while not self.compute.settled() and time.monotonic() < end:
            time.sleep(0.02)

    def console(self, instance_id: str) -> str:
        """An instance's boot log."""
        return self.compute.console(instance_id)

    def now(self) -> float:
        """The cloud's time, Unix seconds: the clock's, unless `advance` has moved it."""
        return self._clock() + self._shift

    # ---------------------------------------------------------------- changes

    def advance(self, seconds: float) -> None:
        """Move the cloud's time on: prices, schedules, and how long a ClientToken is remembered."""
        with self._lock:
            self._shift += seconds
        self._schedules.fire()

    def before(self, call: Call) -> CallDecision | None:
        """Decide about a call before it is handled; None to handle it. For subclasses; called from any thread."""
        del call
        return None

    def inject(self, fault: InjectedFault | str) -> None:
        """Arm a fault. Raises FaultSyntaxError."""
        self.faults.inject(fault)

    # ---------------------------------------------------------------- start

    def _start(self) -> None:
        stack, log = self._stack, self._log
        self._folder = Path(tempfile.mkdtemp(prefix="gpu-offload-cloud-")).resolve()
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        timers = Timers(lambda error: log.say("error", "timer", f"{type(error).__name__}: {error}"))
        network = LinkRelay()
        network.start()
        stack.callback(network.stop)
        self._place: LoopbackPlace | NamespacePlace = (
            NamespacePlace(network, stack, use_sshd=self._sshd)
            if self.namespaces
            else LoopbackPlace(network, use_sshd=self._sshd)
        )
        stack.enter_context(cleaner(self._folder, self._place.clean_command))
        roles = StackRoles(self.behaviour.stack, self.account) if self.behaviour.stack is not None else None
        self.identities = Identities(roles)
        self.compute = Compute(
            self.account,
            self.behaviour,
            timers,
            self.identities,
            SimulatedMarket(self.behaviour.seed, vcpus),
            now=self.now,
            say=log.say,
            build=self._place.build,
            address=self._place.next_address,
            folder=self._folder,
            hardware=self._hardware,
        )
        series = SpotSeries(self.behaviour, self.compute, self.now)
        self.ec2 = MotoEc2(self.compute, self.now, lambda zone: series.free(zone, self.now()))
        self.faults = FaultInjection(
            self.compute, self.identities, timers, log, self.now, self.behaviour.reclaim_notice_seconds
        )
        self._schedules = ScheduleRunner(
            self.account,
            self.now,
            self.compute.end_by_schedule,
            lambda who, text: log.say("schedule", who, text),
            roles,
        )
        front = ApiFront(
            self.behaviour,
            self.compute,
            self.ec2,
            self.identities,
            self.faults,
            log,
            now=self.now,
            leftovers=self.leftovers,
            first=self.before,
        )
        self.calls, self.runner_calls = front.calls, front.runner_calls
        application = Application(front)
        self._server = Server(application, "127.0.0.1", clock=self.now)
        self._clients = Clients(self.url, self.region)
        stack.callback(self._clients.close)
        self._endpoint = self._place.serve(application, stack) or self._server.url
        stack.callback(forget, self.account)
        stack.callback(self.compute.close)  # callbacks run in the reverse order: the server stops first
        provision(self.account, self.region, roles)
        for fault in self._initial:
            self.inject(fault)
        timers.every(0.1, self._schedules.fire)
        timers.every(0.02, series.reclaim) if self.behaviour.spot_series else None
        timers.every(1.0, self.compute.tick)
        timers.every(1.0, self.ec2.forget_tokens)
        timers.start()
        stack.callback(timers.stop)
        self._server.start()
        stack.callback(self._server.stop)
        stack.callback(front.stopped.set)

    def _hardware(self) -> dict[str, Any]:
        """Return what every machine has, independent of its launch request."""
        return {
            "endpoint": self._endpoint,
            "ssh_port": self.ssh_port,
            "baked": baked_software() if self.behaviour.baked else {},
            "environment": self.behaviour.environment,
        }
