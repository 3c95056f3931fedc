"""The offers that a run may try, in order."""

from collections.abc import Callable, Sequence

from pydantic import Field

from gpu_offload.orchestrator.estimate.history import ultralytics_minor
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import HistoryKey, Ratio, matching
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.plan.option import Decision, Option
from gpu_offload.remote_job.wire import Wire


class Prediction(Wire):
    """The estimate that the outcome will be compared with, and the facts by which other trainings are matched."""

    seconds: float
    """The estimate before history corrected it: of the training's process here, from launch to end on EC2."""
    machine: str
    ultralytics: str
    rests: tuple[float, ...] = ()
    """ln(actual / forecast) of the rest after the first steps, of earlier trainings of this kind."""


class Candidate(Wire):
    """An offer and how long the whole training would take on it, set-up included."""

    offer: Offer
    seconds: Interval
    predicted: Prediction | None = None


class Project(Wire):
    """Model definition and training code of the user's, as one tar below the run's inputs."""

    size: int = Field(ge=0)
    sha256: str
    model: str | None = None
    """The model definition's path in it, where it is a file of the user's."""


def list_candidates(
    decision: Decision,
    options: tuple[Option, ...],
    on: str,
    here: str,
    *,
    past: Sequence[Ratio],
    key: Callable[[str], HistoryKey],
    escalates: bool,
) -> tuple[Candidate, ...]:
    """Return what a run may try: the chosen option first, then the feasible ones by their likely cost.

    A run on the CPU stays there unless it `escalates`. A run on EC2 may fall back to a feasible CPU if `on` is `auto`.
    `here` is this machine's name among `past` trainings, `key` what those on a machine share with this one.
    """

    def candidate(option: Option) -> Candidate:
        machine = here if option.where == "cpu" else option.offer.machine
        rests = tuple(r.rest for r in matching(past, key(machine)) if r.rest is not None)
        predicted = option.point and Prediction(
            seconds=option.point, machine=machine, ultralytics=ultralytics_minor(), rests=rests
        )
        return Candidate(offer=option.offer, seconds=option.trained, predicted=predicted or None)

    chosen = decision.option
    if chosen is None:
        return ()
    # A cluster's training does not move: it has no price to compare with.
    if chosen.where == "ray" or (chosen.where == "cpu" and not escalates):
        return (candidate(chosen),)
    rented = [o for o in options if o.where == "ec2" and o.feasible and o is not chosen]
    # On-demand costs more and is what is left without spot capacity.
    rented.sort(key=lambda o: (o.market != "spot", o.cost_likely))
    fallback = [o for o in options if o.where == "cpu" and o.feasible and on == "auto" and o is not chosen]
    return tuple(candidate(option) for option in (chosen, *rented, *fallback))
