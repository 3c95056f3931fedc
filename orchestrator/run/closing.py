"""The steps that close an attempt or a run: instances first, then the journal."""

from gpu_offload.orchestrator.run.liveness import ended_at, last_launch, may_appear
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.outlook import Outlook
from gpu_offload.orchestrator.run.record import EndReason
from gpu_offload.orchestrator.run.step import CleanUp, CloseAttempt, Done, Finish, Step, Terminate, Wait

ENDING_POLL_S = 3.0
LONGEST_APPEARING_POLL_S = 15.0


def clear_attempt(at: Outlook, reason: EndReason, message: str) -> Step:
    """End the open attempt: its instance first, then the journal."""
    if at.current is None:
        raise AssertionError("no open attempt")
    up = tuple(i.id for i in at.mine if i.is_up)
    if up:
        return Terminate(up, message)
    # DescribeInstances can omit a running instance for a moment; a closed attempt would leave it unwatched.
    if at.current.heartbeat is not None and may_appear(at.seen, at.current):
        return Wait(ENDING_POLL_S, "EC2 does not show an instance that spoke a moment ago")
    return _close(at.seen, at.current, reason, message)


def close_down(observation: Observation, finish: Finish | Done, reason: EndReason, message: str) -> Step:
    """End the run: what costs money first, then the journal."""
    remaining = clear(observation, message)
    if remaining is not None:
        return remaining
    current = observation.current
    if current is not None:
        return _close(observation, current, reason, message)
    return finish


def _close(
    observation: Observation, current: ObservedAttempt, reason: EndReason, message: str
) -> CloseAttempt:
    number = current.record.number
    by_cloud = any(i.reclaimed for i in observation.instances_of(number))
    return CloseAttempt(number, reason, message, ended_at(observation, current), by_cloud)


def appearing(observation: Observation, least: float) -> float:
    """Return the seconds before the next search for a late instance: more as time passes, and at least `least`."""
    launched = max((last_launch(a) or 0.0 for a in observation.attempts), default=0.0)
    return min(LONGEST_APPEARING_POLL_S, max(least, (observation.now - launched) / 10))


def clear(observation: Observation, reason: str) -> Step | None:
    """Remove what the run still has in the account; None when there is nothing."""
    live = observation.live
    if live:
        return Terminate(tuple(i.id for i in live), reason)
    if any(i.state == "shutting-down" for i in observation.instances):
        return Wait(ENDING_POLL_S, "an instance is shutting down")
    if any(may_appear(observation, attempt) for attempt in observation.attempts):
        return Wait(
            appearing(observation, ENDING_POLL_S),
            "an instance may have been launched that EC2 does not show yet",
        )
    # Last: EC2 refuses to delete what an instance still uses.
    if observation.leftovers:
        return CleanUp(observation.leftovers)
    return None
