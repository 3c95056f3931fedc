"""A cloud, a store and a clock that exist in memory only: what the crash sweep drives real drivers through.

Everything between a run's journal and its outcome is the product's own: `Controller`, `Journal`, `Lease`, the registry,
`next_step`. It models what is outside: time, EC2 (tokens, lag, vanishing, refusals, reclaims), an instance that
trains and writes to the store as `remote_job` does, and SSH. Every effect of a driver passes `World.effect`, where
it can be killed before or after it, lose the reply, or stand still while another driver works.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from crash_driver import Actor
from crash_scenario import (
    BEAT_S,
    BOOT_S,
    KEY,
    POWER_OFF_S,
    RUN,
    SHUTDOWN_S,
    T0,
    TOKEN_S,
    UNREADABLE,
    Scenario,
    StuckError,
    json_of,
    model_of,
    result_of,
    run_record,
    sha_of,
)
from crash_store import MemoryStore
from pydantic import ValidationError

from gpu_offload.infra.store.errors import ObjectMissingError
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import StopRequest
from gpu_offload.remote_job.result import Artifact, CheckpointManifest, Heartbeat


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
        """Terminate an instance, whichever driver asks."""
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
            last=Artifact(name=name, size=len(body), sha256=sha_of(body)), seconds=seconds,
        )  # fmt: skip
        self.store.put(f"runs/{RUN}/checkpoint/manifest.json", json_of(manifest))

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
        body = json_of(beat)
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
        self.store.put(f"runs/{RUN}/result/result.json", json_of(result_of(self.scenario, attempt)))

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
