"""The instances of a simulated account: their hosts, and their states from launch to termination."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_offload.infra.aws.instance_state import ENDED
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.hardware import Hardware
from gpu_offload.infra.simulator.host import Machine
from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.market import SimulatedMarket
from gpu_offload.infra.simulator.metadata import MetadataKeeper
from gpu_offload.infra.simulator.rented import ITSELF, RECLAIMED, USER, HonestInstance, Rented
from gpu_offload.infra.simulator.timers import Timers


@dataclass
class Compute:
    """The instances of one account, over all regions."""

    account: str
    behaviour: Behaviour
    timers: Timers
    identities: Identities
    market: SimulatedMarket
    now: Callable[[], float]
    say: Callable[[str, str, str], None]
    build: Callable[[Hardware, Callable[[str], None]], Machine]
    address: Callable[[], str]
    folder: Path
    hardware: Callable[[], dict[str, Any]]
    lock: threading.RLock = field(default_factory=threading.RLock)
    rented: dict[str, Rented] = field(default_factory=dict)
    on_launch: Callable[[Rented], None] = lambda _: None
    on_running: Callable[[Rented], None] = lambda _: None
    on_terminated: Callable[[Rented], None] = lambda _: None
    on_vanished: Callable[[Rented], None] = lambda _: None
    metadata: MetadataKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.metadata = MetadataKeeper(self.account, self.identities)

    def rent(self, region: str, call: Call, instance: Any, user_data: bytes) -> None:
        """Give a new instance its address, its host and its future."""
        instance.__class__ = HonestInstance  # moto offers no way to choose the class
        if instance.lifecycle == "spot":
            digest = hashlib.sha256(instance.id.encode()).hexdigest()
            instance.spot_instance_request_id = f"sir-{digest[:8]}"
        launched = self.now()
        instance.launch_time = datetime.fromtimestamp(launched, UTC).replace(tzinfo=None)
        # moto invents public addresses, which belong to others: ours leads to this machine.
        nic = instance.nics[0]
        address = self.address()
        if nic.public_ip is not None:
            nic.public_ip = address
        hardware = Hardware(
            instance_id=instance.id,
            instance_type=instance.instance_type,
            address=address,
            user_data=user_data,
            folder=self.folder / instance.id,
            grace=self.behaviour.grace_seconds,
            **self.hardware(),
        )
        host = self.build(hardware, lambda why: self._went_down(instance.id, why))
        one = Rented(
            instance=instance,
            region=region,
            launched=launched,
            user_data=user_data,
            born_in=call,
            host=host,
            role=call.profile or None,
            unseen=self.behaviour.lag_calls,
            visible_at=time.monotonic() + self.behaviour.lag_seconds,
        )
        self.rented[instance.id] = one
        self.say("state", one.id, f"pending: {instance.instance_type} in {instance.placement.zone}")
        self.start(one)
        self.on_launch(one)

    def end(self, instance_id: str, code: str, message: str) -> None:
        """Terminate: shutting down now, terminated after a while, forgotten later."""
        with self.lock:
            one = self.rented.get(instance_id)
            if one is None or one.state in ENDED:
                return
            one.become("shutting-down", self.now(), code, message)
        self.say("state", one.id, f"shutting-down: {code}")
        # By the timers' thread: the caller holds locks, and a host takes its time.
        self.timers.after(0.0, one.host.power_button)
        self.timers.after(self.behaviour.shutdown_seconds, lambda: self._terminated(one, code, message))

    def end_by_schedule(self, region: str, instance_ids: Iterable[str]) -> None:
        """Terminate for the scheduler, which repeats a failed call until it works."""
        for instance_id in instance_ids:
            one = self.rented.get(instance_id)
            if one is not None and one.region == region:
                self.end(instance_id, *USER)

    def reclaim(self, instance_id: str, notice: float) -> None:
        """AWS takes a spot instance back, after so many seconds of notice."""
        with self.lock:
            one = self.rented[instance_id]
            if not one.spot:
                self.say("fault", one.id, "on demand: AWS does not reclaim it")
                return
        self.give_notice(one, notice)
        if notice > 0:
            self.timers.after(notice, lambda: self.end(instance_id, *RECLAIMED))
        else:
            # Without notice the machine stops in the middle of what it does.
            one.host.kill()
            self.end(instance_id, *RECLAIMED)

    def give_notice(self, one: Rented, notice: float) -> None:
        """Say in an instance's metadata that EC2 takes it back in so many seconds; 0 for no notice."""
        if notice > 0:
            one.rebalance_at = self.now()
            one.reclaim_at = one.rebalance_at + notice
            self.metadata.refresh(one)
        self.say("fault", one.id, f"reclaimed with {notice:g} s of notice")

    def tick(self) -> None:
        """Renew credentials that near their end; reclaim spot instances whose price is above their highest."""
        for one in self.living():
            if self.metadata.is_due(one):
                self.metadata.refresh(one)
            # An instance without a highest price pays the market's, and one with a notice has been reclaimed.
            if one.max_price is None or one.reclaim_at is not None:
                continue
            kind, zone = one.instance.instance_type, one.instance.placement.zone
            if self.market.price(kind, zone, self.now()).price > one.max_price:
                self.reclaim(one.id, self.behaviour.reclaim_notice_seconds)

    def console(self, instance_id: str) -> str:
        """Return the instance's console output."""
        one = self.rented[instance_id]
        return one.host.console() or one.console

    def living(self) -> tuple[Rented, ...]:
        """Instances that are neither terminated nor on the way there."""
        with self.lock:
            return tuple(one for one in self.rented.values() if one.state not in ENDED)

    def settled(self) -> bool:
        """Whether nothing is on its way to another state."""
        with self.lock:
            return not any(one.state == "shutting-down" for one in self.rented.values())

    def close(self) -> None:
        """Take the power from every host, and forget everything."""
        for one in list(self.rented.values()):
            one.host.close()

    def _switch_on(self, one: Rented) -> None:
        with self.lock:
            if one.state in ENDED:
                return
        self.metadata.refresh(one)
        one.host.start(self.metadata.document(one))
        self.say("host", one.id, f"boots at {one.host.hardware.address}")

    def start(self, one: Rented) -> None:
        """Switch on a new instance: pending now, running after a while."""
        one.become("pending", self.now())
        if code := self.behaviour.launch_failure:
            self.timers.after(
                self.behaviour.boot_seconds, lambda: self.end(one.id, code, "Client error on launch")
            )
            return
        self.timers.after(0.0, lambda: self._switch_on(one))
        self.timers.after(self.behaviour.boot_seconds, lambda: self._now_running(one))

    def reboot(self, one: Rented) -> None:
        """Take the power for a moment."""

        def power_cycle() -> None:
            one.host.kill()
            self._switch_on(one)

        self.timers.after(0.0, power_cycle)

    def _now_running(self, one: Rented) -> None:
        with self.lock:
            if one.state != "pending":
                return
            one.become("running", self.now())
        self.say("state", one.id, "running")
        self.on_running(one)

    def _terminated(self, one: Rented, code: str, message: str) -> None:
        one.console = one.host.console()  # closing deletes the host's files
        one.host.close()
        with self.lock:
            self.on_terminated(one)
            one.become("terminated", self.now(), code, message)
        self.say("state", one.id, "terminated")
        self.timers.after(self.behaviour.vanish_seconds, lambda: self._vanish(one))

    def _vanish(self, one: Rented) -> None:
        with self.lock:
            self.on_vanished(one)
            self.rented.pop(one.id, None)

    def _went_down(self, instance_id: str, why: str) -> None:
        """The host ended by itself."""
        one = self.rented.get(instance_id)
        if one is None or one.state in ENDED:
            return
        self.say("host", one.id, f"went down: {why or 'crash'}")
        if why == "reboot":  # EC2 keeps the instance, and its state
            self.timers.after(0.0, lambda: self._switch_on(one))
        elif why:
            # A one-time spot instance cannot be stopped.
            if one.spot or one.instance.instance_initiated_shutdown_behavior == "terminate":
                self.end(instance_id, *ITSELF)
            else:
                with self.lock:
                    one.become("stopped", self.now(), *ITSELF)
                self.say("state", one.id, f"stopped: {ITSELF[0]}")
        else:
            one.impair()
