"""Runs and attempts as the journal would hold them."""

import time

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import GPUS, Offer
from gpu_offload.orchestrator.plan.candidate import Candidate
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord, HostRecord, RunRecord
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec


def gpu_offer(zone="us-east-1a", market="spot"):
    return Offer("ec2", "g4dn.xlarge", "us-east-1", zone, market, 0.2, "test", GPUS["T4"], 4, 16.0, 0.526)


def run_of(*offers, now=None, **changes):
    now = time.time() if now is None else now
    values = {
        "id": "abc-1",
        "training_key": "a" * 64,
        "fingerprint": "f" * 64,
        "version": "a" * 16,
        "created_at": now,
        "deadline_at": now + 3600,
        "max_cost_usd": 1.0,
        "why": "because",
        "candidates": tuple(Candidate(offer=o, seconds=Interval(1, 2, 3)) for o in offers or (gpu_offer(),)),
        "forced": True,
        "estimate": Interval(1, 2, 3),
        "spec": TrainingSpec(
            run="abc-1", attempt=1, training_key="a" * 64, task=Task.DETECT,
            dataset=DatasetRef(fingerprint="f" * 64, archive="datasets/f.tar"),
            model="yolov8n.yaml", epochs=3, image_size=64, batch=8, seed=0, output="",
        ),
    }  # fmt: skip
    return RunRecord(**(values | changes))


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
