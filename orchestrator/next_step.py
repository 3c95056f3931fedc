"""What to do next for a run: a pure function of the journal and of what was seen just now.

There is no recovery code. The first start, a re-run, a run that another machine carries on and the sweep all
ask this one question, over and over, until the answer is Done.
"""

from dataclasses import dataclass

from gpu_offload.orchestrator.ladder import (
    fits,
    fitting,
    fresh_refusals,
    goes_to_its_limit,
    moving_to_spot,
    overrun,
    waiting_for_spot,
)
from gpu_offload.orchestrator.offers import Offer
from gpu_offload.orchestrator.run import (
    AttemptEnd,
    EndReason,
    HostRecord,
    Outcome,
    OutcomeStatus,
    RunRecord,
)
from gpu_offload.orchestrator.seen import AttemptSeen, InstanceSeen, InstanceState, Seen

__all__ = [
    "MOST_PATIENT_S",
    "AttemptSeen",
    "CleanUp",
    "CloseAttempt",
    "Collect",
    "Done",
    "Finish",
    "InstanceSeen",
    "InstanceState",
    "Launch",
    "OpenAttempt",
    "Publish",
    "RecordHost",
    "Seen",
    "Step",
    "Terminate",
    "Train",
    "Wait",
    "next_step",
]

HEARTBEAT_LOST_S = 600.0
"""A running instance that says nothing for this long is given up: it uploads every 15 s, and a store that is
away for five minutes must not cost a training."""

START_LIMIT_S = 1200.0
"""From launch to the first heartbeat: boot, set-up and the dataset's download."""

LAUNCH_LIMIT_S = 300.0
"""How long a launch may be repeated under its token. Past it the token could start a second instance."""

VISIBLE_S = 30.0
"""So long may an instance that was launched be missing from what EC2 describes."""

POWER_OFF_S = 600.0
"""An instance whose job has ended powers itself off after this (`infra.instance_job.JobOptions`)."""

START_TRIES = 2
"""So many instances in a row may fail to become ready or to start the training: a broken one is replaced once."""

WATCH_S = 240.0
"""Between two looks at a training on an instance. Whoever follows it comes back at once when it ends or falls
silent, so this only bounds what asking costs: 15 times an hour."""

TRAINING = "the instance is training"
STARTING_POLL_S = 1.0
ENDING_POLL_S = 3.0
MOST_PATIENT_S = 60.0


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """Journal an attempt."""

    number: int
    offer: Offer
    expires_at: float


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask for the instance of an attempt; harmless to repeat."""

    number: int


@dataclass(frozen=True, slots=True)
class RecordHost:
    """Journal the instance of an attempt whose launch nobody could journal: it has to be paid, too."""

    number: int
    host: HostRecord


@dataclass(frozen=True, slots=True)
class Train:
    """See that the attempt's training runs: to its end here, started and left running on an instance."""

    number: int


@dataclass(frozen=True, slots=True)
class CloseAttempt:
    """Journal how an attempt ended; `at` is when its instance did, where that is known, in Unix seconds."""

    number: int
    reason: EndReason
    message: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Collect:
    """Read the staged result back and verify it."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Make the collected model a version."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Terminate these instances."""

    instances: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Remove what the run leaves beside instances."""

    leftovers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for now."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Journal how the run ended."""

    status: OutcomeStatus
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """The run is over and nothing of it is left."""

    outcome: Outcome


Step = (
    OpenAttempt
    | Launch
    | RecordHost
    | Train
    | CloseAttempt
    | Collect
    | Publish
    | Terminate
    | CleanUp
    | Wait
    | Finish
    | Done
)


def next_step(run: RunRecord, seen: Seen) -> Step:
    """Decide the next step of a run. Total: every state of the journal and of the cloud has an answer."""
    if seen.outcome is not None:
        return _clear(seen, "the run is over") or Done(seen.outcome)
    if seen.driver is not None:
        return Wait(_patience(seen.now - run.created_at), f"{seen.driver} drives this run")
    unbooked = _unbooked(seen)
    if unbooked is not None:
        return unbooked
    if seen.published:
        return _close_down(seen, Finish("published", ""), "finished", "the model is published")
    if seen.result is not None:
        return _bring_home(seen)
    ending = _ending(run, seen)
    if ending is not None:
        return ending
    current = seen.current
    if current is None:
        return _clear(seen, "its attempt has ended") or _open_next(run, seen)
    stray = tuple(i.id for i in seen.live if i.attempt != current.record.number)
    if stray:
        return Terminate(stray, "it belongs to no open attempt")
    if current.record.offer.where == "cpu":
        return _train_here(seen, current)
    return _train_there(run, seen, current)


def _bring_home(seen: Seen) -> Step:
    """A result is staged: verify it, let go of what costs money, publish."""
    if seen.collected is None:
        return Collect()
    live = seen.live
    if live:
        return Terminate(tuple(i.id for i in live), "the result is in the store")
    return Publish()


def _ending(run: RunRecord, seen: Seen) -> Step | None:
    """Why the run must end without a model, if it must."""
    if seen.stop is not None:
        return _close_down(seen, Finish("stopped", seen.stop.reason), "stopped", seen.stop.reason)
    if seen.now >= run.deadline_at:
        message = "the deadline passed; raise limits.deadline and train again: it carries on where this ended"
        return _close_down(seen, Finish("failed", message), "expired", "the deadline passed")
    failed = next((a.end for a in reversed(seen.attempts) if a.end and a.end.reason == "failed"), None)
    if failed is not None:
        return _close_down(seen, Finish("failed", failed.message), "failed", failed.message)
    current = seen.current
    if current is not None and current.heartbeat is not None and current.heartbeat.state == "failed":
        message = current.heartbeat.message or "the training failed; its log says why"
        return _close_down(seen, Finish("failed", message), "failed", message)
    if seen.spent_usd >= run.max_cost_usd > 0 and not _is_gone(seen):
        message = f"max-cost-usd is used up (${seen.spent_usd:.2f} of ${run.max_cost_usd:.2f})"
        return _close_down(seen, Finish("failed", message), "expired", message)
    return _overrunning(run, seen)


def _overrunning(run: RunRecord, seen: Seen) -> Step | None:
    """Say early that money or time will not do, and do what the configuration says."""
    last = seen.attempts[-1] if seen.attempts else None
    if last is None or goes_to_its_limit(run, last.record.offer):
        return None
    if last.end is not None:
        if last.end.reason != "overrun":
            return None
        if run.on_overrun == "escalate" and next(fitting(run, seen), None) is not None:
            return None
        return _close_down(seen, Finish("failed", last.end.message), "overrun", last.end.message)
    why = overrun(run, seen, last)
    if why is None or last.heartbeat is None:
        return None
    better = next(fitting(run, seen), None) if run.on_overrun == "escalate" else None
    if better is not None:
        message = f"{why}; {better.offer.name} would make it"
        return _clear_attempt(seen, last, "overrun", message)
    kept = (
        f"{max(seen.epochs_completed, last.heartbeat.epochs_completed)} of {run.spec.epochs} epochs are kept"
    )
    advice = f"{why}. {kept}: raise the limit and train again, it carries on from there"
    finish = Finish("failed", advice)
    return _close_down(seen, finish, "overrun", advice)


def _train_here(seen: Seen, current: AttemptSeen) -> Step:
    if current.record.driver == seen.me:
        return Train(current.record.number)
    return CloseAttempt(current.record.number, "died", "the process that trained is gone")


def _train_there(run: RunRecord, seen: Seen, current: AttemptSeen) -> Step:
    """The one attempt that may have an instance: launch it, start it, watch it, or give it up."""
    number = current.record.number
    mine = seen.instances_of(number)
    live = tuple(i for i in mine if i.state in {"pending", "running"})
    verdict = _verdict(seen, current, mine)
    if verdict is None and (why := moving_to_spot(run, seen, current)) is not None:
        verdict = "moved", why
    verdict = verdict or _absence(seen, current, mine)
    if verdict is not None:
        return _clear_attempt(seen, current, *verdict)
    if current.host is None:
        if current.record.driver != seen.me and current.heartbeat is None:
            return Wait(ENDING_POLL_S, "what its driver may have launched is not visible yet")
        adopted = next((i.host for i in live if i.host is not None), None)
        if adopted is not None and seen.now - current.record.created_at > LAUNCH_LIMIT_S:
            return RecordHost(number, adopted)  # the answers keep getting lost, and the token does not last
        # Seen or not: under its token the launch answers with the same instance, and accounting needs the answer.
        return Launch(number)
    if not live:
        return Wait(STARTING_POLL_S, "the instance is not visible yet")
    if current.heartbeat is not None:
        seconds = max(ENDING_POLL_S, min(WATCH_S, current.record.expires_at - seen.now))
        doubt = overrun(run, seen, current, likely=True)
        return Wait(seconds, f"it may not make it: {doubt}" if doubt else TRAINING)
    if all(i.state == "pending" for i in live):
        return Wait(STARTING_POLL_S, "the instance is starting")
    return Train(number)


def _clear_attempt(seen: Seen, current: AttemptSeen, reason: EndReason, message: str) -> Step:
    """Let go of an attempt: its instance first, then the journal."""
    number = current.record.number
    live = tuple(i.id for i in seen.instances_of(number) if i.state in {"pending", "running"})
    if live:
        return Terminate(live, message)
    return CloseAttempt(number, reason, message, _ended_at(seen, current))


def _unbooked(seen: Seen) -> RecordHost | None:
    """Find an instance that is over and that the journal does not know: a driver died before it could write."""
    for attempt in seen.attempts:
        if attempt.host is None:
            for instance in seen.instances_of(attempt.record.number):
                if instance.is_ended and instance.host is not None:
                    return RecordHost(attempt.record.number, instance.host)
    return None


def _is_gone(seen: Seen) -> bool:
    """Whether the open attempt's instance has ended by itself: until that is journalled, its cost runs on."""
    current = seen.current
    if current is None or current.host is None or current.record.offer.where != "ec2":
        return False
    mine = seen.instances_of(current.record.number)
    if not mine:
        return seen.now - current.host.launched_at > LAUNCH_LIMIT_S
    return all(i.is_ended for i in mine)


def _ended_at(seen: Seen, current: AttemptSeen) -> float | None:
    """When an attempt's instance ended, as far as that can be told; None for now."""
    mine = seen.instances_of(current.record.number)
    ends = [i.ended_at for i in mine]
    if mine and all(i.is_ended for i in mine) and None not in ends:
        return max(end for end in ends if end is not None)
    if not mine and _is_gone(seen):
        # EC2 has forgotten it. It powers itself off when its time is up, and when its job has ended.
        spoke = current.heartbeat.time if current.heartbeat is not None else seen.now
        return min(seen.now, current.record.expires_at, spoke + HEARTBEAT_LOST_S + POWER_OFF_S)
    return None


def _patience(age: float) -> float:
    """How long to wait for another driver, in seconds: the longer it has worked, the longer it will."""
    return min(MOST_PATIENT_S, max(ENDING_POLL_S, age / 10))


def _verdict(
    seen: Seen, current: AttemptSeen, mine: tuple[InstanceSeen, ...]
) -> tuple[EndReason, str] | None:
    """Why an attempt on an instance is over, None while it is not."""
    beat, age = current.heartbeat, seen.now - current.record.created_at
    if seen.now >= current.record.expires_at:
        return "expired", "its time or money was used up"
    if any(i.reclaimed for i in mine):
        return "reclaimed", "the cloud took the instance back"
    if beat is not None and beat.state == "interrupted":
        return "reclaimed", beat.message or "the training was interrupted"
    if beat is not None and seen.now - beat.time > HEARTBEAT_LOST_S:
        return "died", f"silent for {(seen.now - beat.time) / 60:.0f} min"
    launched = current.host.launched_at if current.host is not None else current.record.created_at
    visible = bool(mine) or seen.now - launched > VISIBLE_S
    if beat is None and current.record.driver != seen.me and visible:
        return "orphaned", "its driver died with the SSH keys before the training began"
    if beat is None and age > START_LIMIT_S:
        return "died", f"no sign of life {age / 60:.0f} min after it was opened"
    return None


def _absence(
    seen: Seen, current: AttemptSeen, mine: tuple[InstanceSeen, ...]
) -> tuple[EndReason, str] | None:
    """Why an attempt is over whose instance is not there, or not any more."""
    age = seen.now - current.record.created_at
    if mine and all(i.state not in {"pending", "running"} for i in mine):
        return "died", f"the instance is {mine[-1].state}"
    if not mine and current.host is not None and seen.now - current.host.launched_at > LAUNCH_LIMIT_S:
        return "died", "the instance has vanished"
    if not mine and current.host is None and age > LAUNCH_LIMIT_S:
        # Launching again is harmless only under the same token, and only for a while. Whatever the lost
        # launch may have started bears the run's tag and is terminated as a stray.
        return "died", "its launch was never confirmed"
    return None


def _close_down(seen: Seen, finish: Finish, reason: EndReason, message: str) -> Step:
    """End the run: nothing that costs money first, then the journal."""
    clear = _clear(seen, message)
    if clear is not None:
        return clear
    current = seen.current
    if current is not None:
        return CloseAttempt(current.record.number, reason, message, _ended_at(seen, current))
    return finish


def _clear(seen: Seen, reason: str) -> Step | None:
    """Whatever of the run still costs money or lies about; None when there is nothing."""
    live = seen.live
    if live:
        return Terminate(tuple(i.id for i in live), reason)
    if any(i.state == "shutting-down" for i in seen.instances):
        return Wait(ENDING_POLL_S, "an instance is shutting down")
    if any(_may_appear(seen, attempt) for attempt in seen.attempts):
        return Wait(ENDING_POLL_S, "an instance may have been launched that EC2 does not show yet")
    if seen.leftovers:
        return CleanUp(seen.leftovers)
    return None


def _may_appear(seen: Seen, attempt: AttemptSeen) -> bool:
    """Whether an attempt may have an instance that is not described yet: EC2's answers lag behind its deeds."""
    if attempt.record.offer.where != "ec2" or seen.instances_of(attempt.record.number):
        return False
    if attempt.host is not None:
        return seen.now - attempt.host.launched_at < VISIBLE_S
    refused = attempt.end is not None and attempt.end.reason == "refused"
    return not refused and seen.now - attempt.record.created_at < VISIBLE_S


def _open_next(run: RunRecord, seen: Seen) -> Step:
    fruitless = _fruitless_attempts(seen)
    if fruitless >= run.max_attempts:
        return Finish("failed", f"{fruitless} attempts in a row completed no epoch")
    stillborn = _stillborn_attempts(seen)
    if len(stillborn) >= START_TRIES:
        return Finish("failed", f"{len(stillborn)} instances in a row never trained: {stillborn[-1].message}")
    chosen = next(fitting(run, seen), None)
    number = len(seen.attempts) + 1
    if chosen is not None:
        return OpenAttempt(number, chosen.offer, _expiry(run, seen, chosen.offer))
    waiting = waiting_for_spot(run, seen)
    if waiting is not None:
        return Wait(60.0, waiting)
    if any(not a.quota for a in fresh_refusals(seen)) and not _all_unfit(run, seen):
        return Wait(60.0, "every offer was refused a moment ago")
    refusals = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    last = f"; the last refusal: {refusals[-1].message}" if refusals else ""
    kept = f"; {seen.epochs_completed} of {run.spec.epochs} epochs are kept" if seen.epochs_completed else ""
    return Finish("failed", f"no offer is left that fits the deadline and max-cost-usd{last}{kept}")


def _all_unfit(run: RunRecord, seen: Seen) -> bool:
    return not any(fits(run, seen, candidate) for candidate in run.candidates)


def _expiry(run: RunRecord, seen: Seen, offer: Offer) -> float:
    """When money or time ends an attempt: the absolute time that the instance itself enforces."""
    if offer.usd_per_hour <= 0:
        return run.deadline_at
    affordable = (run.max_cost_usd - seen.spent_usd) / offer.usd_per_hour * 3600
    return min(run.deadline_at, seen.now + affordable)


def _fruitless_attempts(seen: Seen) -> int:
    """How many attempts in a row, up to now, ended without completing an epoch; refusals do not count."""
    best, fruitless = 0, 0
    for attempt in seen.attempts:
        if attempt.end is not None and attempt.end.reason == "refused":
            continue
        epochs = attempt.heartbeat.epochs_completed if attempt.heartbeat is not None else 0
        fruitless = 0 if epochs > best else fruitless + 1
        best = max(best, epochs)
    return fruitless


def _stillborn_attempts(seen: Seen) -> list[AttemptEnd]:
    """Return how the latest attempts on instances ended, as long as none of them gave a sign of life."""
    ends: list[AttemptEnd] = []
    for attempt in reversed(seen.attempts):
        end = attempt.end
        if end is None or attempt.host is None:
            continue
        if attempt.heartbeat is not None or end.reason != "died" or attempt.record.offer.where != "ec2":
            break
        ends.insert(0, end)
    return ends
