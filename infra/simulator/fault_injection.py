"""Faults of a simulated cloud: armed by a line, or done to an instance at once."""

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_offload.infra.aws.instance_state import ENDED
from gpu_offload.infra.simulator.behaviour import EventLog
from gpu_offload.infra.simulator.compute import Compute
from gpu_offload.infra.simulator.fault import InjectedFault, parse
from gpu_offload.infra.simulator.fault_book import FaultBook
from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.market import Rise
from gpu_offload.infra.simulator.rented import Rented
from gpu_offload.infra.simulator.timers import Timers


@dataclass
class FaultInjection:
    """Injects faults into the instances and keys of one cloud; `book` has those of API calls."""

    compute: Compute
    identities: Identities
    timers: Timers
    log: EventLog
    now: Callable[[], float]
    notice: float
    """Seconds of notice before an instance is reclaimed, where a fault names none."""
    book: FaultBook = field(init=False)
    _cut: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.book = FaultBook(self.timers, self._perform)
        self.compute.on_launch = self.book.launched
        self.compute.on_running = lambda one: self.book.reached(one, "running")

    def inject(self, fault: InjectedFault | str) -> None:
        """Arm a fault. Raises FaultSyntaxError."""
        armed = parse(fault) if isinstance(fault, str) else fault
        self.log.say("fault", "armed", str(armed))
        self.book.add(armed, self.compute.living())

    def reclaim(self, instance_id: str, notice: float | None = None) -> None:
        """Take a spot instance back after so many seconds of notice; 0 for none."""
        self.compute.reclaim(instance_id, self.notice if notice is None else notice)

    def power_loss(self, instance_id: str) -> None:
        """Let an instance's machine lose power: silence on the network, `running` in the API."""
        one = self._find(instance_id, "power loss")
        one.host.unplug()
        one.impair()

    def crash(self, instance_id: str) -> None:
        """Let an instance's system crash: connections are reset, `running` in the API."""
        one = self._find(instance_id, "crash")
        one.host.kill()
        one.impair()

    def slow_disk(self, instance_id: str) -> None:
        """Let an instance wait for its disk most of the time."""
        self._find(instance_id, "slow disk").host.processes.slow()

    def full_disk(self, instance_id: str) -> None:
        """Keep an instance from writing to its disk."""
        self._find(instance_id, "full disk").host.full_disk()

    def kill_ssh(self, instance_id: str) -> None:
        """Let an instance's SSH server and every session of it die; what runs without a session runs on."""
        self._find(instance_id, "SSH server dead").host.processes.kill_ssh()

    def cut(self, instance_id: str) -> None:
        """Cut an instance's network silently: SSH and its own calls to the API."""
        one = self._find(instance_id, "network cut")
        with self._lock:
            self._cut.add(instance_id)
        one.host.cut()

    def is_cut(self, instance_id: str | None) -> bool:
        """Whether an instance's network is cut."""
        return instance_id in self._cut

    def heal(self, instance_id: str) -> None:
        """Undo `cut` and `slow_network`."""
        one = self._find(instance_id, "network healed")
        with self._lock:
            self._cut.discard(instance_id)
        one.host.heal()

    def slow_network(self, instance_id: str, bits_per_second: float) -> None:
        """Let an instance's network be no faster than this."""
        self._find(instance_id, f"network at {bits_per_second:g} bit/s").host.slow_network(bits_per_second)

    def expire_credentials(self, who: str = "runner", seconds: float | None = None) -> None:
        """Let every key of these (`runner`, `instance`, `all`) that was used so far expire."""
        self.log.say("fault", who, "credentials expire")
        self.identities.expire(who, seconds)
        if who != "runner":
            for one in self.compute.living():
                self.compute.metadata.renew(one)

    def _find(self, instance_id: str, text: str) -> Rented:
        """Return an instance, and log what happens to it."""
        self.log.say("fault", instance_id, text)
        return self.compute.rented[instance_id]

    def _perform(self, fault: InjectedFault, one: Rented | None) -> None:
        """Carry a fault out."""
        if fault.target == "token":
            self.expire_credentials(fault.who or "runner", fault.lasts)
            return
        if fault.target == "market":
            self._raise_prices(fault)
            return
        if one is None or one.state in ENDED:
            return
        if fault.effect == "reclaim":
            self.reclaim(one.id, fault.notice)
        elif fault.effect == "slow":
            self.slow_network(one.id, fault.bits_per_second or 1e6)
        else:
            getattr(self, fault.effect.replace("-", "_"))(one.id)  # "power-loss" is `power_loss`
        if fault.target == "network" and fault.lasts is not None:
            self.timers.after(fault.lasts, lambda: self._heal_if_there(one.id))

    def _raise_prices(self, fault: InjectedFault) -> None:
        start = self.now()
        end = math.inf if fault.lasts is None else start + fault.lasts
        where = fault.zone, fault.region, fault.instance_type
        self.compute.market.rises.append(Rise(fault.factor, start, end, *where))
        self.log.say("fault", "spot prices", str(fault))

    def _heal_if_there(self, instance_id: str) -> None:
        with contextlib.suppress(KeyError):
            self.heal(instance_id)
