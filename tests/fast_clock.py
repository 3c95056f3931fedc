"""Time that passes faster than this machine's, for a simulated cloud, its instances' processes and the commands that use it.

It passes fast only while every process sleeps, and never passes a sleep's end before that process goes on. While one
works, or an instance starts or ends, it passes at `SLOW`. So the speed of this machine changes no order of events.
"""

import fcntl
import mmap
import threading
import time
from pathlib import Path

from gpu_offload.infra.simulator.cloud import SimulatedCloud

SLOW, NOTICE, FAST = 10.0, 60.0, 3000.0
"""Seconds of this clock in a second: at work, from a reclaim's notice to its end, while all sleep."""
LAG_S = 3.0
"""How far the clock may be past the end of a process's sleep, until the process sleeps again."""
TICK_S = 0.002

HOOK = f'''
"""Lets a process live in the time of a clock that is a file: time, sleep, and on instances waits with a time-out."""

import fcntl, math, mmap, os, subprocess, sys, threading, time, uuid

CLOCK = os.environ["FAST_CLOCK"]
INSTANCE = os.path.basename(os.environ.get("GPU_OFFLOAD_SIMULATED_INSTANCE", ""))
ROLE = os.environ.get("USER", "") + "@" + INSTANCE if INSTANCE else "driver"
with open(os.path.join(CLOCK, "now"), "rb") as file:
    NOW = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("d")
wait, doze, true_time, lock = threading.Condition.wait, time.sleep, time.time, threading.Lock()
slot, ends = None, {{}}


def now():
    return NOW[0]


def asleep(until):
    """Say until when this thread sleeps; infinity for as long as something else does not wake it."""
    global slot
    with lock:
        if slot is None:
            file = open(os.path.join(CLOCK, f"{{ROLE}}-{{uuid.uuid4().hex}}.part"), "w+b")
            file.write(bytes(8))
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)  # until this process ends
            slot = file, memoryview(mmap.mmap(file.fileno(), 8)).cast("d")
            os.rename(file.name, file.name[:-5])
        ends[threading.get_ident()] = until
        for gone in ends.keys() - {{thread.ident for thread in threading.enumerate()}}:
            del ends[gone]
        slot[1][0] = min(ends.values())


def sleep(seconds):
    until = now() + seconds
    asleep(until)
    while now() < until:
        doze({TICK_S})


def timed_wait(condition, timeout=None):
    until = math.inf if timeout is None else now() + timeout
    asleep(until)
    while not (woken := wait(condition, None if timeout is None else {TICK_S})) and now() < until:
        pass
    asleep(now())
    return woken


def time_of_caller():
    """This machine's time for paramiko, whose time-outs would be a tenth as long; the clock's for all others."""
    return true_time() if sys._getframe(1).f_globals.get("__name__", "").startswith("paramiko.") else now()


time.time, time.sleep = time_of_caller, sleep
if INSTANCE:
    threading.Condition.wait = timed_wait
    time.monotonic = time.perf_counter = now
else:
    from gpu_offload.orchestrator.backends import progress, ssh_session

    ssh_session.LOOK_S = progress.SLICE_S = 20.0  # the minutes of a run pass in a second
'''


class FastClock:
    """A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pace = lambda: (SLOW, set())
        """Returns the highest speed now, and the processes that must be there for more than `SLOW`."""
        (folder / "hook").mkdir(parents=True)
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        (folder / "now").write_bytes(bytes(8))
        with (folder / "now").open("r+b") as file:
            self._now = memoryview(mmap.mmap(file.fileno(), 8)).cast("d")
        self._now[0] = time.time()
        self._skipped = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._slots: dict[str, tuple[object, memoryview]] = {}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def __call__(self) -> float:
        return self._now[0]

    def skip(self, seconds: float) -> None:
        """Let time pass at once, whatever the processes do: something outside took that long."""
        self._skipped += seconds

    def environment(self) -> dict[str, str]:
        """The variables by which a process lives in this time."""
        return {"FAST_CLOCK": str(self.folder), "PYTHONPATH": str(self.folder / "hook")}

    def follow(self, cloud: SimulatedCloud) -> None:
        """Pass fast while an instance trains, or there is none; slowly while one starts or ends."""

        def pace() -> tuple[float, set[str]]:
            living = cloud.compute.living()
            noticed = [one for one in living if one.reclaim_at is not None]
            training = [one for one in living if one.reclaim_at is None]
            if not cloud.compute.settled() or any(one.state != "running" for one in training):
                return SLOW, {"driver"}
            return NOTICE if noticed else FAST, {"driver", *(f"trainer@{one.id}" for one in training)}

        self.pace = pace

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(TICK_S):
            real = time.monotonic()
            passed, last = real - last, real
            sleeping, (rate, needed) = self._sleeping(), self.pace()
            skipped, self._skipped = self._skipped, 0.0
            slow = self._now[0] + SLOW * passed + skipped
            if sleeping and needed <= sleeping.keys():
                self._now[0] = max(slow, min(self._now[0] + rate * passed, min(sleeping.values()) + LAG_S))
            else:
                self._now[0] = slow

    def _sleeping(self) -> dict[str, float]:
        """Until when each live process sleeps, by its role."""
        ends: dict[str, float] = {}
        for path in self.folder.glob("*-*"):
            if path.suffix != ".part":
                self._look(path, ends)
        return ends

    def _look(self, path: Path, ends: dict[str, float]) -> None:
        if path.name not in self._slots:
            file = path.open("r+b")
            self._slots[path.name] = file, memoryview(mmap.mmap(file.fileno(), 8)).cast("d")
        file, end = self._slots[path.name]
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            role = path.name.rpartition("-")[0]
            ends[role] = min(end[0], ends.get(role, end[0]))
            return
        path.unlink()  # its process has ended
        del self._slots[path.name]
        file.close()
