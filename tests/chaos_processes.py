"""One round of chaos with real processes: drivers on the simulated cloud, killed and misled, judged from outside."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from leak_case import STORE, train_project

from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.call import CallDecision
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.manifest import STABLE, model_key
from gpu_offload.orchestrator.run.accounting import read_bill
from gpu_offload.orchestrator.run.attempt_use import ended_of
from gpu_offload.orchestrator.run.journal import Journal

DRIVER = Path(__file__).with_name("chaos_driver.py")
DRIVER_LIMIT_S = 150.0
MAX_COST_USD = 1.0
CALLS = 130
"""About how many calls a command sends."""

COMMANDS = (("train", "--on", "ec2"),) * 4 + (
    ("train", "--on", "ec2", "--detach"),
    ("tend",),
    ("tend",),
    ("stop",),
)
ENDINGS = (signal.SIGKILL,) * 5 + (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SKEWS = (0, 0, 3600, -3600, 900, -200)
FAULTS = (
    "api:RunInstances:lost-reply:times=1",
    "api:RunInstances:error=InsufficientInstanceCapacity:times=1",
    "api:RunInstances:error=UnauthorizedOperation:times=1",
    "api:RunInstances:error=InternalError:times=1",
    "api:DescribeInstances:error=RequestLimitExceeded:times=3",
    "api:DescribeInstances:delay=2s:times=2",
    "api:TerminateInstances:lost-reply:times=1",
    "api:TerminateInstances:error=InternalError:times=2",
    "api:DeleteSecurityGroup:error=DependencyViolation:times=2",
    "api:PutObject:lost-reply:times=2",
    "api:PutObject:error=SlowDown:times=3",
    "api:GetObject:error=InternalError:times=2",
    "store:unreachable:for=4s:after=3s",
    "network:cut:heal=3s:after=heartbeat",
    "instance:reclaim:notice=2s:after=heartbeat",
    "instance:reclaim:no-notice:after=epoch=1",
    "instance:reclaim:no-notice:after=running",
    "token:expire:who=instance:after=2s",
    "market:rise=4:for=20s:after=heartbeat",
)

TRACED = '''
import time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    """Note in a file outside when each epoch begins."""
    model = context.output / "model.bin"
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        with Path(TRACE).open("a") as trace:
            trace.write(f"{context.spec.attempt} {epoch}\\n")
        until = time.monotonic() + PACE
        while time.monotonic() < until:
            if context.interrupted():
                return None
            time.sleep(0.02)
        context.progress(epoch=epoch, batch=1, batches=1)
        context.epoch(epoch, metrics={"score": epoch / context.spec.epochs}, losses={"loss": 1 / epoch})
        model.write_text(str(epoch))
        context.checkpoint(model, epochs_completed=epoch)
    return Trained(model, {"score": 1.0})
'''


@dataclass
class Plan:
    """What befalls one driver: the call at which it gets a signal, before that is done or after, and its clock."""

    command: tuple[str, ...]
    ending: signal.Signals | None
    at_call: int
    done_first: bool
    skew: int
    beside: tuple[str, ...] | None = None
    """A second command that starts at the same time, with a true clock and no signal."""


@dataclass
class Round:
    """What one round was and came to."""

    seed: int
    broken: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    told: str = ""


class ChaosCloud(SimulatedCloud):
    """A simulated cloud that signals the driver at one of its calls."""

    process: subprocess.Popen | None = None
    plan: Plan | None = None
    called = 0
    signalled = False

    def before(self, call):
        if self.identities.instance_of(call.access_key) is not None or self.process is None:
            return super().before(call)
        self.called += 1
        plan = self.plan
        if plan and plan.ending and not self.signalled and self.called == plan.at_call:
            self.signalled = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, plan.ending)
            if plan.ending is signal.SIGKILL:
                self.process.wait(60)
                if not plan.done_first:
                    return CallDecision(drop=True)
        return super().before(call)


def play_round(seed: int) -> Round:
    """Play one round to its end and judge it. The seed decides what happens; when exactly is up to the machine."""
    dice, played = random.Random(seed), Round(seed)
    lag = dice.choice([0.1, 0.5, 3.0, 8.0])
    epochs = dice.randint(2, 4)
    environment = dict(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        ChaosCloud(Behaviour(lag_seconds=lag, seed=seed, vanish_seconds=3600.0)) as cloud,
    ):
        folder, trace = Path(name), Path(name) / "trace"
        train_project(folder, epochs=epochs, extra=f"[limits]\nmax-cost-usd = {MAX_COST_USD}\n")
        pace = dice.choice([0.05, 0.3, 1.0])
        (folder / "mine.py").write_text(f"TRACE = {str(trace)!r}\nPACE = {pace}\n" + TRACED)
        os.environ |= cloud.environment()
        try:
            drivers = [_plan(dice) for _ in range(dice.randint(1, 4))]
            for plan in drivers:
                for fault in dice.sample(FAULTS, dice.choice([0, 0, 1, 2])):
                    cloud.inject(fault)
                    played.counts["faults"] += 1
                _drive(cloud, folder, plan, played, lag)
            cloud.faults.book.forget()
            _finish(cloud, folder, played, lag, dice)
            cloud.settle()
            played.broken += broken_promises(cloud, trace, epochs)
            played.counts["instances"] += len(lives_of(cloud))
        finally:
            os.environ.clear()
            os.environ.update(environment)
    return played


def _plan(dice: random.Random) -> Plan:
    ending = dice.choice(ENDINGS) if dice.random() < 0.8 else None
    return Plan(
        dice.choice(COMMANDS),
        ending,
        dice.randint(1, CALLS),
        dice.random() < 0.5,
        dice.choice(SKEWS),
        dice.choice(COMMANDS) if dice.random() < 0.35 else None,
    )


def _drive(cloud: ChaosCloud, folder: Path, plan: Plan, played: Round, lag: float) -> int:
    """Run one command, or two at once, as processes until they end; return the first one's exit code."""
    played.told += f"{plan}\n"
    cloud.plan, cloud.called, cloud.signalled = plan, 0, False
    process = _start(folder, plan.command, plan.skew, lag)
    second = _start(folder, plan.beside, 0, lag) if plan.beside else None
    cloud.process = process
    code = _wait(process, plan.command, played)
    cloud.process = None
    played.counts[f"{signal.Signals(plan.ending).name}" if cloud.signalled else "undisturbed"] += 1
    if second and plan.beside:
        _wait(second, plan.beside, played)
        played.counts["at once"] += 1
    return code


def _start(folder: Path, command: tuple[str, ...], skew: int, lag: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", str(DRIVER), *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"CHAOS_SKEW": str(skew), "CHAOS_VISIBLE": str(lag + 6)},
    )


def _wait(process: subprocess.Popen, command: tuple[str, ...], played: Round) -> int:
    """Wait until a command ends; one that takes too long is killed, and counts as broken."""
    played.counts["drivers"] += 1
    try:
        said, _ = process.communicate(timeout=DRIVER_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        played.broken.append(f"stuck: {command} after {DRIVER_LIMIT_S:.0f} s")
    if "Traceback" in said:
        played.broken.append(f"traceback: {command}: {said[said.index('Traceback') :][-600:]}")
    played.told += f"$ {' '.join(command)}\n{said}\n-> {process.returncode}\n"
    return process.returncode


def _finish(cloud: ChaosCloud, folder: Path, played: Round, lag: float, dice: random.Random) -> None:
    """Let undisturbed drivers end what is open: the training must be published, and everything closed."""
    calm = [("tend",)] * dice.randint(0, 1) + [("train", "--on", "ec2")] * 2 + [("tend",)]
    codes = [_drive(cloud, folder, Plan(command, None, 0, False, 0), played, lag) for command in calm]
    if codes[-2:] != [0, 0]:
        played.broken.append(f"ending: undisturbed commands ended with {codes}")


def broken_promises(cloud: ChaosCloud, trace: Path, epochs: int) -> list[str]:
    """Judge a round by what is outside of the drivers: cloud, bucket, traces of epochs, bills."""
    broken, store = [], open_store(STORE)
    if left := cloud.leftovers():
        broken.append(f"left: {left}")
    listed = publish.versions(store)
    if len(listed) != 1:
        broken.append(f"publish: {len(listed)} versions are listed")
    for entry in listed:
        manifest = publish.manifest_of(store, entry.version)
        try:
            store.download(
                model_key(entry.version, manifest.model.name),
                trace.with_name("published"),
                size=manifest.model.size,
                sha256=manifest.model.sha256,
            )
        except StoreError as error:
            broken.append(f"publish: {error}")
        alias = alias_of(store, STABLE)
        if alias is None or alias.version != entry.version:
            broken.append("publish: stable does not mean it")
    lives = lives_of(cloud)
    broken += bill_faults(store, lives)
    begun = (
        Counter(line.split()[1] for line in trace.read_text().splitlines()) if trace.exists() else Counter()
    )
    if set(begun) != {str(n) for n in range(1, epochs + 1)}:
        broken.append(f"lost: the epochs {sorted(begun)} of {epochs} were trained")
    if sum(begun.values()) - epochs > max(0, len(lives) - 1):
        broken.append(
            f"lost: {sum(begun.values())} epochs were begun for {epochs}, on {len(lives)} instances"
        )
    spans = sorted(lives.values())
    if any(ends > begins + 1 for (_, ends, _), (begins, _, _) in itertools.pairwise(spans)):
        broken.append(f"surplus: two instances lived at once: {spans}")
    return broken


def lives_of(cloud: ChaosCloud) -> dict[str, tuple[float, float, bool]]:
    """Return when each instance began and ceased to cost money, and whether EC2 took it back."""
    found: dict[str, tuple[float, float, bool]] = {}
    for event in cloud.events:
        if event.kind != "state":
            continue
        if event.text.startswith("pending"):
            found[event.subject] = event.time, time.time(), False
        elif event.text.startswith("shutting-down"):
            began, _, _ = found[event.subject]
            found[event.subject] = began, event.time, "Server.Spot" in event.text
    return found


def bill_faults(store, lives: dict[str, tuple[float, float, bool]]) -> list[str]:
    broken, journal, booked = [], Journal(store), {}
    for run in journal.run_ids():
        if journal.outcome(run) is None:
            broken.append(f"open: run {run} has no outcome")
        bill = read_bill(store, run)
        if bill is None:
            broken.append(f"bill: run {run} has none")
        elif float(bill.total) > MAX_COST_USD:
            broken.append(f"money: run {run} cost ${bill.total}")
        written = json.loads(store.read(f"runs/{run}/cost.json")[0])["instances"] if bill else {}
        for attempt in journal.attempts(run):
            if attempt.end is None:
                broken.append(f"open: attempt {attempt.record.number} of {run}")
            if attempt.host is None:
                continue
            name, (ended, by_cloud) = attempt.host.instance_id, ended_of(attempt, time.time())
            booked[name] = attempt
            if name not in lives:
                broken.append(f"bill: {name} never lived")
                continue
            began, ends, reclaimed = lives[name]
            if abs((ended - attempt.host.launched_at) - (ends - began)) > 3:
                broken.append(
                    f"bill: {name} lived {ends - began:.1f} s, billed are {ended - attempt.host.launched_at:.1f} s"
                )
            if by_cloud and not reclaimed:
                broken.append(f"bill: {name} is free, and EC2 did not take it")
            if abs(written.get(name, 0.0) - ended) > 1:
                broken.append(f"bill: {run}'s says {written.get(name)} for {name}, the journal {ended}")
    if missing := set(lives) - set(booked):
        broken.append(f"bill: {sorted(missing)} are in no journal")
    return broken
