"""Armed faults: when each takes effect, and on which call or instance."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.fault import InjectedFault
from gpu_offload.infra.simulator.rented import ATTEMPT_TAG, RUN_TAG, Rented
from gpu_offload.infra.simulator.timers import Timers

_WITHOUT_INSTANCE = {"token", "market"}
"""Targets that are neither an instance nor a call."""


@dataclass(slots=True)
class _Armed:
    """A fault, and how often it can still happen."""

    fault: InjectedFault
    left: float
    starts: float | None
    """Monotonic seconds; None while it waits for a milestone."""
    waiting: set[str] = field(default_factory=set)
    """Ids of instances that it hits at the milestone."""


class FaultBook:
    """Decides which fault hits which instance or call, and when."""

    def __init__(self, timers: Timers, perform: Callable[[InjectedFault, Rented | None], None]) -> None:
        self._timers = timers
        self._perform = perform
        self._lock = threading.RLock()
        self._armed: list[_Armed] = []

    def add(self, fault: InjectedFault, living: tuple[Rented, ...]) -> None:
        """Arm a fault; instances that live already count as launched now."""
        starts = None if fault.after.milestone else time.monotonic() + fault.after.seconds
        armed = _Armed(fault, float("inf") if fault.times is None else fault.times, starts)
        with self._lock:
            self._armed.append(armed)
        if fault.target in _WITHOUT_INSTANCE:
            if fault.after.milestone is None:
                self._timers.after(fault.after.seconds, lambda: self._perform(fault, None))
        elif fault.target in {"instance", "network"}:
            for one in living:
                self._aim(armed, one)
                if fault.after.milestone == "running" and one.state == "running":
                    self.reached(one, "running")

    def forget(self) -> None:
        """Disarm what has not happened yet."""
        with self._lock:
            self._armed.clear()

    def launched(self, one: Rented) -> None:
        """Aim the armed faults at a new instance."""
        with self._lock:
            armed = list(self._armed)
        for each in armed:
            if each.fault.target in {"instance", "network"}:
                self._aim(each, one)

    def reached(self, one: Rented, milestone: str, epoch: int = 0) -> None:
        """Trigger the faults that wait for an instance's milestone."""
        due: list[InjectedFault] = []
        with self._lock:
            for armed in self._armed:
                when = armed.fault.after
                if when.milestone != milestone or epoch < when.epoch:
                    continue
                if armed.fault.target in {"instance", "network"}:
                    if one.id in armed.waiting:
                        armed.waiting.discard(one.id)
                        due.append(armed.fault)
                elif armed.starts is None:
                    armed.starts = time.monotonic()
                    if armed.fault.target in _WITHOUT_INSTANCE:
                        due.append(armed.fault)
        # Outside of the lock, because a fault may reach a milestone itself.
        for fault in due:
            self._hit(fault, one, 0.0)

    def of_call(self, call: Call, zone: str | None, who: str = "runner") -> list[InjectedFault]:
        """Return the faults that hit this call, in the order of their injection, and count them down.

        `who` calls: `runner` or `instance`.
        """
        hits = []
        now = time.monotonic()
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                if armed.left < 1 or armed.starts is None or armed.starts > now:
                    continue
                if fault.lasts is not None and now > armed.starts + fault.lasts:
                    continue
                if _hits(fault, call, zone) and fault.who in {None, "all", who}:
                    armed.left -= 1
                    hits.append(fault)
        return hits

    def _aim(self, armed: _Armed, one: Rented) -> None:
        with self._lock:
            if armed.left < 1 or not _fits(armed.fault, one):
                return
            armed.left -= 1
            if armed.fault.after.milestone is not None:
                armed.waiting.add(one.id)
                return
        self._hit(armed.fault, one, armed.fault.after.seconds)

    def _hit(self, fault: InjectedFault, one: Rented, seconds: float) -> None:
        self._timers.after(seconds, lambda: self._perform(fault, one))


def _hits(fault: InjectedFault, call: Call, zone: str | None) -> bool:
    if fault.target == "store":
        return call.service == "s3"
    if fault.target != "api":
        return False
    names = (call.operation, f"{call.service}.{call.operation}")
    return (
        any(fnmatchcase(name, fault.operation) for name in names)
        and fnmatchcase(call.key, fault.key)
        and fault.zone in {None, zone}
        and fault.region in {None, call.region}
        and fault.instance_type in {None, call.instance_type}
    )


def _fits(fault: InjectedFault, one: Rented) -> bool:
    return (
        fault.zone in {None, one.instance.placement.zone}
        and fault.region in {None, one.region}
        and fault.instance_type in {None, one.instance.instance_type}
        and fault.attempt in {None, int(one.tags.get(ATTEMPT_TAG) or 0)}
    )


def of_run(rented: tuple[Rented, ...], run: str, attempt: str | None) -> Rented | None:
    """The living instance of an attempt, or the newest one of a run."""
    mine = [one for one in rented if one.tags.get(RUN_TAG) == run]
    if attempt is not None:
        mine = [one for one in mine if one.tags.get(ATTEMPT_TAG) == attempt]
    return max(mine, key=lambda one: one.launched, default=None)
