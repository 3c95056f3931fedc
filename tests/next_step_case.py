"""Runs, attempts and observations for the tests of what a run does next."""

from dataclasses import replace

import run_case
from run_case import candidate_of, gpu_offer, result_of, spec_of
from run_case import host as host_of

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.observation import ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord, Collected, LaunchingRecord
from gpu_offload.orchestrator.run.step import OpenAttempt
from gpu_offload.remote_job.result import Heartbeat


class Opens:
    """An attempt on an offer, until whenever."""

    def __init__(self, number, offer):
        self.number, self.offer = number, offer

    def __eq__(self, other):
        return isinstance(other, OpenAttempt) and (other.number, other.offer) == (self.number, self.offer)

    def __hash__(self):
        return hash((self.number, self.offer))


ME, OTHER = "here:1:aa", "there:2:bb"
T0 = 1_000_000.0


CPU = Candidate(offer=cpu_offer(2), seconds=Interval(600, 1000, 2000))
TAKES = Interval(300, 600, 1200)
SPOT_A = candidate_of(gpu_offer("us-east-1a"), TAKES)
SPOT_B = candidate_of(gpu_offer("us-east-1b"), TAKES)
SPOT_WEST = candidate_of(gpu_offer("us-west-2a"), TAKES)
SPOT_BIG = candidate_of(replace(gpu_offer(usd_per_hour=0.1), instance_type="g4dn.2xlarge", vcpus=8), TAKES)
ON_DEMAND = candidate_of(gpu_offer("us-east-1a", "on-demand", 0.526), TAKES)


def run_of(*candidates, **changes):
    values = {
        "deadline_at": T0 + 21600, "forced": False, "estimate": TAKES,
        "spec": spec_of(epochs=10, image_size=160, batch=16, output="/out"),
    }  # fmt: skip
    return run_case.run_of(*(candidates or (SPOT_A, SPOT_B, ON_DEMAND)), now=T0, **(values | changes))


def attempt(
    number=1, candidate=SPOT_A, *, driver=ME, created=None, expires=None, host=True, beat=None, end=None
):
    """An attempt, whose launch began when it was opened; one that has ended was launched long ago."""
    created = created if created is not None else T0 if end is None else T0 - 1000
    record = AttemptRecord(
        number=number,
        offer=candidate.offer,
        created_at=created,
        expires_at=T0 + 18000 if expires is None else expires,
        driver=driver,
    )
    there = host and candidate.offer.where == "ec2"
    return ObservedAttempt(
        record,
        host=host_of(created).model_copy(update={"instance_id": f"i-{number}"}) if there else None,
        heartbeat=beat,
        end=end,
        launching=LaunchingRecord(first_at=created, at=created) if candidate.offer.where == "ec2" else None,
    )


def beat(at, state="training", epochs=1, message=None, pace=None):
    return Heartbeat(
        run="abc-1", attempt=1, time=at, pid=1, host="h", boot_id="b", epochs_completed=epochs, epochs=10,
        state=state, message=message, seconds_per_epoch=pace,
    )  # fmt: skip


def ended(number, reason, at=T0, **more):
    return AttemptEnd(number=number, reason=reason, at=at, message=reason, **more)


RESULT = result_of(epochs=10, epochs_completed=10)
COLLECTED = Collected(at=T0, attempt=1, model_sha256="0" * 64)
RUNNING = ObservedInstance("i-1", 1, "running")
PENDING = ObservedInstance("i-1", 1, "pending")
ENDING = ObservedInstance("i-1", 1, "shutting-down")
GONE = ObservedInstance("i-1", 1, "terminated")
NOW = T0 + 100
LATE = T0 + 100_000
