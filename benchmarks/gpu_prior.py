"""Fits the GPU prior to the speeds in `gpu_anchors`, with each GPU left out in turn.

    python benchmarks/gpu_prior.py [--ridge 0.2]

Prints the parameters for `orchestrator/estimate/gpu.py`, and the errors on speeds of GPUs that the fit did not see. The
ridge draws towards round values, because eight GPUs do not determine seven parameters. Takes half a minute; needs scipy.
"""

import argparse
import math
import statistics

import numpy as np
from scipy.optimize import minimize

from gpu_offload.orchestrator.estimate.architecture import host_work
from gpu_offload.orchestrator.estimate.gpu_anchors import ANCHORS, FAST

NAMES = ("iteration", "image", "power", "peak power", "bandwidth power", "fast host", "augmentation")
CENTRE = np.log([0.07, 0.013, 0.75, 0.35, 0.6, 0.6, 0.0098])
SCALE = np.array([0.3, 0.3, 0.15, 0.4, 0.3, 0.4, 0.3])


def predicted(anchor, point):
    iteration, image, power, peak, bandwidth, host, augmentation = np.exp(point)
    index = (anchor.fp16_tflops / 65) ** peak * (anchor.bandwidth_gb_s / 320) ** bandwidth
    area = (anchor.image_size / 640) ** 2
    overhead = iteration * host_work(anchor.model) * (host if anchor.source in FAST else 1.0)
    compute = overhead / anchor.batch + image * area * (anchor.gflops_640 / 30) ** power / index
    if not anchor.workers:
        return compute
    load = (0.0024 + 0.0036 * 0.41 + augmentation * area) / (anchor.workers * 0.7)
    return (compute**6 + load**6) ** (1 / 6)


def fitted(anchors, ridge):
    """Return the parameters of least absolute log error; a GPU with many speeds counts by the root of their number."""
    of_gpu = {gpu: sum(a.gpu == gpu for a in anchors) for gpu in {a.gpu for a in anchors}}

    def loss(point):
        errors = sum(
            abs(math.log(predicted(a, point) / a.seconds_per_image)) / of_gpu[a.gpu] ** 0.5 for a in anchors
        )
        return errors + ridge * float(np.sum(((point - CENTRE) / SCALE) ** 2))

    options = {"maxiter": 6000, "xatol": 1e-4, "fatol": 1e-4}
    return min((minimize(loss, CENTRE + step, method="Nelder-Mead", options=options) for step in (0.0, 0.05)),
               key=lambda found: found.fun).x  # fmt: skip


def summary(logs):
    errors = sorted(abs(math.exp(log) - 1) for log in logs)
    return f"median {statistics.median(errors):.1%}, largest {errors[-1]:.0%}, sd(log) {statistics.stdev(logs):.3f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ridge", type=float, default=0.2)
    options = parser.parse_args()
    point = fitted(ANCHORS, options.ridge)
    print("\n".join(f"{name:15} {math.exp(value):.4f}" for name, value in zip(NAMES, point, strict=True)))
    print("fitted:", summary([math.log(a.seconds_per_image / predicted(a, point)) for a in ANCHORS]))
    logs = []
    for gpu in sorted({a.gpu for a in ANCHORS}):
        point = fitted([a for a in ANCHORS if a.gpu != gpu], options.ridge)
        own = [math.log(a.seconds_per_image / predicted(a, point)) for a in ANCHORS if a.gpu == gpu]
        print(f"{gpu:12} {', '.join(f'{math.exp(log) - 1:+.0%}' for log in own)}", flush=True)
        logs += own
    print("left out:", summary(logs))


if __name__ == "__main__":
    main()
