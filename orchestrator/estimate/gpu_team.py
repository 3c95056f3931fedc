"""How much faster several GPUs of one machine train a model together.

A prior, not measured on the instances that are rented. Ultralytics publishes an epoch of YOLOv5l with 16 images a GPU on 1, 2, 4
and 8 A100 (20:39, 11:43, 5:57, 3:09 min; docs of YOLOv5, "Multi-GPU Training"): a step takes 1.13, 1.15 and 1.22 times as long as
on one, which `WAITING` fits to 5 %. Those GPUs have NVLink. The rented ones share PCIe, whose transfers `transfer_seconds` adds.
"""

import math

from gpu_offload.orchestrator.estimate.workload import Workload

WAITING = 0.075
"""How much longer a step takes each time that the number of GPUs doubles: the slowest of them decides."""
BUS_BYTES_S = 5e9
"""Of one GPU to the others through the host's memory. PCIe 3.0 x8, as a T4 has it, carries 7.9e9 by its specification."""
EXPOSED = 0.5
"""The share of the transfers that no arithmetic hides: gradients are sent while the backward pass goes on. A guess."""
SPREAD = 0.31
"""ln of the 80 % interval's half width: what is not known of a team beside what is not known of one GPU."""


def team_step(seconds: float, work: Workload, gpus: int) -> float:
    """Return the seconds of a step of several GPUs, of which each alone takes `seconds` for its share of the batch."""
    return seconds * (1 + WAITING * math.log2(gpus)) + EXPOSED * transfer_seconds(work, gpus)


def transfer_seconds(work: Workload, gpus: int) -> float:
    """Return the time of a ring's all-reduce of the gradients, which are in single precision."""
    return 2 * (gpus - 1) / gpus * 4 * work.parameters / BUS_BYTES_S


def speed_up(one: float, together: float, gpus: int) -> str:
    """Say how much faster a step of several GPUs is than one of a single GPU with the whole batch."""
    factor = one / together
    low, high = factor * math.exp(-SPREAD), min(gpus, factor * math.exp(SPREAD))
    return (
        f"{gpus} GPUs train about {factor:.1f} times as fast as one ({low:.1f} to {high:.1f}), not measured"
    )
