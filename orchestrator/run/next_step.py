"""What to do next for a run: a pure function of the journal and of what was seen just now.

There is no recovery code. The first start, a re-run, a run that another machine carries on and the sweep all
ask this one question, over and over, until the answer is Done.
"""

from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.run.liveness import (
    LAUNCH_LIMIT_S,
    absence,
    ended_at,
    fruitless_attempts,
    is_gone,
    may_appear,
    stillborn_attempts,
    unbooked,
    verdict,
)
from gpu_offload.orchestrator.run.observation import (
    Observation,
    ObservedAttempt,
)
from gpu_offload.orchestrator.run.outlook import (
    fitting,
    fresh_refusals,
    moving_to_spot,
    waiting_for_spot,
)
from gpu_offload.orchestrator.run.pace import fits, goes_to_its_limit, overrun
from gpu_offload.orchestrator.run.record import (
    EndReason,
    RunRecord,
)
from gpu_offload.orchestrator.run.step import (
    CleanUp,
    CloseAttempt,
    Collect,
    Done,
    Finish,
    Launch,
    OpenAttempt,
    Publish,
    RecordHost,
    Step,
    Terminate,
    Train,
    Wait,
)

START_TRIES = 2
"""So many instances in a row may fail to become ready or to start the training: a broken one is replaced once."""

WATCH_S = 240.0
"""Between two looks at a training on an instance. Whoever follows it comes back at once when it ends or falls
silent, so this only bounds what asking costs: 15 times an hour."""

TRAINING = "the instance is training"
STARTING_POLL_S = 1.0
ENDING_POLL_S = 3.0
MOST_PATIENT_S = 60.0


def next_step(run: RunRecord, observation: Observation) -> Step:
    """Decide the next step of a run. Total: every state of the journal and of the cloud has an answer."""
    if observation.outcome is not None:
        return _clear(observation, "the run is over") or Done(observation.outcome)
    if observation.driver is not None:
        return Wait(_patience(observation.now - run.created_at), f"{observation.driver} drives this run")
    booking = unbooked(observation)
    if booking is not None:
        return booking
    if observation.published:
        return _close_down(observation, Finish("published", ""), "finished", "the model is published")
    if observation.result is not None:
        return _bring_home(observation)
    ending = _ending(run, observation)
    if ending is not None:
        return ending
    current = observation.current
    if current is None:
        return _clear(observation, "its attempt has ended") or _open_next(run, observation)
    stray = tuple(i.id for i in observation.live if i.attempt != current.record.number)
    if stray:
        return Terminate(stray, "it belongs to no open attempt")
    if current.record.offer.where == "cpu":
        return _train_here(observation, current)
    return _train_there(run, observation, current)


def _bring_home(observation: Observation) -> Step:
    """A result is staged: verify it, let go of what costs money, publish."""
    if observation.collected is None:
        return Collect()
    live = observation.live
    if live:
        return Terminate(tuple(i.id for i in live), "the result is in the store")
    return Publish()


def _ending(run: RunRecord, observation: Observation) -> Step | None:
    """Why the run must end without a model, if it must."""
    if observation.stop is not None:
        return _close_down(
            observation, Finish("stopped", observation.stop.reason), "stopped", observation.stop.reason
        )
    if observation.now >= run.deadline_at:
        message = "the deadline passed; raise limits.deadline and train again: it carries on where this ended"
        return _close_down(observation, Finish("failed", message), "expired", "the deadline passed")
    failed = next((a.end for a in reversed(observation.attempts) if a.end and a.end.reason == "failed"), None)
    if failed is not None:
        return _close_down(observation, Finish("failed", failed.message), "failed", failed.message)
    current = observation.current
    if current is not None and current.heartbeat is not None and current.heartbeat.state == "failed":
        message = current.heartbeat.message or "the training failed; its log says why"
        return _close_down(observation, Finish("failed", message), "failed", message)
    if observation.spent_usd >= run.max_cost_usd > 0 and not is_gone(observation):
        message = f"max-cost-usd is used up (${observation.spent_usd:.2f} of ${run.max_cost_usd:.2f})"
        return _close_down(observation, Finish("failed", message), "expired", message)
    return _overrunning(run, observation)


def _overrunning(run: RunRecord, observation: Observation) -> Step | None:
    """Say early that money or time will not do, and do what the configuration says."""
    last = observation.attempts[-1] if observation.attempts else None
    if last is None or goes_to_its_limit(run, last.record.offer):
        return None
    if last.end is not None:
        if last.end.reason != "overrun":
            return None
        if run.on_overrun == "escalate" and next(fitting(run, observation), None) is not None:
            return None
        return _close_down(observation, Finish("failed", last.end.message), "overrun", last.end.message)
    why = overrun(run, observation, last)
    if why is None or last.heartbeat is None:
        return None
    better = next(fitting(run, observation), None) if run.on_overrun == "escalate" else None
    if better is not None:
        message = f"{why}; {better.offer.name} would make it"
        return _clear_attempt(observation, last, "overrun", message)
    kept = f"{max(observation.epochs_completed, last.heartbeat.epochs_completed)} of {run.spec.epochs} epochs are kept"
    advice = f"{why}. {kept}: raise the limit and train again, it carries on from there"
    finish = Finish("failed", advice)
    return _close_down(observation, finish, "overrun", advice)


def _train_here(observation: Observation, current: ObservedAttempt) -> Step:
    if current.record.driver == observation.me:
        return Train(current.record.number)
    return CloseAttempt(current.record.number, "died", "the process that trained is gone")


def _train_there(run: RunRecord, observation: Observation, current: ObservedAttempt) -> Step:
    """The one attempt that may have an instance: launch it, start it, watch it, or give it up."""
    number = current.record.number
    mine = observation.instances_of(number)
    live = tuple(i for i in mine if i.state in {"pending", "running"})
    judged = verdict(observation, current, mine)
    if judged is None and (why := moving_to_spot(run, observation, current)) is not None:
        judged = "moved", why
    judged = judged or absence(observation, current, mine)
    if judged is not None:
        return _clear_attempt(observation, current, *judged)
    if current.host is None:
        if current.record.driver != observation.me and current.heartbeat is None:
            return Wait(ENDING_POLL_S, "what its driver may have launched is not visible yet")
        adopted = next((i.host for i in live if i.host is not None), None)
        if adopted is not None and observation.now - current.record.created_at > LAUNCH_LIMIT_S:
            return RecordHost(number, adopted)  # the answers keep getting lost, and the token does not last
        # Seen or not: under its token the launch answers with the same instance, and accounting needs the answer.
        return Launch(number)
    if not live:
        return Wait(STARTING_POLL_S, "the instance is not visible yet")
    if current.heartbeat is not None:
        seconds = max(ENDING_POLL_S, min(WATCH_S, current.record.expires_at - observation.now))
        doubt = overrun(run, observation, current, likely=True)
        return Wait(seconds, f"it may not make it: {doubt}" if doubt else TRAINING)
    if all(i.state == "pending" for i in live):
        return Wait(STARTING_POLL_S, "the instance is starting")
    return Train(number)


def _clear_attempt(
    observation: Observation, current: ObservedAttempt, reason: EndReason, message: str
) -> Step:
    """Let go of an attempt: its instance first, then the journal."""
    number = current.record.number
    live = tuple(i.id for i in observation.instances_of(number) if i.state in {"pending", "running"})
    if live:
        return Terminate(live, message)
    return CloseAttempt(number, reason, message, ended_at(observation, current))


def _patience(age: float) -> float:
    """How long to wait for another driver, in seconds: the longer it has worked, the longer it will."""
    return min(MOST_PATIENT_S, max(ENDING_POLL_S, age / 10))


def _close_down(observation: Observation, finish: Finish, reason: EndReason, message: str) -> Step:
    """End the run: nothing that costs money first, then the journal."""
    clear = _clear(observation, message)
    if clear is not None:
        return clear
    current = observation.current
    if current is not None:
        return CloseAttempt(current.record.number, reason, message, ended_at(observation, current))
    return finish


def _clear(observation: Observation, reason: str) -> Step | None:
    """Whatever of the run still costs money or lies about; None when there is nothing."""
    live = observation.live
    if live:
        return Terminate(tuple(i.id for i in live), reason)
    if any(i.state == "shutting-down" for i in observation.instances):
        return Wait(ENDING_POLL_S, "an instance is shutting down")
    if any(may_appear(observation, attempt) for attempt in observation.attempts):
        return Wait(ENDING_POLL_S, "an instance may have been launched that EC2 does not show yet")
    if observation.leftovers:
        return CleanUp(observation.leftovers)
    return None


def _open_next(run: RunRecord, observation: Observation) -> Step:
    fruitless = fruitless_attempts(observation)
    if fruitless >= run.max_attempts:
        return Finish("failed", f"{fruitless} attempts in a row completed no epoch")
    stillborn = stillborn_attempts(observation)
    if len(stillborn) >= START_TRIES:
        return Finish("failed", f"{len(stillborn)} instances in a row never trained: {stillborn[-1].message}")
    chosen = next(fitting(run, observation), None)
    number = len(observation.attempts) + 1
    if chosen is not None:
        return OpenAttempt(number, chosen.offer, _expiry(run, observation, chosen.offer))
    waiting = waiting_for_spot(run, observation)
    if waiting is not None:
        return Wait(60.0, waiting)
    if any(not a.quota for a in fresh_refusals(observation)) and not _all_unfit(run, observation):
        return Wait(60.0, "every offer was refused a moment ago")
    refusals = [a.end for a in observation.attempts if a.end is not None and a.end.reason == "refused"]
    last = f"; the last refusal: {refusals[-1].message}" if refusals else ""
    kept = (
        f"; {observation.epochs_completed} of {run.spec.epochs} epochs are kept"
        if observation.epochs_completed
        else ""
    )
    return Finish("failed", f"no offer is left that fits the deadline and max-cost-usd{last}{kept}")


def _all_unfit(run: RunRecord, observation: Observation) -> bool:
    return not any(fits(run, observation, candidate) for candidate in run.candidates)


def _expiry(run: RunRecord, observation: Observation, offer: Offer) -> float:
    """When money or time ends an attempt: the absolute time that the instance itself enforces."""
    if offer.usd_per_hour <= 0:
        return run.deadline_at
    affordable = (run.max_cost_usd - observation.spent_usd) / offer.usd_per_hour * 3600
    return min(run.deadline_at, observation.now + affordable)
