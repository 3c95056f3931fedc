"""Decides whether an attempt is alive, has ended or is missing."""

import re

from gpu_offload.orchestrator.cost.prices import FIRST_HOUR_S
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptEnd, EndReason, GoneRecord
from gpu_offload.orchestrator.run.step import RecordGone, RecordHost

HEARTBEAT_LOST_S = 600.0
"""A running instance without a heartbeat for this long is given up: it uploads one every 15 s, and a store that is
away for five minutes must not cost a training."""

START_LIMIT_S = 1200.0
"""From launch to the first heartbeat: boot, set-up and the dataset's download."""

LAUNCH_LIMIT_S = 300.0
"""How long a launch can be repeated under its token. Past it the token could start a second instance."""

VISIBLE_S = 300.0
"""Grace period before a launched instance must appear in DescribeInstances: AWS says up to five minutes."""

POWER_OFF_S = 600.0
"""An instance whose job has ended powers itself off after this (`infra.instance.job.POWER_OFF_S`)."""

NOTICE_S = 120.0
"""From the spot interruption notice to the end of the instance."""

RECLAIM_GRACE_S = 120.0
"""How much longer the instance can take to end after a notice before the driver terminates it."""


BILL_S = 1.0
"""Smallest difference between two ends that counts: EC2 gives them to the second."""


def unbooked(observation: Observation) -> RecordHost | RecordGone | None:
    """Return the step that journals the cost of an ended instance that the journal lacks, None if there is none.

    Its launch's reply was lost, or it outlived its attempt because its driver died or its clock was wrong.
    """
    for attempt in observation.attempts:
        if attempt.host is not None:
            if (outlived := _outlived(observation, attempt)) is not None:
                return RecordGone(attempt.record.number, outlived)
            continue
        for instance in observation.instances_of(attempt.record.number):
            if instance.is_ended and instance.host is not None:
                # Its attempt can have been closed before it was found: what it ran counts, not what was journalled.
                at = instance.ended_at if instance.ended_at is not None else observation.now
                return RecordHost(attempt.record.number, instance.host.model_copy(update={"ended_at": at}))
    return None


def _outlived(observation: Observation, attempt: ObservedAttempt) -> GoneRecord | None:
    if attempt.host is None or attempt.end is None or attempt.gone is not None:
        return None
    for instance in observation.instances_of(attempt.record.number):
        if instance.id != attempt.host.instance_id or not instance.is_ended or instance.ended_at is None:
            continue
        if abs(instance.ended_at - attempt.end.at) > BILL_S:
            return GoneRecord(instance_id=instance.id, at=instance.ended_at, by_cloud=instance.reclaimed)
    return None


def last_launch(attempt: ObservedAttempt) -> float | None:
    """Return the last moment at which a launch of an attempt can have begun; None if none did."""
    if attempt.record.offer.where != "ec2" or (attempt.end is not None and attempt.end.reason == "refused"):
        return None
    if attempt.host is not None:
        return attempt.host.launched_at
    return attempt.launching.at if attempt.launching is not None else None


def may_appear_until(attempt: ObservedAttempt) -> float:
    """Return until when an instance of an attempt can appear in EC2's answers, in Unix seconds; 0 for none."""
    launched = last_launch(attempt)
    if launched is None:
        return 0.0
    # An answer can omit an instance at any time. One whose training has just spoken is there.
    spoke = attempt.heartbeat.time if attempt.heartbeat is not None and attempt.end is None else launched
    return max(launched, spoke) + VISIBLE_S


def may_appear(observation: Observation, attempt: ObservedAttempt) -> bool:
    """Whether an attempt can have an instance that EC2 does not show yet."""
    if observation.instances_of(attempt.record.number):
        return False
    return observation.now < may_appear_until(attempt)


def is_gone(observation: Observation) -> bool:
    """Whether the open attempt's instance has ended without the driver: until that is journalled, its cost grows."""
    current = observation.current
    if current is None or current.host is None or current.record.offer.where != "ec2":
        return False
    mine = observation.instances_of(current.record.number)
    if not mine:
        return observation.now > may_appear_until(current)
    return all(i.is_ended for i in mine)


def ended_at(observation: Observation, current: ObservedAttempt) -> float | None:
    """Return when an attempt's instance ended, as far as EC2 says, in Unix seconds; None for now."""
    mine = observation.instances_of(current.record.number)
    ends = [i.ended_at for i in mine]
    if mine and all(i.is_ended for i in mine) and None not in ends:
        return max(end for end in ends if end is not None)
    if not mine and is_gone(observation):
        # EC2 has forgotten it. It powers itself off when its time is up, and when its job has ended.
        spoke = current.heartbeat.time if current.heartbeat is not None else observation.now
        return min(observation.now, current.record.expires_at, spoke + HEARTBEAT_LOST_S + POWER_OFF_S)
    return None


def awaits_reclaim(
    observation: Observation, current: ObservedAttempt, mine: tuple[ObservedInstance, ...]
) -> bool:
    """Whether AWS is about to reclaim a spot instance within its first hour, free unless the user terminates it first.

    Source: EC2 User Guide, "Billing for interrupted Spot Instances".
    """
    host, beat = current.host, current.heartbeat
    if host is None or host.market != "spot" or beat is None or beat.state != "interrupted":
        return False
    free = beat.time + NOTICE_S < host.launched_at + FIRST_HOUR_S
    return free and observation.now < beat.time + NOTICE_S + RECLAIM_GRACE_S and any(i.is_up for i in mine)


def verdict(
    observation: Observation, current: ObservedAttempt, mine: tuple[ObservedInstance, ...]
) -> tuple[EndReason, str] | None:
    """Return why an attempt on an instance is over, None while it is not."""
    beat = current.heartbeat
    if observation.now >= current.record.expires_at:
        return "expired", "its time or money was used up"
    if any(i.reclaimed for i in mine):
        return "reclaimed", "EC2 took the instance back"
    if beat is not None and beat.state == "interrupted" and not awaits_reclaim(observation, current, mine):
        # A shutdown from outside is no reclaim: if it repeats without progress, the run ends instead of renting on.
        # The run's own TerminateInstances comes after the heartbeat that it answers.
        before = any(i.shut_down and i.ended_at is not None and i.ended_at <= beat.time for i in mine)
        if before or current.record.offer.market != "spot":
            return "died", "the instance was shut down, but not by AWS"
        return "reclaimed", beat.message or "the training was interrupted"
    if beat is not None and observation.now - beat.time > HEARTBEAT_LOST_S:
        return "died", f"silent for {(observation.now - beat.time) / 60:.0f} min"
    # The SSH keys are in the memory of the driver that launched, so that no other one can start the training.
    if beat is None and current.record.driver != observation.me:
        if mine or observation.now >= may_appear_until(current):
            return "orphaned", "its driver died with the SSH keys before the training began"
        return None
    age = observation.now - (last_launch(current) or observation.now)
    if beat is None and age > START_LIMIT_S:
        return "died", f"no sign of life {age / 60:.0f} min after its launch"
    return None


def absence(
    observation: Observation, current: ObservedAttempt, mine: tuple[ObservedInstance, ...]
) -> tuple[EndReason, str] | None:
    """Return why an attempt is over whose instance is missing or gone."""
    if mine and all(not i.is_up for i in mine):
        why = "shut down, but not by AWS" if mine[-1].shut_down else mine[-1].why
        return "died", f"the instance is {mine[-1].state}{f' ({why})' if why else ''}"
    if mine:
        return None
    if current.host is not None:
        vanished = observation.now > may_appear_until(current)
        return ("died", "the instance has vanished") if vanished else None
    if current.launching is not None and observation.now - current.launching.first_at > LAUNCH_LIMIT_S:
        # Launching again is harmless only under the same token, and only for a while. What the unconfirmed
        # launch can have started has the run's tag and is terminated as an orphan.
        return "died", "its launch was never confirmed"
    return None


def fruitless_attempts(observation: Observation) -> int:
    """Return how many attempts in a row, up to now, ended without completing an epoch.

    Refusals do not count, nor does a training here that was stopped by a signal: it has a checkpoint within its epoch.
    """
    best, fruitless = 0, 0
    for attempt in observation.attempts:
        reason = attempt.end.reason if attempt.end is not None else None
        if reason == "refused" or (reason == "stopped" and not attempt.record.offer.is_rented):
            continue
        fruitless = 0 if attempt.epochs_completed > best else fruitless + 1
        best = max(best, attempt.epochs_completed)
    return fruitless


def alike_ends(observation: Observation) -> list[AttemptEnd]:
    """Return the ends of the attempts that ended like the latest one without progress; the latest last.

    Ends caused from outside (reclaim, refusal, death of the driver, request) do not count. Progress is one epoch more
    than all attempts before.
    """
    alike: dict[tuple[str, str], list[AttemptEnd]] = {}
    best, latest = 0, None
    for attempt in observation.attempts:
        end = attempt.end
        if attempt.epochs_completed > best:
            alike, best = {}, attempt.epochs_completed
            if end is not None and end.reason == "expired":
                continue
        if end is None or end.reason not in {"died", "expired"}:
            continue
        if attempt.record.offer.where == "ec2" and attempt.host is None:
            continue  # no instance came, so none is broken
        latest = _cause(attempt, end)
        alike.setdefault(latest, []).append(end)
    return alike.get(latest, []) if latest is not None else []


def _cause(attempt: ObservedAttempt, end: AttemptEnd) -> tuple[str, str]:
    """Return what makes two ends alike: reason and message without figures, or that nothing was heard."""
    if attempt.heartbeat is None and attempt.record.offer.where == "ec2":
        return end.reason, "never trained"
    return end.reason, re.sub(r"\d+", "", end.message)
