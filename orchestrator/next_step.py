"""What to do next for a run: a pure function of the journal and of what was seen just now.

There is no recovery code. The first start, a re-run, a run that another machine carries on and the sweep all
ask this one question, over and over, until the answer is Done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from orchestrator.offers import Offer
from orchestrator.run import (
    AttemptEnd,
    AttemptRecord,
    Candidate,
    Collected,
    EndReason,
    HostRecord,
    Outcome,
    OutcomeStatus,
    RunRecord,
    StopRequest,
)
from remote_job.result import Heartbeat, TrainingResult

HEARTBEAT_LOST_S = 600.0
"""A running instance that says nothing for this long is given up: it uploads every 15 s, and a store that is
away for five minutes must not cost a training."""

START_LIMIT_S = 1200.0
"""From launch to the first heartbeat: boot, set-up and the dataset's download."""

LAUNCH_LIMIT_S = 300.0
"""How long a launch may be repeated under its token. Past it the token could start a second instance."""

REFUSAL_LASTS_S = 1200.0
"""Capacity comes back; a refused offer is asked again after this."""

RECLAIMS_BEFORE_ON_DEMAND = 2
"""So often may a run be reclaimed before on-demand offers come first."""

START_TRIES = 2
"""So many instances in a row may fail to become ready or to start the training: a broken one is replaced once."""

WATCH_S = 240.0
"""Between two looks at a training on an instance. Whoever follows it comes back at once when it ends or falls
silent, so this only bounds what asking costs: 15 times an hour."""

STARTING_POLL_S = 1.0
ENDING_POLL_S = 3.0
MOST_PATIENT_S = 60.0

InstanceState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """An instance that bears the run's tag. `reclaimed` is the cloud's own word for why it went."""

    id: str
    attempt: int | None
    state: InstanceState
    reclaimed: bool = False


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """What the journal and the instance say of an attempt."""

    record: AttemptRecord
    host: HostRecord | None = None
    heartbeat: Heartbeat | None = None
    end: AttemptEnd | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that the decision rests on, observed at `now` (Unix seconds).

    `me` is this driver; `driver` another one whose lease is live. `attempts` are in order of their numbers.
    `leftovers` names what the run still has beside instances: security groups, schedules, loose volumes.
    """

    now: float
    me: str
    driver: str | None = None
    outcome: Outcome | None = None
    published: bool = False
    result: TrainingResult | None = None
    collected: Collected | None = None
    attempts: tuple[AttemptSeen, ...] = ()
    instances: tuple[InstanceSeen, ...] = ()
    leftovers: tuple[str, ...] = ()
    epochs_completed: int = 0
    stop: StopRequest | None = None
    spent_usd: float = 0.0


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
class Train:
    """See that the attempt's training runs: to its end here, started and left running on an instance."""

    number: int


@dataclass(frozen=True, slots=True)
class CloseAttempt:
    """Journal how an attempt ended."""

    number: int
    reason: EndReason
    message: str


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
    if seen.published:
        return _close_down(seen, Finish("published", ""), "finished", "the model is published")
    if seen.result is not None:
        return _bring_home(seen)
    ending = _ending(run, seen)
    if ending is not None:
        return ending
    current = _current(seen)
    if current is None:
        return _clear(seen, "its attempt has ended") or _open_next(run, seen)
    stray = tuple(i.id for i in _live(seen) if i.attempt != current.record.number)
    if stray:
        return Terminate(stray, "it belongs to no open attempt")
    if current.record.offer.where == "cpu":
        return _train_here(seen, current)
    return _train_there(seen, current)


def _bring_home(seen: Seen) -> Step:
    """A result is staged: verify it, let go of what costs money, publish."""
    if seen.collected is None:
        return Collect()
    live = _live(seen)
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
    current = _current(seen)
    if current is not None and current.heartbeat is not None and current.heartbeat.state == "failed":
        message = current.heartbeat.message or "the training failed; its log says why"
        return _close_down(seen, Finish("failed", message), "failed", message)
    if seen.spent_usd >= run.max_cost_usd > 0:
        message = f"max-cost-usd is used up (${seen.spent_usd:.2f} of ${run.max_cost_usd:.2f})"
        return _close_down(seen, Finish("failed", message), "expired", message)
    return None


def _train_here(seen: Seen, current: AttemptSeen) -> Step:
    if current.record.driver == seen.me:
        return Train(current.record.number)
    return CloseAttempt(current.record.number, "died", "the process that trained is gone")


def _train_there(seen: Seen, current: AttemptSeen) -> Step:
    """The one attempt that may have an instance: launch it, start it, watch it, or give it up."""
    number = current.record.number
    mine = tuple(i for i in seen.instances if i.attempt == number)
    live = tuple(i for i in mine if i.state in {"pending", "running"})
    verdict = _verdict(seen, current, mine)
    if verdict is not None:
        reason, message = verdict
        return (
            Terminate(tuple(i.id for i in live), message) if live else CloseAttempt(number, reason, message)
        )
    if current.host is None:
        # Seen or not: under its token the launch answers with the same instance, and accounting needs the answer.
        return Launch(number)
    if not live:
        return Wait(STARTING_POLL_S, "the instance is not visible yet")
    if current.heartbeat is not None:
        return Wait(
            max(ENDING_POLL_S, min(WATCH_S, current.record.expires_at - seen.now)), "the instance is training"
        )
    if all(i.state == "pending" for i in live):
        return Wait(STARTING_POLL_S, "the instance is starting")
    return Train(number)


def _patience(age: float) -> float:
    """How long to wait for another driver, in seconds: the longer it has worked, the longer it will."""
    return min(MOST_PATIENT_S, max(ENDING_POLL_S, age / 10))


def _verdict(
    seen: Seen, current: AttemptSeen, mine: tuple[InstanceSeen, ...]
) -> tuple[EndReason, str] | None:
    """Why an attempt on an instance is over, None while it is not."""
    beat, age = current.heartbeat, seen.now - current.record.created_at
    gone = bool(mine) and all(i.state not in {"pending", "running"} for i in mine)
    if seen.now >= current.record.expires_at:
        return "expired", "its time or money was used up"
    if any(i.reclaimed for i in mine):
        return "reclaimed", "the cloud took the instance back"
    if beat is not None and beat.state == "interrupted":
        return "reclaimed", beat.message or "the training was interrupted"
    if beat is not None and seen.now - beat.time > HEARTBEAT_LOST_S:
        return "died", f"silent for {(seen.now - beat.time) / 60:.0f} min"
    if beat is None and current.record.driver != seen.me:
        return "orphaned", "its driver died with the SSH keys before the training began"
    if beat is None and age > START_LIMIT_S:
        return "died", f"no sign of life {age / 60:.0f} min after it was opened"
    if gone:
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
    current = _current(seen)
    if current is not None:
        return CloseAttempt(current.record.number, reason, message)
    return finish


def _clear(seen: Seen, reason: str) -> Step | None:
    """Whatever of the run still costs money or lies about; None when there is nothing."""
    live = _live(seen)
    if live:
        return Terminate(tuple(i.id for i in live), reason)
    if any(i.state == "shutting-down" for i in seen.instances):
        return Wait(ENDING_POLL_S, "an instance is shutting down")
    if seen.leftovers:
        return CleanUp(seen.leftovers)
    return None


def _open_next(run: RunRecord, seen: Seen) -> Step:
    fruitless = _fruitless_attempts(seen)
    if fruitless >= run.max_attempts:
        return Finish("failed", f"{fruitless} attempts in a row completed no epoch")
    stillborn = _stillborn_attempts(seen)
    if len(stillborn) >= START_TRIES:
        return Finish("failed", f"{len(stillborn)} instances in a row never trained: {stillborn[-1].message}")
    chosen = next(_fitting(run, seen), None)
    number = len(seen.attempts) + 1
    if chosen is not None:
        return OpenAttempt(number, chosen.offer, _expiry(run, seen, chosen.offer))
    if any(not a.quota for a in _fresh_refusals(seen)) and not _all_unfit(run, seen):
        return Wait(60.0, "every offer was refused a moment ago")
    refusals = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    last = f"; the last refusal: {refusals[-1].message}" if refusals else ""
    return Finish("failed", f"no offer is left that fits the deadline and max-cost-usd{last}")


def _fitting(run: RunRecord, seen: Seen) -> Iterator[Candidate]:
    """Yield the candidates worth an attempt now, the best first."""
    refused = {_place(e.record.offer) for e in seen.attempts if e.end in _fresh_refusals(seen)}
    quota = {_quota_of(e.record.offer) for e in seen.attempts if e.end is not None and e.end.quota}
    reclaims = sum(1 for a in seen.attempts if a.end is not None and a.end.reason == "reclaimed")
    candidates = sorted(
        run.candidates,
        key=lambda c: reclaims >= RECLAIMS_BEFORE_ON_DEMAND and c.offer.market == "spot",
    )
    for candidate in candidates:
        offer = candidate.offer
        if offer.where == "ec2" and (_place(offer) in refused or _quota_of(offer) in quota):
            continue
        if _fits(run, seen, candidate):
            yield candidate


def _fits(run: RunRecord, seen: Seen, candidate: Candidate) -> bool:
    """Whether what is left of the training fits what is left of time and money."""
    if run.forced and candidate.offer.where == "cpu":
        return True
    left = 1.0 - min(1.0, seen.epochs_completed / run.spec.epochs)
    seconds = candidate.seconds.high * left
    cost = seconds / 3600 * candidate.offer.usd_per_hour
    in_time = run.forced or seen.now + seconds <= run.deadline_at
    return in_time and seen.spent_usd + cost <= run.max_cost_usd


def _all_unfit(run: RunRecord, seen: Seen) -> bool:
    return not any(_fits(run, seen, candidate) for candidate in run.candidates)


def _expiry(run: RunRecord, seen: Seen, offer: Offer) -> float:
    """When money or time ends an attempt: the absolute time that the instance itself enforces."""
    if offer.usd_per_hour <= 0:
        return run.deadline_at
    affordable = (run.max_cost_usd - seen.spent_usd) / offer.usd_per_hour * 3600
    return min(run.deadline_at, seen.now + affordable)


def _fresh_refusals(seen: Seen) -> list[AttemptEnd]:
    ends = [a.end for a in seen.attempts if a.end is not None and a.end.reason == "refused"]
    return [e for e in ends if seen.now - e.at < REFUSAL_LASTS_S]


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


def _place(offer: Offer) -> tuple[str | None, ...]:
    return offer.where, offer.instance_type, offer.region, offer.zone, offer.market


def _quota_of(offer: Offer) -> tuple[str | None, ...]:
    """What shares one quota: each region has its own for each market."""
    return offer.region, offer.market


def _current(seen: Seen) -> AttemptSeen | None:
    last = seen.attempts[-1] if seen.attempts else None
    return last if last is not None and last.end is None else None


def _live(seen: Seen) -> tuple[InstanceSeen, ...]:
    return tuple(i for i in seen.instances if i.state not in {"shutting-down", "terminated"})
