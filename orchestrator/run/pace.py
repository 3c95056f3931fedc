"""Whether an attempt will finish within its limits."""

from functools import lru_cache

from gpu_offload.orchestrator.cost.prices import ebs_prices
from gpu_offload.orchestrator.cost.traffic import Traffic
from gpu_offload.orchestrator.estimate.correction import Estimate, correct_running
from gpu_offload.orchestrator.estimate.forecast import ForecastPosition, forecast
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.observation import Observation, ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.startup import start_seconds
from gpu_offload.remote_job.pace.pace import Pace


def workload_of(run: RunRecord) -> Workload | None:
    """Return the work of a run's training, None for the record of an older version, which does not count images."""
    if not run.images or not run.images.get("train"):
        return None
    spec = run.spec
    return workload(
        task=spec.task,
        model=spec.model,
        image_size=spec.image_size,
        batch=spec.batch,
        epochs=spec.epochs,
        train_images=run.images["train"],
        val_images=run.images.get("val", 0),
        hyperparameters=spec.hyperparameters,
        dataset_bytes=run.dataset_bytes,
        exports=len(spec.exports),
    )


MOVE_S = 180.0
"""What it takes to stop a training on the CPU with a checkpoint, and to begin the move."""


def start_of(run: RunRecord, offer: Offer) -> float:
    """Return what another instance of an offer costs in time before it trains, in seconds; 95 % take less."""
    return start_seconds(run.experience.start_seconds.get(offer.instance_type or "", ()))


def fits(run: RunRecord, observation: Observation, candidate: Candidate) -> bool:
    """Whether what is left of the training fits what is left of time and money, even if it goes badly."""
    if run.forced and not candidate.offer.is_rented:
        return True
    left = seconds_left(run, observation, candidate)
    seconds = left.likely if _may_begin_here(run, observation, candidate) else left.high
    cost = seconds / 3600 * (candidate.offer.usd_per_hour + extras_per_hour(run, candidate.offer))
    in_time = run.forced or observation.now + seconds <= run.deadline_at
    return in_time and cost <= budget(run, observation, candidate.offer)


def _may_begin_here(run: RunRecord, observation: Observation, candidate: Candidate) -> bool:
    """Whether a candidate is the CPU of a run that begins there as a toss-up, and has not left it yet."""
    return run.reversible and candidate.offer.where == "cpu" and not has_left_cpu(observation)


def has_left_cpu(observation: Observation) -> bool:
    """Whether the run has left the CPU for an instance."""
    ended = ((a.record.offer.where, a.end.reason) for a in observation.attempts if a.end is not None)
    return ("cpu", "overrun") in ended


def extras_per_hour(run: RunRecord, offer: Offer) -> float:
    """Return what volume and address add to an hour of an offer, in US dollars."""
    return ebs_prices(offer.region).per_hour(run.volume_gib) if offer.where == "ec2" else 0.0


def budget(run: RunRecord, observation: Observation, offer: Offer) -> float:
    """Return what an attempt on an offer can cost by the hour, in US dollars: what is left after its transfers."""
    epochs = max(0, run.spec.epochs - observation.epochs_completed)
    transfers = traffic_of(run, observation.checkpoint_bytes).usd(offer.region, epochs)
    return run.max_cost_usd - observation.spent_usd - (transfers if offer.where == "ec2" else 0.0)


def traffic_of(run: RunRecord, checkpoint_bytes: int | None) -> Traffic:
    """Return what an attempt passes to and from the store; a checkpoint that was written is better than the estimate."""
    epoch = run.checkpoint_bytes if checkpoint_bytes is None else checkpoint_bytes
    return Traffic(run.store_place, run.dataset_bytes, epoch, run.model_bytes)


def seconds_left(run: RunRecord, observation: Observation, candidate: Candidate) -> Interval:
    """Return how long what is left of the training takes on a fresh start of an offer, in seconds."""
    measured = [a for a in observation.attempts if _machine(a.record.offer) == _machine(candidate.offer)]
    for attempt in reversed(measured):
        rest = _corrected(run, observation, attempt, candidate)
        if rest is not None:
            return rest + start_of(run, candidate.offer) if candidate.offer.where == "ec2" else rest
    return candidate.seconds.scaled(1.0 - min(1.0, observation.epochs_completed / run.spec.epochs))


def running_left(run: RunRecord, observation: Observation, current: ObservedAttempt) -> Interval | None:
    """Return how much longer an attempt that trains will take, None before its first epoch is measured."""
    offer = current.record.offer
    for candidate in run.candidates:
        if _machine(candidate.offer) == _machine(offer):
            return _corrected(run, observation, current, candidate)
    return None


def goes_to_its_limit(run: RunRecord, offer: Offer) -> bool:
    """Whether a training that will exceed its limit goes on: on request, or on a CPU or cluster that was chosen."""
    return run.on_overrun == "continue" or (run.forced and not offer.is_rented)


def overrun(
    run: RunRecord, observation: Observation, current: ObservedAttempt, *, likely: bool = False
) -> str | None:
    """Say why a training attempt will exceed its limits, None while it can keep them.

    By the lower end of the time left, nine in ten certain; with `likely`, by its middle.
    """
    left, beat = running_left(run, observation, current), current.heartbeat
    if left is None or beat is None or beat.state != "training":
        return _unmeasured_overrun(run, observation, current)
    available = current.record.expires_at - observation.now
    # From its last heartbeat on: while the store does not answer, it continues to train.
    if beat.time + (left.likely if likely else left.low) <= current.record.expires_at:
        return None
    limit = "limits.deadline"
    if current.record.expires_at < run.deadline_at - 1:
        rented = current.record.offer.is_rented
        limit = f"max-cost-usd (${run.max_cost_usd:.2f})" if rented else "limits.ci-limit"
    epochs = run.spec.epochs - beat.epochs_completed
    return (
        f"the {epochs} epochs that are left take {human_duration(left.likely)} more "
        f"({human_duration(left.low)} to {human_duration(left.high)}, measured), "
        f"and {limit} ends it in {human_duration(max(0.0, available))}"
    )


def _unmeasured_overrun(run: RunRecord, observation: Observation, current: ObservedAttempt) -> str | None:
    """Say that the job of a training here ends before anything was measured; an instance has its own expiry."""
    begins = current.heartbeat is None or current.heartbeat.state in {"starting", "training"}
    # The attempt of a driver that died is an orphan, however late that is found.
    if current.record.offer.is_rented or current.record.driver != observation.me or not begins:
        return None
    ends = current.record.expires_at < run.deadline_at and observation.now >= current.record.expires_at
    return "its job ends (limits.ci-limit), and no epoch was measured" if ends else None


def leaves(
    run: RunRecord, observation: Observation, current: ObservedAttempt, better: Candidate
) -> str | None:
    """Say why a toss-up that began on the CPU moves to the instance `better` now, None while it stays.

    It moves when it will likely exceed its limit; when it may, and waiting would make the instance too late as well; or
    when the hours saved are worth more than the instance costs, nine in ten certain.
    """
    beat = current.heartbeat
    if not run.reversible or current.record.offer.where != "cpu" or (beat and beat.state == "finishing"):
        return None
    if (doubt := overrun(run, observation, current, likely=True)) is not None:
        return doubt
    left, there = running_left(run, observation, current), seconds_left(run, observation, better)
    heard = beat.time if beat is not None else observation.now
    if left is None or heard + left.high > current.record.expires_at:
        if observation.now + there.high + MOVE_S >= run.deadline_at:
            return "it may not make it here, and later an instance would not either"
        return None
    saved = (left.low - there.high) / 3600 * run.value_of_time_usd_per_hour
    price = there.high / 3600 * (better.offer.usd_per_hour + extras_per_hour(run, better.offer))
    if saved > price:
        return f"an instance saves {human_duration(left.low - there.high)} or more, for ${price:.2f} at most"
    return None


def _corrected(
    run: RunRecord, observation: Observation, attempt: ObservedAttempt, candidate: Candidate
) -> Interval | None:
    """Return the seconds of the epochs that are left, by an attempt's own epochs."""
    beat = attempt.heartbeat
    if beat is None:
        return None
    earlier = [a for a in observation.attempts if a.record.number < attempt.record.number]
    before = max((a.epochs_completed for a in earlier), default=0)
    epochs, trained = run.spec.epochs, beat.epochs_completed - before
    # A later attempt resumes from the checkpoint, this one goes on from its last epoch.
    completed = max(
        observation.epochs_completed, beat.epochs_completed if attempt is observation.current else 0
    )
    work = workload_of(run)
    if beat.pace is not None and work is not None and completed < epochs:
        batches = beat.batch if attempt is observation.current else 0
        at = ForecastPosition(epochs=completed, batches=batches, elapsed=0.0, measured=max(0, trained))
        if (left := _forecast_rest(work, beat.pace, at)) is not None:
            return left
    if not beat.seconds_per_epoch or trained < 1 or epochs <= trained:
        return None
    rest = _measured_rest(candidate.seconds, epochs, trained, beat.seconds_per_epoch)
    return rest and rest.scaled(max(0, epochs - completed) / (epochs - trained))


@lru_cache(maxsize=256)
def _measured_rest(seconds: Interval, epochs: int, trained: int, seconds_per_epoch: float) -> Interval | None:
    """Return the seconds of the epochs after `trained`, by the estimate of all and their pace; None for odd numbers."""
    likely = max(seconds.likely, 1e-3)
    estimate = Estimate(
        interval=seconds,
        breakdown={"training": likely},
        basis="prior, not measured",
        # The widest spread, however it was estimated: measured epochs count more than what was expected of them.
        kind="cpu-prior",
        epoch_seconds=((epochs, likely / epochs),),
        before=0.0,
        earliest_epochs=epochs,
    )
    so_far = trained * seconds_per_epoch
    try:
        whole = correct_running(estimate, trained, so_far)
        return Interval(*(max(0.0, bound - so_far) for bound in (whole.low, whole.likely, whole.high)))
    except (ValueError, ArithmeticError):  # any process can write the number
        return None


@lru_cache(maxsize=256)
def _forecast_rest(work: Workload, pace: Pace, at: ForecastPosition) -> Interval | None:
    """Return the seconds left by a training's own steps; None where its numbers, which any process can write, are absurd."""
    try:
        return forecast(work, pace, at).interval
    except (ValueError, ArithmeticError):
        return None


def _machine(offer: Offer) -> tuple[str | None, ...]:
    """What trains equally fast."""
    return offer.where, offer.instance_type
