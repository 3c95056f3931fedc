"""The faults of a drill, each with the recovery that must follow."""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.orchestrator.drill.command import Command, DrillError
from gpu_offload.orchestrator.drill.project import DrillPace
from gpu_offload.orchestrator.drill.stage import DrillStage


@dataclass(frozen=True, slots=True)
class Recovery:
    """The result: `seconds` from the fault to the recovery, which each fault defines."""

    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DrillFault:
    """One fault of a drill."""

    name: str
    happens: Callable[[DrillStage], Recovery]
    pace: DrillPace = field(default_factory=DrillPace)


def _survived(stage: DrillStage, *lines: str, until_published: bool = False) -> Recovery:
    """Inject faults into a command, which must publish the model without help."""
    for line in lines:
        stage.cloud.inject(line)
    command = stage.train()
    stage.run_to_end(command)
    struck = stage.struck_at()
    if struck is None:
        raise DrillError("the fault never struck")
    run = stage.run()
    attempts = stage.journal.attempts(run.id) if run else ()
    ends = [a.end for a in attempts if a.end is not None and a.end.reason != "finished"]
    if not ends:
        published = stage.published_at()
        if until_published and published:
            return Recovery("driver and instance waited for it", published - struck)
        return Recovery("the same instance finished it", _back(stage, command, struck) - struck)
    last = attempts[-1]
    reasons = ", ".join(end.reason for end in ends)
    return Recovery(
        f"{reasons}; attempt {last.record.number} was opened after {last.record.created_at - struck:.1f} s and finished it",
        stage.trained_at(last.record.number) - struck,
    )


def _back(stage: DrillStage, command: Command, struck: float) -> float:
    """Return when the driver observed the resumed training, Unix seconds."""
    return command.epoch_after(struck) or stage.published_at() or time.time()


def _cancelled(stage: DrillStage, moment: str, condition: Callable[[], bool], *lines: str) -> Recovery:
    """Send SIGINT at a given moment, as a cancelled workflow does; the same command must then resume."""
    for line in lines:
        stage.cloud.inject(line)
    command = stage.train()
    stage.until(moment, condition, command)
    signalled_at = command.tell(signal.SIGINT)
    code = command.wait(stage.patience)
    if code not in {0, EXIT_RESUMABLE}:
        raise DrillError(f"SIGINT {moment} gave exit code {code}: {command.last_words()}")
    stage.until("every instance is ended", lambda: not stage.cloud.leftovers().instances)
    seconds = stage.quiet_at(signalled_at) - signalled_at
    # GitHub kills a cancelled step after 10 s.
    if seconds > 5:
        raise DrillError(f"the terminate call came {seconds:.1f} s after SIGINT; there are no more than 10 s")
    if code == 0:
        return Recovery("too late to cancel: it published and ended well", seconds)
    stage.run_to_end(stage.train())
    return Recovery("all terminated; the same command carried on and published", seconds)


def _runner_killed(stage: DrillStage) -> Recovery:
    """Kill the driver; there is no driver until the scheduled `tend` runs, on another machine."""
    command = stage.train()
    stage.until("an epoch is trained", stage.has_trained(1), command)
    killed = time.time()
    command.end()
    stage.until("the instance has finished by itself", stage.result_is_there)
    stage.run_to_end(stage.start("tend", elsewhere=True))
    return Recovery("the instance finished alone; `offload tend` published it", time.time() - killed)


def _ssh_dies(stage: DrillStage) -> Recovery:
    """Kill the SSH server and every session of it: the training needs neither."""
    command = stage.train()
    stage.until("an epoch is trained", stage.has_trained(1), command)
    struck = time.time()
    for instance in stage.cloud.leftovers().instances:
        stage.cloud.faults.kill_ssh(instance)
    stage.run_to_end(command)
    run = stage.run()
    if run is None or len(stage.journal.attempts(run.id)) != 1:
        raise DrillError("another instance was rented, and the first one was healthy")
    return Recovery("the driver followed it through the store", _back(stage, command, struck) - struck)


def _token_expires(stage: DrillStage) -> Recovery:
    """Let the driver's credentials expire without renewal; the next driver has new ones."""
    command = stage.train()
    stage.until("an epoch is trained", stage.has_trained(1), command)
    struck = time.time()
    stage.cloud.faults.expire_credentials("runner", OUTAGE_S)
    with contextlib.suppress(DrillError):
        command.wait(OUTAGE_S)
    code = command.process.poll()
    stage.until("the instance has finished by itself", stage.result_is_there)
    if code is None:
        stage.run_to_end(command)
        return Recovery("the driver went on with fresh ones", time.time() - struck)
    if not code:
        return Recovery("the driver never needed them", time.time() - struck)
    stage.run_to_end(stage.start("tend", elsewhere=True))
    how = "the driver said so and ended; the instance finished alone; `tend` published it"
    return Recovery(how, time.time() - struck)


NOTICE_S, OUTAGE_S, CUT_S = 10.0, 20.0, 12.0
"""Scaled: AWS gives 120 s of notice, and the promise is for a store that is away for 300 s."""

FAULTS: tuple[DrillFault, ...] = (
    DrillFault(
        "cancel-while-launching",
        lambda s: _cancelled(
            s,
            "while launching",
            lambda: s.cloud.calls["ec2.RunInstances"] > 0,
            "api:RunInstances:delay=2:times=1",
        ),
    ),
    DrillFault(
        "cancel-while-starting",
        lambda s: _cancelled(
            s,
            "while starting",
            lambda: any(e.kind == "state" and e.text == "running" for e in s.cloud.events),
        ),
    ),
    DrillFault("cancel-while-training", lambda s: _cancelled(s, "while training", s.has_trained(1))),
    DrillFault("cancel-while-publishing", lambda s: _cancelled(s, "while publishing", s.result_is_there)),
    DrillFault("runner-killed", _runner_killed),
    DrillFault(
        "reclaim-with-notice",
        lambda s: _survived(s, f"instance:reclaim:notice={NOTICE_S}:after=epoch=2"),
        DrillPace(epochs=40, real=True),
    ),
    DrillFault("reclaim-without-notice", lambda s: _survived(s, "instance:reclaim:no-notice:after=epoch=2")),
    DrillFault(
        "no-capacity", lambda s: _survived(s, "api:RunInstances:error=InsufficientInstanceCapacity:times=2")
    ),
    DrillFault("network-cut", lambda s: _survived(s, f"network:cut:heal={CUT_S}:after=epoch=1")),
    DrillFault("dead-ssh", _ssh_dies),
    DrillFault("expired-token", _token_expires),
    DrillFault("full-disk", lambda s: _survived(s, "instance:full-disk:after=epoch=2")),
    DrillFault(
        "store-unreachable",
        lambda s: _survived(s, f"store:unreachable:for={OUTAGE_S}:after=epoch=1", until_published=True),
    ),
    DrillFault("lost-launch-reply", lambda s: _survived(s, "api:RunInstances:lost-reply:times=1")),
)
"""Every fault, in the order of a run."""
