"""A cloud, a store and a clock that exist in memory only: what the crash sweep drives real drivers through.

Everything between a run's journal and its outcome is the product's own: `Controller`, `Journal`, `Lease`, the registry,
`next_step`. Modelled is what lies outside: time, EC2 (tokens, lag, vanishing, refusals, reclaims), an instance that
trains and writes to the store as `remote_job` does, and SSH. Every effect of a driver passes `World.effect`, where
it can be killed before or after it, lose the reply, or stand still while another driver works.
"""

import contextlib
import hashlib
import heapq
import io
import itertools
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from gpu_offload.dataset.task import Task
from gpu_offload.infra.aws.instance_state import ENDED
from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreUnreachableError,
)
from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.cost.bill import spent
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import Offer, cpu_offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import STABLE, model_key
from gpu_offload.orchestrator.run.attempt_use import ended_of, use_of
from gpu_offload.orchestrator.run.backend import (
    CloudUnreachableError,
    InterruptedRunError,
    LaunchDeniedError,
    RefusedError,
)
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import ObservedInstance
from gpu_offload.orchestrator.run.record import HostRecord, RunRecord, StopRequest
from gpu_offload.orchestrator.run.refusals import REFUSAL_LASTS_S
from gpu_offload.orchestrator.run.signals import EndingSignal
from gpu_offload.remote_job.result import (
    Artifact,
    CheckpointManifest,
    Heartbeat,
    Timings,
    TrainingResult,
)
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec

T0 = 1_800_000_000.0
KEY = "k" * 64
RUN = KEY[:12] + "-1"
VERSION = KEY[:16]
MANIFEST_KEY = model_key(VERSION, "manifest.json")

BOOT_S = 5.0
SHUTDOWN_S = 8.0
FORGOTTEN_S = 3600.0
"""After so long a terminated instance is not described any more."""
UNREADABLE = "heartbeat's form"
TOKEN_S = 900.0
"""After so long a launch token means nothing any more: the same launch starts another instance."""
DEAD_PID = 1 << 30
"""No process has this number: a driver of the same machine knows at once that this one is gone."""
BEAT_S = 60.0
POWER_OFF_S = 600.0
STALL_S = 400.0
"""How long a stalled driver stands still at least: longer than its lease."""
PATIENCE_STEPS = 700


class KilledError(BaseException):
    """SIGKILL: no handler runs, and whatever the dead driver's `finally` tries is refused likewise."""


class StuckError(AssertionError):
    """A driver went on for longer than any run can take."""


@dataclass(frozen=True)
class Fault:
    """What befalls a driver at one of its effects.

    `kind`: die-before, die-after, lost (done, the reply lost), unsent (not done, no reply), stall (another driver
    takes `steps` steps meanwhile; 0: to the end), cancel-before, cancel-after (SIGINT), reclaim, reclaim-notice.
    """

    kind: str
    steps: int = 0


@dataclass
class Scenario:
    """What a case is made of; `faults` by (driver, effect), both counted from 1."""

    epochs: int = 3
    epoch_s: float = 300.0
    lag: float = 0.0
    """How many seconds EC2's answers are behind."""
    staging_s: float = 0.0
    """How long the inputs take to reach the store."""
    cpu: bool = False
    detach: bool = False
    dead_man: bool = False
    """Off: then the loop alone has to keep the promises."""
    deadline_s: float = 6 * 3600.0
    max_cost_usd: float = 2.0
    on_overrun: str = "stop"
    reclaims: dict[int, tuple[float, bool]] = field(default_factory=dict)
    """By attempt: seconds after its training began, and whether a notice precedes it."""
    outsider: dict[int, float] = field(default_factory=dict)
    """By attempt: seconds after its training began at which somebody terminates its instance."""
    silent: dict[int, float] = field(default_factory=dict)
    """By attempt: seconds after its training began at which its machine hangs and says nothing more."""
    deaf: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By attempt: from when to when (likewise) the instance cannot reach the store."""
    mute_s: float = 0.0
    """Until so long after the run began, no launch is answered, though it is carried out."""
    refused: dict[str, int] = field(default_factory=dict)
    """By zone or market: how often it refuses."""
    quota: frozenset[str] = frozenset()
    """Markets that the account may not use."""
    crowded: dict[str, float] = field(default_factory=dict)
    """By market: until so many seconds after the run began, other instances use the quota up."""
    broken_profile: bool = False
    """The configuration names an instance profile that does not exist."""
    roles: tuple[str, ...] = ()
    """By driver: `janitor` may not launch; drivers past the last have every right."""
    ends_early: int | None = None
    """The training ends by itself after so many epochs, and says that it has finished."""
    foreign: frozenset[str] = frozenset()
    """Documents that a newer version writes, with fields that this one does not know: `heartbeat`."""
    dies_at: int | None = None
    """The training's process dies in this epoch, every time."""
    fails: bool = False
    """The training says no."""
    stop_at: float | None = None
    """Seconds after the run began at which somebody runs `offload stop`."""
    slow: float = 1.0
    """How much longer the epochs take than was estimated, on instances."""
    cpu_slow: float = 1.0
    """Likewise on the driver's machine; a run that escalates goes from there to instances."""
    same_machine: bool = False
    """The next driver starts on the same machine, and so knows at once that the last one is dead."""
    restart_s: float = 30.0
    """How long after a driver's death the next one comes."""
    faults: dict[tuple[int, int], Fault] = field(default_factory=dict)


class MemoryStore:
    """An object store in memory, as `infra.store.protocol` describes it; the instances use it directly."""

    url = "memory:"

    def __init__(self, world: "World") -> None:
        self.world = world
        self.objects: dict[str, tuple[bytes, str, float]] = {}
        self.written = Counter()
        self._etags = itertools.count(1)

    def read(self, key: str) -> tuple[bytes, str]:
        try:
            body, etag, _ = self.objects[key]
        except KeyError:
            raise ObjectMissingError(key) from None
        return body, etag

    def stat(self, key: str) -> ObjectInfo | None:
        if key not in self.objects:
            return None
        body, etag, at = self.objects[key]
        return ObjectInfo(key, len(body), etag, datetime.fromtimestamp(at, UTC))

    def put(self, key: str, body: bytes) -> str:
        etag = f"e{next(self._etags)}"
        if key == MANIFEST_KEY and any(m.lives(self.world.now) for m in self.world.machines):
            self.world.rented_while_publishing = True
        self.objects[key] = body, etag, self.world.now
        self.written[key] += 1
        return etag

    def create(self, key: str, body: bytes) -> str:
        if key in self.objects:
            if self.objects[key][0] == body:
                return self.objects[key][1]
            raise ObjectExistsError(key)
        return self.put(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        if key not in self.objects:
            raise ObjectChangedError(key)
        if self.objects[key][1] != etag:
            if self.objects[key][0] == body:
                return self.objects[key][1]
            raise ObjectChangedError(key)
        return self.put(key, body)

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        body = path.read_bytes()
        (self.create if create else self.put)(key, body)
        found = self.stat(key)
        assert found is not None
        return found

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        body, _ = self.read(key)
        if (size is not None and len(body) != size) or (sha256 is not None and _sha(body) != sha256):
            raise CorruptObjectError(key)
        path.write_bytes(body)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for key in sorted(k for k in self.objects if k.startswith(prefix)):
            found = self.stat(key)
            if found is not None:
                yield found

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def public_url(self, key: str) -> str | None:
        del key
        return None


class DriverStore:
    """The store as one driver reaches it: every write is an effect, and so is a file that is written here."""

    EFFECTS = frozenset({"put", "create", "replace", "upload", "delete", "download"})

    def __init__(self, actor: "Actor") -> None:
        self._actor, self._store = actor, actor.world.store
        self.url = self._store.url

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._store, name)

        def call(*args: object, **more: object) -> object:
            if name not in self.EFFECTS:
                self._actor.check()
                return method(*args, **more)
            return self._actor.effect(
                f"{name} {args[0]}", lambda: method(*args, **more), lost=StoreUnreachableError, seconds=0.1
            )

        return call


@dataclass
class Machine:
    """An instance of the model cloud."""

    id: str
    run: str
    attempt: int
    offer: Offer
    keys: str
    token: str
    launched_at: float
    expires_at: float
    stopping_at: float | None = None
    """When it began to shut down: from then on it costs nothing."""
    reclaimed: bool = False
    job: "Job | None" = None

    def state(self, at: float) -> str:
        """Return its state at a moment, in EC2's words."""
        if self.stopping_at is not None and at >= self.stopping_at:
            return "terminated" if at >= self.stopping_at + SHUTDOWN_S else "shutting-down"
        return "running" if at >= self.launched_at + BOOT_S else "pending"

    def lives(self, at: float) -> bool:
        """Whether it costs money."""
        return self.stopping_at is None or at < self.stopping_at


class Job:
    """The training on an instance: what `remote_job` writes, and when."""

    def __init__(self, world: "World", machine: Machine) -> None:
        self.world, self.machine, self.attempt = world, machine, machine.attempt
        self.began = world.now
        self.epochs = 0
        self.state = "starting"
        self.over = False
        world.at(world.now + 5, self.begin)

    @property
    def prefix(self) -> str:
        return f"runs/{RUN}"

    @property
    def works(self) -> bool:
        """Whether its process runs."""
        silent = self.world.scenario.silent.get(self.attempt)
        if silent is not None and self.world.now >= self.began + silent:
            return False
        ended = self.machine.stopping_at
        return not self.over and (ended is None or self.world.now < ended)

    @property
    def hears(self) -> bool:
        """Whether it reaches the store."""
        begin, end = self.world.scenario.deaf.get(self.attempt, (0.0, 0.0))
        return not self.began + begin <= self.world.now < self.began + end

    def begin(self) -> None:
        """Fetch what resumes, and train."""
        if not self.works:
            return
        if self.world.scenario.fails:
            self.state = "failed"
            self.beat(message="no GPU memory")
            self.over = True
            return
        found = self.world.manifest()
        if found is not None and found.attempt > self.attempt:
            self.over = True
            return
        self.epochs = found.epochs_completed if found else 0
        self.world.trainings += 1
        self.state = "training"
        self.beat()
        self.next_epoch()
        self.world.at(self.world.now + BEAT_S, self.keep_beating)

    def next_epoch(self) -> None:
        if self.epochs >= (self.world.scenario.ends_early or self.world.scenario.epochs):
            self.state = "finishing"
            self.world.at(self.world.now + 3, self.upload_model)
            return
        self.world.epochs_begun[self.epochs + 1] += 1
        if self.epochs + 1 == self.world.scenario.dies_at:
            self.world.at(self.world.now + 30, self.die)
            return
        seconds = self.world.scenario.epoch_s * self.world.scenario.slow
        self.world.at(self.world.now + seconds, self.end_epoch)

    def die(self) -> None:
        """The process ends by a signal; the job then powers the instance off."""
        self.over = True
        self.world.at(self.world.now + POWER_OFF_S, lambda: self.world.shut_down(self.machine))

    def end_epoch(self) -> None:
        if not self.works or self.state == "interrupted":
            return
        self.epochs += 1
        self.world.epochs_completed[self.epochs] += 1
        self.world.at(self.world.now + 2, lambda epochs=self.epochs: self.upload_checkpoint(epochs))
        self.next_epoch()

    def upload_checkpoint(self, epochs: int) -> None:
        """Files first, then the manifest, unless a later attempt's is there."""
        if not self.works:
            self.world.lost_uploads += 1
            return
        if not self.hears:
            self.world.at(self.world.now + 30, lambda: self.upload_checkpoint(epochs))
            return
        found = self.world.manifest()
        if found is not None and (found.attempt, found.epochs_completed) > (self.attempt, epochs):
            self.over = self.over or found.attempt > self.attempt
            return
        self.world.write_checkpoint(self.attempt, epochs, self.world.now - self.began)

    def upload_model(self) -> None:
        if not self.works:
            return
        if not self.hears:
            self.world.at(self.world.now + 30, self.upload_model)
            return
        body = model_of(self.attempt)
        self.world.store.put(f"{self.prefix}/result/model.pt", body)
        self.world.at(self.world.now + 2, self.upload_result)

    def upload_result(self) -> None:
        if not self.works:
            return
        self.world.write_result(self.attempt)
        self.state = "finished"
        self.beat()
        self.over = True
        self.world.at(self.world.now + POWER_OFF_S, lambda: self.world.shut_down(self.machine))

    def keep_beating(self) -> None:
        if not self.works or self.state == "interrupted":
            return
        if self.hears:
            if self.world.superseded(self.attempt):
                self.over = True
                return
            self.beat()
        self.world.at(self.world.now + BEAT_S, self.keep_beating)

    def beat(self, message: str | None = None) -> None:
        if not self.hears:
            return
        self.world.beat(self.attempt, self.epochs, self.state, message)

    def interrupt(self, message: str = "spot notice") -> None:
        """The two-minute notice, or a shutdown: keep what there is, and say so."""
        if self.works and self.state in {"starting", "training"}:
            self.state = "interrupted"
            if self.hears and self.epochs:
                self.upload_checkpoint(self.epochs)
            self.beat(message=message)
            self.over = True


class World:
    """Store, cloud and clock of one case, and what happened in it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = T0
        self.store = MemoryStore(self)
        self.machines: list[Machine] = []
        self.groups: set[str] = set()
        self.schedules: set[str] = set()
        self.actors: list[Actor] = []
        self.trainings = 0
        self.epochs_begun: Counter[int] = Counter()
        self.epochs_completed: Counter[int] = Counter()
        self.most_alive = 0
        self.refused: Counter[str] = Counter(scenario.refused)
        self.deaths = 0
        self.denials = 0
        self.lost_uploads = 0
        self.stalls = 0
        self.settled = 0
        self.prices = lambda run, _seen: run
        self.rented_while_publishing = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.run = Journal(self.store).begin(run_record(scenario))
        if scenario.stop_at is not None:
            stop = StopRequest(at=T0 + scenario.stop_at, reason="by hand")
            self.at(stop.at, lambda: Journal(self.store).request_stop(RUN, stop))

    # ------------------------------------------------------------------------------------------------- time

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Let something happen later."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def pass_time(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, and in it what was to happen."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            when, _, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            what()
            self._look()
            if until():
                return
        self.now = max(self.now, end)
        self._look()

    def _look(self) -> None:
        alive = [m for m in self.machines if m.lives(self.now)]
        self.most_alive = max(self.most_alive, len(alive))

    # ------------------------------------------------------------------------------------------------ cloud

    def launch(self, offer: Offer, attempt: int, expires_at: float, keys: str) -> Machine:
        """RunInstances."""
        token = f"{RUN}/{attempt}/{offer.name}"
        for machine in self.machines:
            if machine.token == token and self.now - machine.launched_at < TOKEN_S:
                return machine
        machine = Machine(
            f"i-{len(self.machines) + 1}", RUN, attempt, offer, keys, token, self.now, expires_at
        )
        self.machines.append(machine)
        self._look()
        if self.scenario.dead_man:
            self.at(expires_at, lambda: self.shut_down(machine))
        return machine

    def shut_down(self, machine: Machine, *, reclaimed: bool = False) -> None:
        """Terminate an instance, whoever wants it."""
        if machine.stopping_at is None:
            machine.stopping_at, machine.reclaimed = self.now, reclaimed

    def start_job(self, machine: Machine) -> None:
        """Start the training there, once."""
        if machine.job is not None:
            return
        machine.job = Job(self, machine)
        reclaim = self.scenario.reclaims.get(machine.attempt)
        if reclaim is not None:
            after, notice = reclaim
            self.reclaim(machine, after, notice=notice)
        if machine.attempt in self.scenario.outsider:
            self.at(self.now + self.scenario.outsider[machine.attempt], lambda: self.terminate(machine))

    def terminate(self, machine: Machine) -> None:
        """Terminate an instance from outside: its system shuts the training down."""
        self.shut_down(machine)
        if machine.job is not None:
            machine.job.interrupt("received SIGTERM")

    def reclaim(self, machine: Machine, after: float, *, notice: bool) -> None:
        """Take an instance back; EC2 does so with spot instances only."""
        if machine.offer.market != "spot":
            return
        if notice:
            self.at(self.now + after, lambda: machine.job.interrupt() if machine.job else None)
            after += 120
        self.at(self.now + after, lambda: self.shut_down(machine, reclaimed=True))

    # ------------------------------------------------------------------------------------------- the training

    def manifest(self) -> CheckpointManifest | None:
        """Return the checkpoint that resumes."""
        try:
            body, _ = self.store.read(f"runs/{RUN}/checkpoint/manifest.json")
        except ObjectMissingError:
            return None
        return CheckpointManifest.model_validate_json(body)

    def write_checkpoint(self, attempt: int, epochs: int, seconds: float) -> None:
        """Write a checkpoint's file and manifest."""
        body = f"{epochs} epochs".encode()
        name = f"last-{epochs}.pt"
        self.store.put(f"runs/{RUN}/checkpoint/{name}", body)
        manifest = CheckpointManifest(
            run=RUN, attempt=attempt, training_key=KEY, epochs_completed=epochs, epochs=self.scenario.epochs,
            last=Artifact(name=name, size=len(body), sha256=_sha(body)), seconds=seconds,
        )  # fmt: skip
        self.store.put(f"runs/{RUN}/checkpoint/manifest.json", _json(manifest))

    def last_word(self, attempt: int) -> Heartbeat | None:
        """Return an attempt's heartbeat."""
        key = f"runs/{RUN}/attempts/{attempt}/heartbeat.json"
        found = self.store.objects.get(key)
        try:
            return Heartbeat.model_validate_json(found[0]) if found else None
        except ValidationError:
            return None

    def beat(
        self,
        attempt: int,
        epochs: int,
        state: str = "training",
        message: str | None = None,
        slow: float | None = None,
    ) -> None:
        """Write an attempt's heartbeat."""
        scenario = self.scenario
        slow = scenario.slow if slow is None else slow
        beat = Heartbeat(
            run=RUN, attempt=attempt, time=self.now, pid=1, host="h", boot_id="b", epochs_completed=epochs,
            epochs=scenario.epochs, state=state, message=message,
            seconds_per_epoch=scenario.epoch_s * slow if epochs else None,
        )  # fmt: skip
        body = _json(beat)
        if "heartbeat" in scenario.foreign:
            body = body.replace(b"{", b'{"temperature": {"gpu": 71}, ', 1)
        if UNREADABLE in scenario.foreign:
            body = body.replace(b'"state"', b'"phase"')
        self.store.put(f"runs/{RUN}/attempts/{attempt}/heartbeat.json", body)

    def superseded(self, attempt: int) -> bool:
        """Whether a later attempt trains."""
        return self.store.stat(f"runs/{RUN}/attempts/{attempt + 1}/heartbeat.json") is not None

    def write_result(self, attempt: int) -> None:
        """Write result.json; the model is there."""
        self.store.put(f"runs/{RUN}/result/result.json", _json(result_of(self.scenario, attempt)))

    # -------------------------------------------------------------------------------------------------- drivers

    def driver(self) -> "Actor":
        """Return a new driver, on a machine of its own."""
        actor = Actor(self, len(self.actors) + 1)
        self.actors.append(actor)
        return actor

    def outcome(self) -> str:
        """Return how the run ended, `open` while it has not."""
        found = Journal(self.store).outcome(RUN)
        return found.status if found else "open"

    def play(self, drivers: int = 8) -> None:
        """Let drivers come, one after the other, until the run is done."""
        for _ in range(drivers):
            ended = self.driver().drive_to_end()
            if ended == "done":
                return
            pauses = {"dead": self.scenario.restart_s, "left": 3600.0, "denied": 3600.0}
            self.pass_time(pauses.get(ended, 5.0))
        raise StuckError(f"{drivers} drivers did not end the run")


class Actor:
    """One driver: a real `Controller`, at work in the model world."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.dead = False
        self.role = (world.scenario.roles[number - 1 : number] or ("launcher",))[0]
        self.trace: list[str] = []
        self.steps = 0
        store = DriverStore(self)
        self.cloud = ModelCloud(self) if world.run.is_rented else None
        machine = 0 if world.scenario.same_machine else number
        driver = Lease(
            clock=lambda: world.now, host=f"host{machine}", boot_id=f"boot{machine}", token=f"t{number}",
            pid=DEAD_PID,
        )  # fmt: skip
        journal = Journal(store)
        self.drive = Controller(
            world.run,
            journal,
            driver,
            ModelCpu(self),
            Console(io.StringIO()),
            cloud=self.cloud,
            clock=lambda: world.now,
            sleep=self.sleep,
            detach=world.scenario.detach and number == 1,
            on_done=self.settle,
            cost=lambda _run, seen: cost_of(seen.attempts, seen.now),
            prices=world.prices,
        )

    def settle(self, run: RunRecord, seen: object) -> None:
        """Account for the run, as `Accounting.settle` does: one document, once."""
        del run
        self.drive.store.create(f"runs/{RUN}/cost.json", b"{}")
        self.world.settled += 1
        del seen

    def sleep(self, seconds: float) -> None:
        """Wait, in the model's time."""
        self.check()
        self.world.pass_time(seconds)

    def check(self) -> None:
        """The dead do nothing, and nobody goes on for ever."""
        if self.dead:
            raise KilledError
        self.steps += 1
        if self.steps > 40 * PATIENCE_STEPS:
            raise StuckError("a driver never came to an end")

    def effect(
        self, name: str, act: Callable[[], object], *, lost: Callable[[str], Exception], seconds: float
    ) -> object:
        """Do something to the world, unless a fault is planned for it."""
        self.check()
        self.trace.append(name)
        fault = self.world.scenario.faults.get((self.number, len(self.trace)))
        kind = fault.kind if fault else ""
        if kind == "die-before":
            self.die()
        if kind == "cancel-before":
            self.cancel()
        if kind == "unsent":
            raise lost("no answer")
        if kind == "stall":
            self.stall(fault.steps)
        if kind in {"reclaim", "reclaim-notice"}:
            for machine in self.world.machines:
                if machine.lives(self.world.now):
                    self.world.reclaim(machine, 0, notice=kind == "reclaim-notice")
        self.world.pass_time(seconds)
        answer = act()
        if kind == "die-after":
            self.die()
        if kind == "cancel-after":
            self.cancel()
        if kind == "lost":
            raise lost("the reply was lost")
        return answer

    def die(self) -> None:
        self.dead = True
        self.world.deaths += 1
        raise KilledError

    def cancel(self) -> None:
        """SIGINT: where the loop does not listen for it, the process dies of it."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.die()
        raise EndingSignal(signal.SIGINT)

    def stall(self, steps: int) -> None:
        """Stand still while another driver, who takes this one for dead, works."""
        self.world.stalls += 1
        self.world.pass_time(STALL_S)
        other = self.world.driver()
        if steps == 0:
            other.drive_to_end()
        else:
            other.drive_some(steps)

    def drive_some(self, steps: int) -> None:
        """Take some steps, and stop for good."""
        self.world.deaths += 1
        try:
            for _ in range(steps):
                if self.drive.once() is not None:
                    return
        except KilledError:
            pass

    def drive_to_end(self) -> str:
        """Drive; return `done`, `left` (detached), `cancelled` or `dead`."""
        count, once = 0, self.drive.once

        def counted() -> object:
            nonlocal count
            count += 1
            if count > PATIENCE_STEPS:
                raise StuckError("a driver took steps without an end")
            return once()

        self.drive.once = counted
        try:
            return "left" if self.drive.to_end() is None else "done"
        except KilledError:
            return "dead"
        except InterruptedRunError:
            self.world.deaths += 1
            return "cancelled"
        except LaunchDeniedError:
            self.world.denials += 1
            return "denied"


class ModelCpu:
    """Trains on the driver's machine, and dies with it."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def train(self, run: RunRecord, attempt: object, judge: object) -> tuple[str, str] | None:
        world, number = self.actor.world, attempt.number
        found = world.manifest()
        epochs = found.epochs_completed if found else 0
        world.trainings += 1
        world.beat(number, epochs)
        while epochs < (world.scenario.ends_early or world.scenario.epochs):
            world.epochs_begun[epochs + 1] += 1
            if epochs + 1 == world.scenario.dies_at:
                return "died", "the training process ended by SIGKILL"
            for _ in range(int(world.scenario.epoch_s * world.scenario.cpu_slow // 60)):
                self.actor.sleep(60)
                self._renew(run)
                if world.superseded(number):
                    return "died", "a later attempt is under way"
                if ended := judge(world.last_word(number)):
                    return ended
            epochs += 1
            world.beat(number, epochs, slow=world.scenario.cpu_slow)
            world.epochs_completed[epochs] += 1
            self._effect(f"checkpoint {epochs}", lambda n=epochs: self._checkpoint(number, n))
        body = model_of(number)
        if world.superseded(number):
            return "died", "a later attempt is under way"
        self._effect("result model", lambda: world.store.put(f"runs/{RUN}/result/model.pt", body))
        self._effect("result.json", lambda: world.write_result(number))
        return None

    def _renew(self, run: RunRecord) -> None:
        with contextlib.suppress(StoreUnreachableError):
            self.actor.drive.lease.claim(self.actor.drive.store, run.id)

    def _checkpoint(self, attempt: int, epochs: int) -> None:
        found = self.actor.world.manifest()
        if found is None or (found.attempt, found.epochs_completed) < (attempt, epochs):
            self.actor.world.write_checkpoint(attempt, epochs, 1.0)

    def _effect(self, name: str, act: Callable[[], object]) -> None:
        for _ in range(3):  # the training process sends again what the store did not take
            try:
                self.actor.effect(name, act, lost=StoreUnreachableError, seconds=0.5)
            except StoreUnreachableError:
                continue
            return


class ModelCloud:
    """`orchestrator.run.backend.Cloud` over the model world: what `RentedTraining` does, without AWS and SSH."""

    def __init__(self, actor: Actor) -> None:
        self.actor, self.world = actor, actor.world
        self.keys: set[int] = set()
        self.staged = False

    def _seen(self) -> list[Machine]:
        now, lag = self.world.now, self.world.scenario.lag
        return [
            m
            for m in self.world.machines
            if m.launched_at + lag <= now
            and (m.stopping_at is None or now < m.stopping_at + SHUTDOWN_S + FORGOTTEN_S)
        ]

    def _state(self, machine: Machine) -> str:
        return machine.state(max(machine.launched_at, self.world.now - self.world.scenario.lag))

    def instances(self, run: RunRecord, attempts: object) -> tuple[ObservedInstance, ...]:
        self.actor.check()
        return tuple(
            ObservedInstance(
                m.id,
                m.attempt,
                self._state(m),
                m.reclaimed and self._state(m) in ENDED,
                _host(m),
                m.stopping_at if self._state(m) in ENDED else None,
                shut_down=not m.reclaimed and self._state(m) in ENDED,
            )
            for m in self._seen()
        )

    def leftovers(self, run: RunRecord, attempts: object) -> tuple[str, ...]:
        self.actor.check()
        return tuple(sorted(self.world.groups))

    def prepare(self, run: RunRecord) -> None:
        if not self.staged:
            self.actor.sleep(self.world.scenario.staging_s)
            self.actor.drive.store.put("datasets/f.tar", b"dataset")
            self.staged = True

    def adopt(self, run: RunRecord, attempt: object, host: HostRecord) -> None:
        self._call("CreateSchedule", lambda: self.world.schedules.add(host.instance_id), 0.2)

    def launch(self, run: RunRecord, attempt: object) -> HostRecord | None:
        world, offer = self.world, attempt.offer
        self.keys.add(attempt.number)
        try:
            self._call("CreateSecurityGroup", lambda: world.groups.add("us-east-1/group/sg-1"), 0.3)
            machine = self._call("RunInstances", lambda: self._launched(offer, attempt), 1.0)
            if world.now < T0 + world.scenario.mute_s:
                self.actor.sleep(20.0)
                return None
        except CloudUnreachableError:
            return None
        return _host(machine)

    def _launched(self, offer: Offer, attempt: object) -> Machine:
        world = self.world
        if self.actor.role == "janitor":
            raise LaunchDeniedError("not authorized to perform ec2:RunInstances")
        if offer.market in world.scenario.quota:
            raise RefusedError("the quota is 0", quota=True, limit_vcpus=0)
        if world.now < T0 + world.scenario.crowded.get(offer.market, 0.0):
            raise RefusedError("other instances use the quota up", quota=True)
        if world.scenario.broken_profile:
            raise RefusedError("no such instance profile", for_good="run")
        for place in (offer.zone, offer.market):
            if world.refused[place] > 0:
                world.refused[place] -= 1
                raise RefusedError(f"no capacity in {place}")
        return world.launch(offer, attempt.number, attempt.expires_at, self.actor.drive.lease.name)

    def train(self, run: RunRecord, attempt: object) -> tuple[str, str] | None:
        number = attempt.record.number
        if number not in self.keys:
            return "orphaned", "its SSH keys died with the process that launched it"
        try:
            for name, seconds in (("ssh connect", 2.0), ("ssh set-up", 15.0)):
                self._call(name, lambda: None, seconds)
            machine = self._machine(number)
            if machine is None:
                self.actor.sleep(2.0)
                return None
            self._call("ssh start", lambda: self._start(machine), 1.0)
        except CloudUnreachableError:
            self.actor.sleep(2.0)
            return None
        self._follow(number, 8.0)
        return None

    def _start(self, machine: Machine) -> None:
        if machine.state(self.world.now) == "running":
            self.world.start_job(machine)

    def _machine(self, number: int) -> Machine | None:
        name = self.actor.drive.lease.name
        mine = [m for m in self._seen() if m.attempt == number and m.keys == name]
        return mine[0] if mine else None

    def terminate(self, run: RunRecord, instances: tuple[str, ...]) -> None:
        self._call("TerminateInstances", lambda: self._terminate(instances), 0.5)

    def _terminate(self, instances: tuple[str, ...]) -> None:
        for machine in self.world.machines:
            if machine.id in instances:
                self.world.shut_down(machine)

    def clean_up(self, run: RunRecord, leftovers: tuple[str, ...]) -> None:
        for name in leftovers:
            if any(m.state(self.world.now) != "terminated" for m in self.world.machines):
                self.actor.sleep(1.0)
                continue
            self._call("DeleteSecurityGroup", lambda n=name: self.world.groups.discard(n), 0.3)

    def follow(self, run: RunRecord, attempt: object, seconds: float) -> tuple[str, str] | None:
        number = attempt.record.number
        self._follow(number, seconds)
        failed = any(job.state == "failed" for job in self._jobs(number))
        return ("failed", "the job ended with exit code 1") if failed and self._only_by_ssh(number) else None

    def _jobs(self, number: int) -> list[Job]:
        return [m.job for m in self.world.machines if m.attempt == number and m.job is not None]

    def _only_by_ssh(self, number: int) -> bool:
        """Whether the driver learns of the job's end by SSH, and the store does not say it."""
        return number in self.keys and UNREADABLE in self.world.scenario.foreign

    def _follow(self, number: int, seconds: float) -> None:
        """Pass the time, keeping the lease; come back early when the training has said its last word."""
        end = self.world.now + seconds

        def over() -> bool:
            says = number in self.keys or UNREADABLE not in self.world.scenario.foreign
            return says and any(j.state in {"finished", "failed", "interrupted"} for j in self._jobs(number))

        while self.world.now < end and not over():
            self.actor.check()
            self.world.pass_time(min(60.0, end - self.world.now), until=over)
            try:
                self.actor.drive.lease.claim(self.actor.drive.store, RUN)
            except StoreUnreachableError:
                continue

    def abandon(self, run: RunRecord, attempt: object) -> tuple[str, ...]:
        end = self.world.now + 4.0
        while True:
            live = [m.id for m in self._seen() if m.state(self.world.now) not in ENDED]
            if live:
                self._call("TerminateInstances", lambda ids=tuple(live): self._terminate(ids), 0.2)
                return tuple(live)
            if self.world.now >= end:
                return ()
            self.actor.sleep(0.2)

    def close(self) -> None:
        """Nothing to let go of."""

    def _call(self, name: str, act: Callable[[], object], seconds: float) -> object:
        return self.actor.effect(name, act, lost=CloudUnreachableError, seconds=seconds)


def _host(machine: Machine) -> HostRecord:
    return HostRecord(
        instance_id=machine.id, address="192.0.2.1", launched_at=machine.launched_at,
        market=machine.offer.market or "spot", zone=machine.offer.zone or "us-east-1a",
        region=machine.offer.region or "us-east-1", volume_gib=60,
    )  # fmt: skip


def gpu_offer(zone: str, market: str = "spot", price: float = 0.2) -> Offer:
    """Return an offer of the model cloud."""
    return Offer("ec2", "g4dn.xlarge", "us-east-1", zone, market, price, "test", None, 4, 16.0, 0.526)


def run_record(scenario: Scenario) -> RunRecord:
    """Return the run that a scenario is about."""
    seconds = scenario.epochs * scenario.epoch_s + 60
    takes = Interval(seconds * 0.8, seconds, seconds * 1.3)
    offers = [cpu_offer(2)] if scenario.cpu else []
    if not scenario.cpu or scenario.on_overrun == "escalate":
        offers += [
            gpu_offer("us-east-1a"),
            gpu_offer("us-east-1b"),
            gpu_offer("us-east-1a", "on-demand", 0.526),
        ]
    return RunRecord(
        id=RUN,
        training_key=KEY,
        fingerprint="f" * 64,
        version=VERSION,
        created_at=T0,
        deadline_at=T0 + scenario.deadline_s,
        max_cost_usd=scenario.max_cost_usd,
        on_overrun=scenario.on_overrun,
        why="because",
        candidates=tuple(Candidate(offer=o, seconds=takes) for o in offers),
        estimate=takes,
        spec=TrainingSpec(
            run=RUN,
            attempt=1,
            training_key=KEY,
            task=Task.DETECT,
            dataset=DatasetRef(fingerprint="f" * 64, archive="datasets/f.tar"),
            model="yolov8n.yaml",
            epochs=scenario.epochs,
            image_size=160,
            batch=16,
            seed=0,
            output="/out",
        ),
    )


def model_of(attempt: int) -> bytes:
    """Return the model that an attempt would make: each a different one."""
    return f"model of attempt {attempt}".encode()


def result_of(scenario: Scenario, attempt: int) -> TrainingResult:
    """Return what an attempt says it made."""
    body = model_of(attempt)
    return TrainingResult(
        run=RUN,
        attempt=attempt,
        training_key=KEY,
        fingerprint="f" * 64,
        task=Task.DETECT,
        epochs=scenario.epochs,
        epochs_completed=scenario.ends_early or scenario.epochs,
        model=Artifact(name="model.pt", size=len(body), sha256=_sha(body)),
        metrics={"map50": 0.5},
        timings=Timings(),
        environment={},
    )


def cost_of(attempts: object, now: float) -> float:
    """Return what attempts cost, by the product's own reckoning."""
    return spent([use_of(a, now=now) for a in attempts if a.host is not None])


def _json(document: object) -> bytes:
    return document.model_dump_json(by_alias=True).encode()


def _sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# ------------------------------------------------------------------------------------------------- the promises


def broken_promises(world: World, *, status: str | None = "published") -> list[str]:
    """Return which promises a case broke, once its last driver has ended.

    Args:
        world: After `play`.
        status: How the run had to end; None where several ends are right.
    """
    scenario, store, journal = world.scenario, world.store, Journal(world.store)
    documents = journal.read(RUN)
    broken = []

    alive = [m.id for m in world.machines if m.lives(world.now)]
    if alive:
        broken.append(f"leak: {alive} still run when all drivers have ended")
    for machine in world.machines:
        end = machine.stopping_at if machine.stopping_at is not None else world.now
        gap = _without_driver(world)
        if end > machine.expires_at + 30 + gap:
            broken.append(f"leak: {machine.id} ran {end - machine.expires_at:.0f} s past its end")
    for attempt in documents.attempts:
        here = attempt.record.offer.where == "cpu" and attempt.end is not None
        if (
            here
            and attempt.end.at > attempt.record.expires_at + 90 + _without_driver(world)
            and not world.stalls
        ):
            broken.append("time: a training on the CPU ran past its deadline")
    if world.groups:
        broken.append(f"leftovers: {sorted(world.groups)}")

    if documents.outcome is None:
        broken.append("open: the run has no outcome")
    elif status is not None and documents.outcome.status != status:
        broken.append(
            f"outcome: {documents.outcome.status} ({documents.outcome.message}), it had to be {status}"
        )
    if any(a.end is None for a in documents.attempts):
        broken.append("open: an attempt was never closed")
    if not world.settled:
        broken.append("cost: nobody settled the run")

    status = status or (documents.outcome.status if documents.outcome else None)
    manifest = publish.manifest_of(store, VERSION)
    times = store.written[model_key(VERSION, "manifest.json")]
    listed = [e.version for e in publish.versions(store)]
    if status == "published":
        if times != 1 or listed != [VERSION]:
            broken.append(f"publish: the manifest was written {times} times, and the index lists {listed}")
        if documents.collected is None:
            broken.append("publish: what was published was never verified")
        if world.rented_while_publishing and not world.stalls:
            broken.append("cost: an instance was kept while the model was published")
        alias = publish.alias_of(store, STABLE)
        if alias is None or alias.version != VERSION:
            broken.append("publish: stable does not mean the version")
    elif times:
        broken.append("publish: a run that was not to publish did")
    if manifest is not None:
        body = store.objects.get(model_key(VERSION), (b"", "", 0))[0]
        if _sha(body) != manifest.model.sha256:
            broken.append("publish: the published model is not the one its manifest names")
        if not any(_sha(model_of(n)) == manifest.model.sha256 for n in range(1, 20)):
            broken.append("publish: nobody trained the published model")

    interruptions = max(0, world.trainings - 1) + world.stalls
    again = sum(world.epochs_begun.values()) - scenario.epochs
    if again > interruptions + world.lost_uploads:
        broken.append(f"lost: {again} epochs were begun again after {interruptions} interruptions")

    if not world.stalls and world.most_alive > 1:
        broken.append(f"surplus: {world.most_alive} instances lived at once")
    reasons = Counter(a.end.reason for a in documents.attempts if a.end is not None)
    lives = world.deaths + world.stalls + reasons["reclaimed"] + len(scenario.silent) + bool(scenario.mute_s)
    lives += len(scenario.outsider)
    lives += (
        reasons["overrun"]
        + reasons["moved"]
        + reasons["expired"]
        + world.denials
        + bool(scenario.dies_at)
        + bool(scenario.dies_at and scenario.deaf)  # an epoch that the store missed counts as progress later
        + 2 * bool(scenario.crowded)
    )
    # A crowded quota is asked for again every 20 minutes; two of these are in `lives`.
    asked_again = sum(max(0, int(until // REFUSAL_LASTS_S) - 1) for until in scenario.crowded.values())
    refusals = asked_again + sum(scenario.refused.values()) + len(scenario.quota)
    if len(documents.attempts) > 1 + lives + refusals:
        broken.append(f"attempts: {len(documents.attempts)}")
    if len(world.machines) > 1 + lives:
        broken.append(f"surplus: {len(world.machines)} instances for {lives} deaths and reclaims")

    alike = Counter()
    best = 0
    for a in documents.attempts:
        epochs = a.heartbeat.epochs_completed if a.heartbeat is not None else 0
        if epochs > best:
            alike, best = Counter(), epochs
        if a.end is not None and a.end.reason in {"died", "failed", "expired"} and a.host is not None:
            alike[a.end.reason, a.heartbeat is None or re.sub(r"\d+", "", a.end.message)] += 1
    if any(n > 2 for n in alike.values()):
        broken.append(f"repeats: {dict(alike)} without progress")

    real = sum(
        (m.stopping_at if m.stopping_at is not None else world.now) - m.launched_at for m in world.machines
    )
    booked = {a.host.instance_id: a for a in documents.attempts if a.host is not None}
    unbooked = [m.id for m in world.machines if m.id not in booked]
    if unbooked and not world.stalls:
        broken.append(f"cost: {unbooked} are in no account")
    accounted = sum(ended_of(a, world.now)[0] - a.host.launched_at for a in documents.attempts if a.host)
    usd = sum(
        ((m.stopping_at or world.now) - m.launched_at) / 3600 * m.offer.usd_per_hour
        for m in world.machines
        if not (m.reclaimed and m.stopping_at - m.launched_at < 3600)
    )
    if not world.stalls and usd > scenario.max_cost_usd * 1.01 + _without_driver(world) / 3600:
        broken.append(f"money: ${usd:.2f} of ${scenario.max_cost_usd:.2f} were spent")
    if not world.stalls and accounted < real - 5:
        broken.append(f"cost: {accounted:.0f} of {real:.0f} seconds were accounted for")
    return broken


def _without_driver(world: World) -> float:
    """Return for how long nobody may have looked: then only the dead-man timer could end an instance."""
    if world.scenario.dead_man:
        return 0.0
    gaps = world.scenario.restart_s * world.deaths + STALL_S * 2 * world.stalls
    return gaps + (3600 if world.scenario.detach else 0)
