"""Runs and attempts as the journal would hold them."""

import time

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import GPUS, Offer
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord, HostRecord, RunRecord
from gpu_offload.remote_job.result import Artifact, Timings, TrainingResult
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec

KEY, FINGERPRINT = "a" * 64, "f" * 64
SOON = Interval(1, 2, 3)


def gpu_offer(zone="us-east-1a", market="spot", usd_per_hour=0.2):
    region = zone[:-1]
    return Offer("ec2", "g4dn.xlarge", region, zone, market, usd_per_hour, "test", GPUS["T4"], 4, 16.0, 0.526)


def spec_of(**changes):
    values = {
        "run": "abc-1", "attempt": 1, "training_key": KEY, "task": Task.DETECT, "model": "yolov8n.yaml", "epochs": 3,
        "dataset": DatasetRef(fingerprint=FINGERPRINT, archive="datasets/f.tar"), "image_size": 64, "batch": 8,
        "seed": 0, "output": "",
    }  # fmt: skip
    return TrainingSpec(**(values | changes))


def run_of(*candidates, now=None, **changes):
    """A run on candidates, or on offers that take a few seconds."""
    now = time.time() if now is None else now
    name = changes.get("id", "abc-1")
    values = {
        "id": name,
        "training_key": KEY,
        "fingerprint": FINGERPRINT,
        "version": "a" * 16,
        "created_at": now,
        "deadline_at": now + 3600,
        "max_cost_usd": 1.0,
        "why": "because",
        "candidates": tuple(map(candidate_of, candidates or (gpu_offer(),))),
        "forced": True,
        "estimate": SOON,
        "spec": spec_of(run=name),
    }
    return RunRecord(**(values | changes))


def candidate_of(offer, seconds=SOON):
    return offer if isinstance(offer, Candidate) else Candidate(offer=offer, seconds=seconds)


def result_of(**changes):
    values = {
        "run": "abc-1", "attempt": 1, "training_key": KEY, "fingerprint": FINGERPRINT, "task": Task.DETECT, "epochs": 3,
        "epochs_completed": 3, "model": Artifact(name="model.pt", size=1, sha256="0" * 64), "metrics": {},
        "timings": Timings(), "environment": {},
    }  # fmt: skip
    return TrainingResult(**(values | changes))


def attempt_of(run, number=1, offer=None):
    return AttemptRecord(
        number=number,
        offer=offer or run.candidates[0].offer,
        created_at=run.created_at,
        expires_at=run.created_at + 1800,
        driver="me",
    )


T0 = 1_700_000_000.0


def host(launched, *, market="spot", zone="us-east-1a"):
    return HostRecord(
        instance_id="i-1", address="127.0.0.9", launched_at=launched, market=market, zone=zone,
        region="us-east-1", volume_gib=60,
    )  # fmt: skip


def seen_attempt(number, launched, ended, reason="finished", *, market="spot", with_host=True):
    run = run_of(now=T0)
    return ObservedAttempt(
        attempt_of(run, number, gpu_offer(market=market)),
        host=host(launched, market=market) if with_host else None,
        end=AttemptEnd(number=number, reason=reason, at=ended, by_cloud=reason == "reclaimed")
        if ended
        else None,
    )
