"""Whether an attempt is alive, ended or missing."""

from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import (
    AttemptEnd,
    EndReason,
)
from gpu_offload.orchestrator.run.step import RecordHost

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


def unbooked(observation: Observation) -> RecordHost | None:
    """Find an instance that is over and that the journal does not know: a driver died before it could write."""
    for attempt in observation.attempts:
        if attempt.host is None:
            for instance in observation.instances_of(attempt.record.number):
                if instance.is_ended and instance.host is not None:
                    return RecordHost(attempt.record.number, instance.host)
    return None


def is_gone(observation: Observation) -> bool:
    """Whether the open attempt's instance has ended by itself: until that is journalled, its cost runs on."""
    current = observation.current
    if current is None or current.host is None or current.record.offer.where != "ec2":
        return False
    mine = observation.instances_of(current.record.number)
    if not mine:
        return observation.now - current.host.launched_at > LAUNCH_LIMIT_S
    return all(i.is_ended for i in mine)


def ended_at(observation: Observation, current: ObservedAttempt) -> float | None:
    """When an attempt's instance ended, as far as that can be told; None for now."""
    mine = observation.instances_of(current.record.number)
    ends = [i.ended_at for i in mine]
    if mine and all(i.is_ended for i in mine) and None not in ends:
        return max(end for end in ends if end is not None)
    if not mine and is_gone(observation):
        # EC2 has forgotten it. It powers itself off when its time is up, and when its job has ended.
        spoke = current.heartbeat.time if current.heartbeat is not None else observation.now
        return min(observation.now, current.record.expires_at, spoke + HEARTBEAT_LOST_S + POWER_OFF_S)
    return None


def verdict(
    observation: Observation, current: ObservedAttempt, mine: tuple[ObservedInstance, ...]
) -> tuple[EndReason, str] | None:
    """Why an attempt on an instance is over, None while it is not."""
    beat, age = current.heartbeat, observation.now - current.record.created_at
    if observation.now >= current.record.expires_at:
        return "expired", "its time or money was used up"
    if any(i.reclaimed for i in mine):
        return "reclaimed", "the cloud took the instance back"
    if beat is not None and beat.state == "interrupted":
        return "reclaimed", beat.message or "the training was interrupted"
    if beat is not None and observation.now - beat.time > HEARTBEAT_LOST_S:
        return "died", f"silent for {(observation.now - beat.time) / 60:.0f} min"
    launched = current.host.launched_at if current.host is not None else current.record.created_at
    visible = bool(mine) or observation.now - launched > VISIBLE_S
    if beat is None and current.record.driver != observation.me and visible:
        return "orphaned", "its driver died with the SSH keys before the training began"
    if beat is None and age > START_LIMIT_S:
        return "died", f"no sign of life {age / 60:.0f} min after it was opened"
    return None


def absence(
    observation: Observation, current: ObservedAttempt, mine: tuple[ObservedInstance, ...]
) -> tuple[EndReason, str] | None:
    """Why an attempt is over whose instance is not there, or not any more."""
    age = observation.now - current.record.created_at
    if mine and all(i.state not in {"pending", "running"} for i in mine):
        return "died", f"the instance is {mine[-1].state}"
    if not mine and current.host is not None and observation.now - current.host.launched_at > LAUNCH_LIMIT_S:
        return "died", "the instance has vanished"
    if not mine and current.host is None and age > LAUNCH_LIMIT_S:
        # Launching again is harmless only under the same token, and only for a while. Whatever the lost
        # launch may have started bears the run's tag and is terminated as a stray.
        return "died", "its launch was never confirmed"
    return None


def may_appear(observation: Observation, attempt: ObservedAttempt) -> bool:
    """Whether an attempt may have an instance that is not described yet: EC2's answers lag behind its deeds."""
    if attempt.record.offer.where != "ec2" or observation.instances_of(attempt.record.number):
        return False
    if attempt.host is not None:
        return observation.now - attempt.host.launched_at < VISIBLE_S
    refused = attempt.end is not None and attempt.end.reason == "refused"
    return not refused and observation.now - attempt.record.created_at < VISIBLE_S


def fruitless_attempts(observation: Observation) -> int:
    """How many attempts in a row, up to now, ended without completing an epoch; refusals do not count."""
    best, fruitless = 0, 0
    for attempt in observation.attempts:
        if attempt.end is not None and attempt.end.reason == "refused":
            continue
        epochs = attempt.heartbeat.epochs_completed if attempt.heartbeat is not None else 0
        fruitless = 0 if epochs > best else fruitless + 1
        best = max(best, epochs)
    return fruitless


def stillborn_attempts(observation: Observation) -> list[AttemptEnd]:
    """Return how the latest attempts on instances ended, as long as none of them gave a sign of life."""
    ends: list[AttemptEnd] = []
    for attempt in reversed(observation.attempts):
        end = attempt.end
        if end is None or attempt.host is None:
            continue
        if attempt.heartbeat is not None or end.reason != "died" or attempt.record.offer.where != "ec2":
            break
        ends.insert(0, end)
    return ends
