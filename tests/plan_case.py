"""A plan's report."""

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.plan.decision import decide, judge
from gpu_offload.orchestrator.plan.option import Limits, PlanReport


def report(**changes):
    limits = Limits(6 * 3600, 1.0, ci_limit_s=6 * 3600)
    options = (
        judge(cpu_offer(4), Interval(8000, 11_400, 14_000), limits),
        *(judge(offer, Interval(1500, 1800, 3000), limits) for offer in TABLE),
    )
    given_ = {
        "fingerprint": "0123456789abcdef" * 4,
        "training_key": "fedcba9876543210" * 4,
        "already_trained": None,
        "images": {"train": 301, "val": 76, "test": 0},
        "dataset_bytes": 29_500_000,
        "options": options,
        "decision": decide(options, limits, epochs=20),
        "notes": ("measured on this machine: 4 cores",),
    }
    return PlanReport(**given_ | changes)
