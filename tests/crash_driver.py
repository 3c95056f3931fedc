"""A driver of the crash sweep: a real `Controller` whose effects can fail, in the model world."""

import contextlib
import io
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from crash_scenario import (
    DEAD_PID,
    FORGOTTEN_S,
    PATIENCE_STEPS,
    RUN,
    SHUTDOWN_S,
    STALL_S,
    T0,
    UNREADABLE,
    KilledError,
    StuckError,
    cost_of,
    model_of,
)
from crash_store import DriverStore

from gpu_offload.infra.aws.instance_state import ENDED
from gpu_offload.infra.store.errors import StoreUnreachableError
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import (
    CloudUnreachableError,
    InterruptedRunError,
    LaunchDeniedError,
    RefusedError,
)
from gpu_offload.orchestrator.run.controller import Controller
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.observation import Observation, ObservedInstance
from gpu_offload.orchestrator.run.record import HostRecord, RunRecord
from gpu_offload.orchestrator.run.signals import EndingSignal

if TYPE_CHECKING:
    from crash_world import Job, Machine, World


class Actor:
    """One driver: a real `Controller`, at work in the model world."""

    def __init__(self, world: "World", number: int) -> None:
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
            self,
            cloud=self.cloud,
            clock=lambda: world.now,
            sleep=self.sleep,
            detach=world.scenario.detach and number == 1,
            prices=world.prices,
        )

    def spent(self, run: RunRecord, seen: Observation) -> float:
        """Return what the run has cost, as `Accounting.spent` does."""
        del run
        return cost_of(seen.attempts, seen.now)

    def total(self, run: RunRecord, seen: object) -> float:
        """Return nothing, where `Accounting.total` returns the bill's sum: no step depends on it."""
        del run, seen
        return 0.0

    def settle(self, run: RunRecord, seen: object) -> None:
        """Account for the run, as `Accounting.settle` does: one document, once."""
        del run
        self.drive.journal.store.create(f"runs/{RUN}/cost.json", b"{}")
        self.world.settled += 1
        del seen

    def sleep(self, seconds: float) -> None:
        """Wait, in the model's time."""
        self.check()
        self.world.pass_time(seconds)

    def check(self) -> None:
        """A dead driver does nothing, and no driver goes on for ever."""
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
            self.actor.drive.lease.claim(self.actor.drive.journal.store, run.id)

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

    def _seen(self) -> list["Machine"]:
        now, lag = self.world.now, self.world.scenario.lag
        return [
            m
            for m in self.world.machines
            if m.launched_at + lag <= now
            and (m.stopping_at is None or now < m.stopping_at + SHUTDOWN_S + FORGOTTEN_S)
        ]

    def _state(self, machine: "Machine") -> str:
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
            self.actor.drive.journal.store.put("datasets/f.tar", b"dataset")
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

    def _launched(self, offer: Offer, attempt: object) -> "Machine":
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

    def _start(self, machine: "Machine") -> None:
        if machine.state(self.world.now) == "running":
            self.world.start_job(machine)

    def _machine(self, number: int) -> "Machine | None":
        name = self.actor.drive.lease.name
        mine = [m for m in self._seen() if m.attempt == number and m.keys == name]
        return mine[0] if mine else None

    def terminate(self, instances: tuple[str, ...]) -> None:
        self._call("TerminateInstances", lambda: self._terminate(instances), 0.5)

    def _terminate(self, instances: tuple[str, ...]) -> None:
        for machine in self.world.machines:
            if machine.id in instances:
                self.world.shut_down(machine)

    def clean_up(self, leftovers: tuple[str, ...]) -> None:
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

    def _jobs(self, number: int) -> list["Job"]:
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
                self.actor.drive.lease.claim(self.actor.drive.journal.store, RUN)
            except StoreUnreachableError:
                continue

    def keeps_nothing(self, attempt: object) -> bool:
        return False

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


def _host(machine: "Machine") -> HostRecord:
    return HostRecord(
        instance_id=machine.id, address="192.0.2.1", launched_at=machine.launched_at,
        market=machine.offer.market or "spot", zone=machine.offer.zone or "us-east-1a",
        region=machine.offer.region or "us-east-1", volume_gib=60,
    )  # fmt: skip
