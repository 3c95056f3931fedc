"""How long a training takes on a GPU, and what fits into its memory."""

import math
import random
import re
import statistics
from dataclasses import replace

import pytest
from estimate_case import calibration, work
from hypothesis import given
from hypothesis import strategies as st
from settings_case import MINIMUM, load

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.cost.traffic import UNCHARGED
from gpu_offload.orchestrator.estimate.architecture import host_work
from gpu_offload.orchestrator.estimate.gpu import (
    estimate_gpu_prior,
    gpu_seconds_per_image,
    rental_seconds,
)
from gpu_offload.orchestrator.estimate.gpu_anchors import ANCHORS, FAST, Anchor
from gpu_offload.orchestrator.estimate.gpu_memory import largest_batch, memory_fault, memory_gib
from gpu_offload.orchestrator.estimate.posterior import (
    predict,
)
from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.orchestrator.offers.offer import FAST_HOST, GPUS, Gpu, gpu_named
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.plan.appraisal import Appraisal
from gpu_offload.orchestrator.plan.option import Limits


def _predicted(anchor: Anchor) -> float:
    training = Workload(
        task=Task.DETECT, model=anchor.model, gflops_640=anchor.gflops_640, parameters=1,
        dual_head=anchor.dual_head, image_size=anchor.image_size, batch=anchor.batch, epochs=1,
        train_images=anchor.images, val_images=0, host_work=host_work(anchor.model),
    )  # fmt: skip
    host = FAST_HOST if anchor.source in FAST else 1.0
    gpu = Gpu(anchor.gpu, 16, anchor.fp16_tflops, anchor.bandwidth_gb_s, host=host)
    return gpu_seconds_per_image(training, gpu, anchor.workers)


def test_the_gpu_prior_holds_on_the_speeds_that_it_was_fitted_on():
    logs = [math.log(anchor.seconds_per_image / _predicted(anchor)) for anchor in ANCHORS]
    errors = sorted(abs(math.exp(log) - 1) for log in logs)
    assert statistics.median(errors) < 0.11
    assert errors[-1] < 0.45
    assert statistics.stdev(logs) < 0.15
    bound = predict("gpu").quantile(0.9)
    assert sum(abs(log) <= bound for log in logs) >= 0.8 * len(logs)


def test_single_precision_takes_longer_and_more_memory():
    single = work(hyperparameters={"amp": False}, image_size=640, model="yolov8x.yaml")
    mixed = work(image_size=640, model="yolov8x.yaml")
    assert gpu_seconds_per_image(single, GPUS["T4"], 4) > 2 * gpu_seconds_per_image(mixed, GPUS["T4"], 4)
    assert memory_gib(single) > 1.5 * memory_gib(mixed)


@pytest.mark.parametrize(
    ("model", "size", "batch", "gib"),
    [
        ("yolov8n", 640, 16, 2.56), ("yolov8n", 640, 128, 15.65), ("yolov8n", 1280, 8, 4.72), ("yolov8m", 640, 64, 22.98),
        ("yolov8x", 640, 32, 23.83), ("yolo11m", 640, 16, 8.81), ("yolo26n", 640, 32, 6.36), ("yolo26x", 640, 16, 17.09),
        ("yolov8n-seg", 640, 16, 4.15), ("yolov8m-pose", 640, 16, 7.17),
    ],
)  # fmt: skip
def test_the_memory_prior_meets_what_an_h200_was_measured_at(model, size, batch, gib):
    """What the driver had given a training after 22 steps, to a quarter."""
    assert memory_gib(work(model=f"{model}.yaml", image_size=size, batch=batch)) == pytest.approx(
        gib, rel=0.25
    )


def test_a_gpu_is_known_by_the_name_that_its_driver_gives_it():
    assert gpu_named("NVIDIA H100 80GB HBM3", 79.6) == replace(
        GPUS["H100"], name="NVIDIA H100 80GB HBM3", memory_gib=79.6
    )
    assert gpu_named("NVIDIA L40S", 45).fp16_tflops == GPUS["L40S"].fp16_tflops, "not an L4"
    assert gpu_named("Tesla T4", 15).bandwidth_gb_s == 320
    assert gpu_named("NVIDIA GeForce RTX 9999", 12).memory_gib == 12


def test_a_gpu_of_this_machine_needs_no_launch():
    training, t4 = work(), GPUS["T4"]
    here, rented = estimate_gpu_prior(training, t4, 4, setup=None), estimate_gpu_prior(training, t4, 4)
    assert rented.point - here.point == pytest.approx(sum(rental_seconds(training).values()))
    assert "boot" not in here.breakdown


def test_a_batch_that_cannot_fit_into_a_gpu_is_named_with_one_that_does():
    large = work(model="yolov8x.yaml", image_size=1280, batch=64)
    fault = memory_fault(large, GPUS["T4"])
    batch = int(re.search(r"training.batch = (\d+) fits", fault)[1])
    assert memory_fault(replace(large, batch=batch), GPUS["T4"]) is None
    assert memory_gib(large, batch) <= GPUS["T4"].memory_gib
    assert memory_fault(work(image_size=640), GPUS["T4"]) is None


@given(
    st.integers(1, 300),
    st.sampled_from(["yolov8n.yaml", "yolo11x.yaml", "yolo26m-seg.yaml"]),
    st.integers(1, 40),
)
def test_a_larger_batch_never_needs_less_memory(batch, model, size):
    training = work(model=model, image_size=32 * size, batch=batch)
    assert memory_gib(replace(training, batch=batch + 1)) > memory_gib(training)
    assert memory_gib(replace(training, multi_scale=0.5)) > memory_gib(training)
    assert largest_batch(training, GPUS["L40S"]) >= largest_batch(training, GPUS["T4"])


@pytest.mark.parametrize(("runs", "most"), [(1, 0.12), (5, 0.08)])
def test_runs_of_the_same_kind_teach_the_gpu_s_estimate(runs, most):
    """Replayed: kinds are off by 0.25 and their runs by 0.09, relative, as the same instance type differs."""
    chance, errors = random.Random(runs), []
    for _ in range(400):
        off = chance.gauss(0, 0.25)
        seen = [off + chance.gauss(0, 0.09) for _ in range(runs)]
        errors.append(abs(off + chance.gauss(0, 0.09) - predict("gpu", seen).mean))
    assert statistics.median(errors) < most


def test_a_loader_of_large_photographs_holds_a_fast_gpu_back():
    """With photographs that take 43 ms to decode an L40S is no faster than a T4; with small ones it is."""
    large = work(image_size=640, decode=0.043)
    small = work(image_size=640, decode=0.0014, model="yolov8x.yaml")
    t4, l40s = GPUS["T4"], GPUS["L40S"]
    assert gpu_seconds_per_image(large, l40s, 4) > 0.85 * gpu_seconds_per_image(large, t4, 4)
    assert gpu_seconds_per_image(small, l40s, 4) < 0.6 * gpu_seconds_per_image(small, t4, 4)


def test_a_rented_gpu_s_estimate_counts_boot_set_up_and_download():
    training = work(dataset_bytes=1_000_000_000)
    usual = estimate_gpu_prior(training, GPUS["T4"], 4)
    baked = estimate_gpu_prior(training, GPUS["T4"], 4, setup=20)
    assert usual.point - baked.point == pytest.approx(160)
    assert usual.breakdown["boot"] == 90
    assert usual.breakdown["download"] > 20
    assert usual.before > 270
    assert usual.basis == "prior, not measured"


def test_several_gpus_are_faster_but_never_as_many_times_and_less_certain():
    """Near Ultralytics' own figures of GPUs with NVLink, a batch of 16 for each, and below them: PCIe is slower."""
    for gpus, published in ((2, 1.76), (4, 3.47), (8, 6.55)):
        one = work(model="yolov5l.yaml", batch=16, train_images=118_287, image_size=640, epochs=1)
        many = replace(one, batch=16 * gpus)
        alone = estimate_gpu_prior(one, GPUS["A100"], 12)
        together = estimate_gpu_prior(many, replace(GPUS["A100"], count=gpus), 12 * gpus)
        speed_up = alone.breakdown["training"] / together.breakdown["training"]
        assert 0.8 * published < speed_up < 1.02 * published
        spread = together.interval.high / together.interval.likely
        assert spread > alone.interval.high / alone.interval.likely
        assert any(f"{gpus} GPUs" in note for note in together.notes)


def test_a_small_batch_gains_little_from_more_gpus_and_a_large_one_fits_into_several():
    small, t4 = work(batch=8, image_size=320), GPUS["T4"]
    four = replace(t4, count=4)
    training = [estimate_gpu_prior(small, gpu, 48).breakdown["training"] for gpu in (t4, four)]
    assert training[0] / training[1] < 1.2
    large = work(model="yolov8x.yaml", image_size=640, batch=32)
    assert memory_fault(large, t4) is not None
    assert memory_fault(large, four) is None
    assert largest_batch(large, four) == 4 * largest_batch(large, t4)


def test_a_model_of_one_s_own_counts_as_measured_on_a_gpu_too(tmp_path):
    settings = load(tmp_path, MINIMUM + '[training]\nmodel = "own.yaml"\n')
    unknown = Appraisal(settings, work(model="own.yaml", image_size=320), (), UNCHARGED)
    measured = calibration(model="own.yaml", gflops=100.0, parameters=90_000_000)
    limits = Limits(1e9, 1e9)

    def rented(appraisal):
        cpu = appraisal.on_cpu(None)
        return next(o for o in appraisal.options(cpu, limits, TABLE, ()) if o.where == "ec2")

    guess, known = rented(unknown), rented(unknown.sized_by(measured))
    assert guess.interval.high > 4 * guess.interval.likely
    assert known.interval.high < 2 * known.interval.likely
    assert known.interval.likely > guess.interval.likely
    assert any("yolov8s" in note for note in unknown.on_cpu(None).notes)
    standard = Appraisal(settings, work(), (), UNCHARGED)
    assert standard.sized_by(measured) is standard


@pytest.mark.parametrize(
    "model", ["models/yolov6l.yaml", "https://host/yolov6l.pt#sha256=0", "store:weights/yolov6l.pt"]
)
def test_a_file_with_a_standard_model_s_name_is_taken_for_as_large(model):
    assert work(model=model).gflops_640 == work(model="yolov6l.yaml").gflops_640
