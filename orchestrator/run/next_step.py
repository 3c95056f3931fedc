"""The next step of a run: a pure function of the journal and of what was just observed.

There is no recovery code: the first start, a re-run, a run resumed by another machine and the sweep all ask the same
question until the answer is Done.
"""

from gpu_offload.orchestrator.run import closing
from gpu_offload.orchestrator.run.activity import last_sign
from gpu_offload.orchestrator.run.closing import ENDING_POLL_S
from gpu_offload.orchestrator.run.liveness import LAUNCH_LIMIT_S, is_gone, unbooked
from gpu_offload.orchestrator.run.next_attempt import open_next
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.outlook import Outlook
from gpu_offload.orchestrator.run.pace import goes_to_its_limit
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.step import (
    CloseAttempt,
    Collect,
    Done,
    Finish,
    Launch,
    Publish,
    RecordHost,
    Step,
    Terminate,
    Train,
    Wait,
)

WATCH_S = 240.0
"""Seconds between two checks of a training on an instance. A driver that follows it checks at once when it ends or falls
silent, so this only bounds what asking costs: 15 times an hour."""

TRAINING = "the instance is training"
STARTING_POLL_S = 1.0
LONGEST_WAIT_S = 60.0


def next_step(run: RunRecord, observation: Observation) -> Step:
    """Decide the next step of a run. Total: every state of the journal and of the cloud has an answer."""
    at = Outlook(run, observation)
    return (
        # Every driver that sees the end of a run cleans up: the one that wrote it can have died.
        _over(at)
        or _driven_elsewhere(at)
        # While EC2 still shows the instance: it forgets it within the hour, and the bill would lack it.
        or unbooked(at.seen)
        or _published(at)
        # Before stop and limits: the training is paid for, and publishing it costs next to nothing.
        or _result_staged(at)
        or _stopped(at)
        or _past_deadline(at)
        or _failed(at)
        or _out_of_money(at)
        or _overrunning(at)
        or _between_attempts(at)
        # From here on an attempt is open.
        or _stray(at)
        or _attended(at)
        or _attempt_over(at)
        or _reclaim_awaited(at)
        or _unconfirmed(at)
        or _on_instance(at)
    )


def _over(at: Outlook) -> Step | None:
    if at.seen.outcome is None:
        return None
    why = "the run is over"
    return (
        closing.clear(at.seen, why)
        or unbooked(at.seen)
        # A driver that stalled before it opened an attempt can open it after another driver ended the run.
        or closing.close_down(at.seen, Done(at.seen.outcome), "stopped", why)
    )


def _driven_elsewhere(at: Outlook) -> Step | None:
    if at.seen.driver is None:
        return None
    # A run that has taken hours likely takes some more.
    seconds = min(LONGEST_WAIT_S, max(ENDING_POLL_S, (at.seen.now - at.run.created_at) / 10))
    return Wait(seconds, f"{at.seen.driver} drives this run")


def _published(at: Outlook) -> Step | None:
    if not at.seen.published:
        return None
    return closing.close_down(at.seen, Finish("published", ""), "finished", "the model is published")


def _result_staged(at: Outlook) -> Step | None:
    """A result is staged: verify it, terminate what costs money, publish."""
    if at.seen.result is None:
        return None
    if at.seen.collected is None:
        return Collect()
    live, why = at.seen.live, "the result is in the store"
    if live:
        return Terminate(tuple(i.id for i in live), why)
    if at.current is not None and at.current.record.offer.where == "ec2":
        return closing.clear_attempt(at, "finished", why)  # the manifest has its final cost
    return Publish()


def _stopped(at: Outlook) -> Step | None:
    if at.seen.stop is None:
        return None
    reason = at.seen.stop.reason
    return closing.close_down(at.seen, Finish("stopped", reason), "stopped", reason)


def _past_deadline(at: Outlook) -> Step | None:
    if at.seen.now < at.run.deadline_at:
        return None
    message = (
        "the deadline passed; raise limits.deadline and train again: it resumes from the last checkpoint"
    )
    return closing.close_down(at.seen, Finish("failed", message, cut=True), "expired", "the deadline passed")


def _failed(at: Outlook) -> Step | None:
    """The training itself failed, and would fail again."""
    ends = (a.end for a in reversed(at.seen.attempts) if a.end is not None and a.end.reason == "failed")
    failed = next(ends, None)
    beat = at.current.heartbeat if at.current is not None else None
    if failed is not None:
        message = failed.message
    elif beat is not None and beat.state == "failed":
        message = beat.message or f"the training failed; see `offload logs {at.run.id}`"
    else:
        return None
    return closing.close_down(at.seen, Finish("failed", message), "failed", message)


def _out_of_money(at: Outlook) -> Step | None:
    spent, limit = at.seen.spent_usd, at.run.max_cost_usd
    if not spent >= limit > 0 or is_gone(at.seen):
        return None
    why = f"max-cost-usd is used up (${spent:.2f} of ${limit:.2f})"
    message = f"{why}; raise it and train again: it resumes from the last checkpoint"
    return closing.close_down(at.seen, Finish("failed", message, cut=True), "expired", why)


def _overrunning(at: Outlook) -> Step | None:
    """An attempt will not finish within its limits: stop early, or escalate, as `on_overrun` says."""
    last = at.seen.last
    if last is None or goes_to_its_limit(at.run, last.record.offer):
        return None
    escalates = at.run.on_overrun == "escalate"
    if last.end is not None:
        if last.end.reason != "overrun" or (escalates and at.escape is not None):
            return None
        why = last.end.message
        return closing.close_down(at.seen, Finish("failed", why, cut=True), "overrun", why)
    if at.leaves is not None and at.rented_candidate is not None:
        name = at.rented_candidate.offer.name
        return closing.clear_attempt(at, "overrun", f"{at.leaves}; it moves to {name}")
    if at.overrun is None:
        return None
    if escalates and at.escape is not None:
        name = at.escape.offer.name
        return closing.clear_attempt(at, "overrun", f"{at.overrun}; {name} would make it")
    kept = max(at.seen.epochs_completed, last.epochs_completed)
    advice = (
        f"{at.overrun}. {kept} of {at.run.spec.epochs} epochs are kept: raise the limit and train again, "
        "it resumes from there"
    )
    return closing.close_down(at.seen, Finish("failed", advice, cut=True), "overrun", advice)


def _between_attempts(at: Outlook) -> Step | None:
    if at.current is not None:
        return None
    return closing.clear(at.seen, "its attempt has ended") or open_next(at)


def _stray(at: Outlook) -> Step | None:
    number = at.current.record.number if at.current is not None else None
    stray = tuple(i.id for i in at.seen.live if i.attempt != number)
    return Terminate(stray, "it belongs to no open attempt") if stray else None


def _attended(at: Outlook) -> Step | None:
    if at.current is None or at.current.record.offer.is_rented:
        return None
    if at.current.record.driver == at.seen.me:
        return Train(at.current.record.number)
    number, spoke = at.current.record.number, last_sign(at.current)
    return CloseAttempt(number, "orphaned", "the process that trained is gone", min(spoke, at.seen.now))


def _attempt_over(at: Outlook) -> Step | None:
    return closing.clear_attempt(at, *at.ended) if at.ended is not None else None


def _reclaim_awaited(at: Outlook) -> Step | None:
    if not at.reclaim:
        return None
    return Wait(ENDING_POLL_S, "AWS is taking the instance back; in its first hour that costs nothing")


def _unconfirmed(at: Outlook) -> Step | None:
    """The launch's answer is not in the journal."""
    if at.current is None or at.current.host is not None:
        return None
    number = at.current.record.number
    if at.current.record.driver != at.seen.me and at.current.heartbeat is None:
        return Wait(
            closing.appearing(at.seen, ENDING_POLL_S), "what its driver may have launched is not visible yet"
        )
    adopted = next((i.host for i in at.mine if i.is_up and i.host is not None), None)
    first = at.current.launching.first_at if at.current.launching is not None else at.seen.now
    if adopted is not None and at.seen.now - first > LAUNCH_LIMIT_S:
        return RecordHost(number, adopted)  # the answers keep getting lost, and the token does not last
    # Visible or not: under its token the launch answers with the same instance, and accounting needs the answer.
    return Launch(number)


def _on_instance(at: Outlook) -> Step:
    """The open attempt has an instance: start its training, or watch it."""
    if at.current is None:  # `_between_attempts` answers then
        raise AssertionError("no open attempt")
    up = tuple(i for i in at.mine if i.is_up)
    if not up:
        return Wait(closing.appearing(at.seen, STARTING_POLL_S), "the instance is not visible yet")
    if at.current.heartbeat is not None:
        seconds = max(ENDING_POLL_S, min(WATCH_S, at.current.record.expires_at - at.seen.now))
        # After its last heartbeat there is nothing to follow.
        follows = at.current.heartbeat.state not in {"finished", "failed", "interrupted"}
        return Wait(seconds, f"it may not make it: {at.doubt}" if at.doubt else TRAINING, follows=follows)
    if all(i.state == "pending" for i in up):
        return Wait(STARTING_POLL_S, "the instance is starting")
    return Train(at.current.record.number)
