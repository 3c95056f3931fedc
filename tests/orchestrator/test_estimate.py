"""How long a training takes: the formula, the priors, and what history makes of them."""

import math
import random
import re
import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.architecture import facts, host_work
from gpu_offload.orchestrator.estimate.calibration import calibration_key
from gpu_offload.orchestrator.estimate.correction import correct, correct_running, remaining_note
from gpu_offload.orchestrator.estimate.cpu import Processor, estimate_cpu, estimate_cpu_prior
from gpu_offload.orchestrator.estimate.gpu import (
    Overheads,
    estimate_gpu_prior,
    gpu_seconds_per_image,
)
from gpu_offload.orchestrator.estimate.gpu_anchors import ANCHORS, FAST, Anchor
from gpu_offload.orchestrator.estimate.gpu_memory import largest_batch, memory_fault, memory_gib
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.neighbours import CoreReading
from gpu_offload.orchestrator.estimate.posterior import (
    HistoryKey,
    Ratio,
    matching,
    predict,
    student_t_quantile,
)
from gpu_offload.orchestrator.estimate.processor import measure
from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.orchestrator.offers.offer import FAST_HOST, GPUS, Gpu, gpu_named
from gpu_offload.remote_job.pace.idle import Idle
from gpu_offload.remote_job.result import Calibration, ModePace, Pace
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec


def work(**changes) -> Workload:
    given_ = {
        "task": Task.DETECT,
        "model": "yolov8n.yaml",
        "image_size": 320,
        "batch": 16,
        "epochs": 20,
        "train_images": 301,
        "val_images": 76,
    }
    return workload(**given_ | changes)


def calibration(**changes) -> Calibration:
    given_ = {
        "machine": "test, 2 cores",
        "device": "cpu",
        "model": "yolov8n.yaml",
        "task": Task.DETECT,
        "image_size": 320,
        "batch": 16,
        "gflops": 2.2,
        "parameters": 3_157_200,
        "pace": pace(**changes.pop("pace", {})),
    }
    return Calibration(**given_ | changes)


def pace(**changes) -> Pace:
    given_ = {
        "ready": 6.0,
        "batches": 19,
        "mosaic": ModePace(batch=1.2, spread=0.02, steps=3),
        "plain": ModePace(batch=1.0, spread=0.02, steps=3),
        "optimizer": 0.03,
        "validation": 0.02,
        "save": 0.4,
        "final": 4.0,
    }
    return Pace(**given_ | changes)


def test_the_formula_adds_up_by_hand():
    """10 epochs of 32 images in batches of 16, the last 4 without mosaic, one optimiser step a batch."""
    training = work(epochs=10, train_images=32, val_images=10, hyperparameters={"close_mosaic": 4, "nbs": 16})
    parts = estimate_cpu(training, calibration()).breakdown
    assert parts["training"] == pytest.approx(6 * 2 * 1.2 + 4 * 2 * 1.0)
    assert parts["optimiser"] == pytest.approx(20 * 0.03)
    assert parts["validation"] == pytest.approx(10 * 10 * 0.02)
    assert parts["final validation"] == pytest.approx(0.67 * 10 * 0.02)
    total = 6 + 0.5 * 1.0 + 22.4 + 0.6 + 2.0 + 10 * 0.4 + 0.134 + 4.0
    assert estimate_cpu(training, calibration()).point == pytest.approx(total)


def test_a_calibrated_estimate_is_within_thirteen_per_cent_either_way():
    """Without history the 80 % interval of the fitted spread: exp(1.533 x 0.06 x sqrt 2)."""
    estimate = estimate_cpu(work(), calibration())
    assert estimate.basis == "calibrated"
    assert estimate.interval.likely == pytest.approx(estimate.point)
    assert estimate.interval.high / estimate.point == pytest.approx(math.exp(0.1301), rel=1e-3)
    assert estimate.point / estimate.interval.low == pytest.approx(math.exp(0.1301), rel=1e-3)


def test_mosaic_is_never_on_in_ten_epochs_nor_in_a_classification():
    assert work(epochs=10).mosaic_epochs == 0
    assert work(epochs=11).mosaic_epochs == 1
    assert work(epochs=11, hyperparameters={"close_mosaic": 0}).mosaic_epochs == 11
    assert work(epochs=50, task=Task.CLASSIFY, model="yolov8n-cls.yaml").mosaic_epochs == 0
    assert work(epochs=50, hyperparameters={"mosaic": 0.0}).mosaic_epochs == 0


def _replayed_by_the_trainer_s_own_rule(training):
    """Ultralytics 8.4's loop, batch by batch."""
    batches = math.ceil(training.train_images / training.batch)
    total = batches * training.epochs
    nominal = min(max(round(training.nbs / training.batch), 1), total)
    warm = round(min(training.warmup_epochs, training.epochs - 1) * batches)
    accumulate, last, steps = nominal, -1, 0
    for i in range(total):
        if warm and i <= warm:
            accumulate = max(1, round(1 + (nominal - 1) * i / warm))
        if i - last >= accumulate:
            steps, last = steps + 1, i
    return steps


@given(
    epochs=st.integers(1, 12),
    images=st.integers(1, 400),
    batch=st.integers(1, 70),
    warmup=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_the_optimiser_s_steps_are_counted_as_the_trainer_takes_them(epochs, images, batch, warmup):
    training = work(
        epochs=epochs, train_images=images, batch=batch, hyperparameters={"warmup_epochs": warmup}
    )
    assert training.optimizer_steps() == _replayed_by_the_trainer_s_own_rule(training)


def test_automatic_choice_of_optimiser_turns_heavy_above_ten_thousand_iterations():
    assert not work(epochs=2000).heavy_optimizer  # 5 x 2000 is not above
    assert work(epochs=2001).heavy_optimizer
    assert not work(epochs=2001, hyperparameters={"optimizer": "SGD"}).heavy_optimizer


def test_a_calibration_of_another_training_is_refused_with_every_difference_named():
    with pytest.raises(
        ValueError, match=r"image size: calibrated 320, to be trained 640; batch: .* 16, .* 8"
    ):
        estimate_cpu(work(image_size=640, batch=8), calibration())
    with pytest.raises(ValueError, match="measured no step"):
        estimate_cpu(work(), calibration(pace={"mosaic": None, "plain": None}))


@given(
    epochs=st.integers(1, 3000),
    images=st.integers(1, 200_000),
    batch=st.integers(1, 256),
    optimizer=st.sampled_from(["auto", "SGD", "MuSGD"]),
)
def test_what_is_measured_has_the_optimiser_of_the_training_and_a_length_of_its_own(
    epochs, images, batch, optimizer
):
    given_ = {"train_images": images, "batch": batch, "hyperparameters": {"optimizer": optimizer}}
    training = work(epochs=epochs, **given_)
    measured = work(epochs=training.measured_epochs, **given_)
    assert measured.heavy_optimizer == training.heavy_optimizer
    assert measured.measured_epochs == training.measured_epochs
    if images <= 10_000 and training.heavy_optimizer == (optimizer == "MuSGD"):
        assert measured.mosaic_epochs, "both kinds of steps are measured wherever that is possible"


def test_a_calibration_is_kept_for_any_number_of_epochs_and_any_learning_rate():
    def key(**changes):
        training = {"epochs": 20, "hyperparameters": {}, "image_size": 320, "batch": 16} | changes
        data = DatasetRef(fingerprint="f", archive="a")
        given_ = {
            "run": "r",
            "attempt": 1,
            "training_key": "k",
            "task": "detect",
            "model": "yolov8n.yaml",
            "seed": 0,
        }
        return calibration_key(TrainingSpec(**given_, **training, dataset=data, output=""), work(**training))

    assert key(epochs=1) == key(epochs=300) == key(hyperparameters={"lr0": 0.1, "patience": 3}) == key()
    assert len({key(), key(epochs=5000), key(image_size=640), key(hyperparameters={"mosaic": 0.0})}) == 4


def test_the_first_epoch_decodes_and_only_a_long_training_makes_a_trial():
    measured = calibration(pace={"decoding": 0.1}, trial=3.0, trial_steps=200)
    short = estimate_cpu(work(epochs=2, train_images=32), measured).breakdown
    long = estimate_cpu(work(epochs=100, train_images=32), measured).breakdown
    assert (short["start"], long["start"]) == (pytest.approx(3.0), pytest.approx(6.0))
    assert short["first step"] == long["first step"] == pytest.approx(0.5 + 2 * 0.1)


def test_a_machine_that_was_shared_while_calibrating_widens_the_interval_both_ways():
    quiet = estimate_cpu(work(), calibration()).interval
    busy = estimate_cpu(work(), calibration(pace={"share": 0.55}))
    assert busy.interval.low < quiet.low / 1.5
    assert busy.interval.high > quiet.high * 1.5
    assert any("shared" in note for note in busy.notes)
    assert estimate_cpu(work(), calibration(pace={"share": 0.95})).interval == quiet


def test_early_stopping_lowers_the_low_bound_alone():
    patient = estimate_cpu(work(epochs=60), calibration()).interval
    hasty = estimate_cpu(work(epochs=60, hyperparameters={"patience": 5}), calibration()).interval
    assert hasty.low < patient.low / 4
    assert (hasty.likely, hasty.high) == (patient.likely, patient.high)
    never = estimate_cpu(work(epochs=60, hyperparameters={"patience": 0}), calibration()).interval
    assert never == patient


@pytest.mark.parametrize(
    ("size", "full_speed", "measured"),
    [(160, False, 12.2), (320, False, 38), (160, True, 6.6), (320, True, 18.5)],
)
def test_the_cpu_prior_meets_what_two_cores_were_measured_at(size, full_speed, measured):
    """yolov8n, batch 16, 301 + 76 images: seconds an epoch, plain and at full speed, to a quarter."""
    estimate = estimate_cpu_prior(
        work(image_size=size, epochs=1, megapixels=0.41), cores=2, full_speed=full_speed
    )
    assert estimate.epochs_seconds(1) == pytest.approx(measured, rel=0.25)
    assert estimate.interval.low < measured + estimate.before < estimate.interval.high
    assert estimate.basis == "prior, not measured"


def _predicted(anchor: Anchor) -> float:
    training = Workload(
        task=Task.DETECT, model=anchor.model, gflops_640=anchor.gflops_640, parameters=1,
        dual_head=anchor.dual_head, image_size=anchor.image_size, batch=anchor.batch, epochs=1,
        train_images=anchor.images, val_images=0, host_work=host_work(anchor.model),
    )  # fmt: skip
    host = FAST_HOST if anchor.source in FAST else 1.0
    gpu = Gpu(anchor.gpu, 16, anchor.fp16_tflops, anchor.bandwidth_gb_s, host=host)
    return gpu_seconds_per_image(training, gpu, anchor.workers)


ZEN5 = Processor(product_gflops=107, copy_gb_s=38)


@pytest.mark.parametrize(
    ("processor", "size", "measured"),
    [(ZEN5, 320, 0.412), (replace(ZEN5, bfloat16="avx512"), 160, 0.13)],
)
def test_the_cpu_prior_by_a_processor_s_speed_meets_the_steps_that_were_measured(processor, size, measured):
    """yolov8n, batch 16, two cores of a Zen 5: seconds of a step, in single precision and in bfloat16, to a fifth."""
    training = work(image_size=size, epochs=1, train_images=16)
    step = estimate_cpu_prior(training, 2, processor=processor).breakdown["training"]
    assert step == pytest.approx(measured, rel=0.2)


@given(
    st.floats(5, 500), st.floats(2, 100), st.sampled_from(["none", "avx512", "amx"]), st.integers(1, 64),
    st.integers(1, 20),
)  # fmt: skip
def test_a_faster_processor_never_takes_longer(product, copied, kind, cores, size):
    training, slow = work(image_size=32 * size), Processor(product, copied, kind)
    least = estimate_cpu_prior(training, cores, processor=slow).point
    for faster in (Processor(2 * product, copied, kind), Processor(product, 2 * copied, kind)):
        assert estimate_cpu_prior(training, cores, processor=faster).point <= least
    assert estimate_cpu_prior(training, cores + 1, processor=slow).point <= least
    single, half = (replace(slow, bfloat16=kind) for kind in ("none", "amx"))
    assert (
        estimate_cpu_prior(training, cores, processor=half).point
        <= estimate_cpu_prior(training, cores, processor=single).point
    )
    larger = work(image_size=32 * size + 32)
    assert estimate_cpu_prior(larger, cores, processor=slow).point >= least


@pytest.mark.parametrize(
    ("idle_ticks", "own", "cores", "share"),
    [
        (200, 0.0, 2, 1.0),  # two cores for a second, nothing else
        (100, 1.0, 2, 1.0),  # this process itself had one
        (100, 0.0, 2, 2 / 3),  # another program had it
        (0, 0.0, 2, 1 / 2),
        (100, 0.0, 1, 1.0),  # it has the core that is not ours
        (0, 0.0, 1, 1 / 2),
    ],
)
def test_what_other_programs_leave_of_the_cores_is_seen(idle_ticks, own, cores, share):
    earlier = CoreReading(Idle(1000, 5000, 2), 10.0, 100.0)
    later = CoreReading(Idle(1000 + idle_ticks, 5200, 2), 10.0 + own, 101.0)
    assert later.share(earlier, cores) == pytest.approx(share)
    assert CoreReading(Idle(1000, 5010, 2), 10.0, 100.05).share(earlier, cores) == 1.0, "too short a look"


@given(st.floats(0.05, 1.0))
def test_a_plan_on_a_busy_machine_takes_longer_and_allows_for_both(share):
    quiet, busy = (estimate_cpu_prior(work(), 2, processor=ZEN5, share=s).interval for s in (1.0, share))
    assert busy.likely >= quiet.likely
    assert busy.low <= quiet.low * 1.001
    assert busy.high >= quiet.high


def test_a_processor_is_measured_in_a_second_and_plausibly():
    found = measure()
    assert 0.5 < found.product_gflops < 5000
    assert 0.1 < found.copy_gb_s < 5000


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
    here, rented = (estimate_gpu_prior(training, t4, 4, rented=rented) for rented in (False, True))
    assert rented.point - here.point == pytest.approx(sum(Overheads().seconds(training).values()))
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
    """With 12-megapixel photographs an L40S is no faster than a T4; with small ones it is."""
    large = work(image_size=640, megapixels=12.0)
    small = work(image_size=640, megapixels=0.4, model="yolov8x.yaml")
    t4, l40s = GPUS["T4"], GPUS["L40S"]
    assert gpu_seconds_per_image(large, l40s, 4) > 0.85 * gpu_seconds_per_image(large, t4, 4)
    assert gpu_seconds_per_image(small, l40s, 4) < 0.6 * gpu_seconds_per_image(small, t4, 4)


def test_a_rented_gpu_s_estimate_counts_boot_set_up_and_download():
    training = work(dataset_bytes=1_000_000_000)
    usual = estimate_gpu_prior(training, GPUS["T4"], 4)
    baked = estimate_gpu_prior(training, GPUS["T4"], 4, overheads=Overheads(setup=20))
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
        assert 0.85 * published < speed_up < 1.02 * published
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


sizes = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["yolov8n.yaml", "yolo26s.yaml", "yolo11m-seg.yaml", "my/own.yaml"]),
        "image_size": st.integers(1, 40).map(lambda n: 32 * n),
        "batch": st.integers(1, 64),
        "epochs": st.integers(1, 400),
        "train_images": st.integers(1, 50_000),
        "val_images": st.integers(0, 5_000),
        "megapixels": st.none() | st.floats(0.01, 50),
    }
)


def _estimates(training):
    yield estimate_cpu_prior(training, 4)
    yield estimate_gpu_prior(training, GPUS["L4"], 4)
    yield estimate_cpu(
        training,
        calibration(model=training.model, image_size=training.image_size, batch=training.batch),
    )


@given(sizes)
@settings(deadline=None)
def test_every_estimate_is_in_order_and_its_parts_add_up(size):
    for estimate in _estimates(work(**size)):
        assert 0 <= estimate.interval.low <= estimate.interval.likely <= estimate.interval.high
        assert all(part >= 0 for part in estimate.breakdown.values())
        assert estimate.point_after(estimate.epochs) == pytest.approx(estimate.point)
        assert estimate.epochs == size["epochs"]


@given(sizes, st.sampled_from(["epochs", "train_images", "val_images"]), st.integers(1, 1000))
@settings(deadline=None)
def test_more_work_never_takes_less_time(size, what, more):
    less, larger = work(**size), work(**size | {what: size[what] + more})
    for a, b in zip(_estimates(less), _estimates(larger), strict=True):
        assert a.interval.likely <= b.interval.likely * (1 + 1e-9)
        assert a.interval.high <= b.interval.high * (1 + 1e-9)


@given(
    st.lists(st.floats(0.5, 2.0), max_size=12),
    st.sampled_from(["cpu", "cpu-prior", "gpu"]),
)
def test_a_corrected_estimate_is_in_order_and_moves_towards_what_happened(factors, kind):
    raw = estimate_cpu(work(), calibration())
    history = [Ratio(100.0, 100.0 * factor) for factor in factors]
    corrected = correct(raw, history, kind)
    mean = math.exp(sum(math.log(f) for f in factors) / len(factors)) if factors else 1.0
    low, high = min(1.0, mean) - 1e-9, max(1.0, mean) + 1e-9
    assert low <= corrected.interval.likely / raw.point <= high
    assert corrected.basis == ("history" if factors else "calibrated")
    assert correct(corrected, history, kind).interval == corrected.interval


def test_history_narrows_an_estimate_that_was_a_guess():
    raw = estimate_gpu_prior(work(), GPUS["T4"], 4)
    history = [Ratio(1000, 1000 * factor) for factor in (1.31, 1.28, 1.35, 1.30)]
    corrected = correct(raw, history, "gpu")
    width = raw.interval.high / raw.interval.low
    assert corrected.interval.high / corrected.interval.low < width / 1.5
    assert corrected.interval.likely == pytest.approx(1.3 * raw.point, rel=0.03)
    assert corrected.notes[-1] == "corrected by 4 earlier trainings of this kind"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize("runs", [0, 2, 10])
def test_the_interval_covers_what_it_says_it_covers(kind, runs):
    """80 % nominal; 88 to 84 % were found by simulation under the same assumptions."""
    sigma, tau = {"cpu": (0.06, 0.06), "gpu": (0.12, 0.25)}[kind]
    chance = random.Random(20 + runs)
    inside = 0
    for _ in range(600):
        mean = chance.gauss(0, tau)
        *seen, outcome = [chance.gauss(mean, sigma) for _ in range(runs + 1)]
        prediction = predict(kind, seen)
        inside += prediction.quantile(0.1) <= outcome <= prediction.quantile(0.9)
    assert 0.78 <= inside / 600 <= 0.95


def test_only_trainings_of_the_same_key_count():
    here = HistoryKey("g4dn.xlarge", "8.4", "raw_dataset", "yolov8")
    there = HistoryKey("g5.xlarge", "8.4", "raw_dataset", "yolov8")
    history = [Ratio(1, 2, here), Ratio(1, 3, there), Ratio(1, 4)]
    assert matching(history, here) == (history[0],)


@pytest.mark.parametrize(("predicted", "actual"), [(0, 1), (1, 0), (-1, 1), (1, math.nan), (math.inf, 1)])
def test_a_ratio_of_impossible_times_is_refused(predicted, actual):
    with pytest.raises(ValueError, match="a ratio needs two"):
        Ratio(predicted, actual)


@pytest.mark.parametrize(
    ("p", "freedom", "value"),
    [
        (0.9, 4, 1.533206),
        (0.95, 4, 2.131847),
        (0.975, 1, 12.706205),
        (0.9, 10, 1.372184),
        (0.75, 2, 0.816497),
        (0.995, 30, 2.749996),
        (0.9, 1e6, 1.281552),
    ],
)
def test_student_s_t_agrees_with_the_printed_tables(p, freedom, value):
    assert student_t_quantile(p, freedom) == pytest.approx(value, abs=2e-6)
    assert student_t_quantile(1 - p, freedom) == pytest.approx(-value, abs=2e-6)


@pytest.mark.parametrize(("p", "freedom"), [(0, 4), (1, 4), (0.5, 0), (math.nan, 4)])
def test_student_s_t_has_no_quantile_outside_its_range(p, freedom):
    with pytest.raises(ValueError, match="no t quantile"):
        student_t_quantile(p, freedom)


def test_a_running_training_corrects_its_own_estimate_epoch_by_epoch():
    """It runs at 1.5 times the predicted time: the interval moves there and narrows."""
    estimate = estimate_gpu_prior(work(epochs=50), GPUS["T4"], 4)
    widths, likely = [], []
    for done in (1, 5, 20, 45):
        so_far = 1.5 * (estimate.before + estimate.epochs_seconds(done))
        interval = correct_running(estimate, done, so_far)
        widths.append(interval.high - interval.likely)
        likely.append(interval.likely)
        assert interval.low >= so_far
    assert widths == sorted(widths, reverse=True)
    assert likely[-1] == pytest.approx(1.5 * estimate.point, rel=0.01)
    assert estimate.point < likely[0] < 1.55 * estimate.point


def test_a_running_training_before_its_first_epoch_takes_at_least_what_it_has_taken():
    estimate = estimate_cpu(work(), calibration())
    assert correct_running(estimate, 0, 0.0) == estimate.interval
    late = correct_running(estimate, 0, 10_000.0)
    assert late == Interval(10_000.0, 10_000.0, 10_000.0)
    with pytest.raises(ValueError, match="21 of 20 epochs"):
        correct_running(estimate, 21, 1.0)


@given(sizes, st.floats(0, 1), st.floats(0.2, 5))
@settings(deadline=None)
def test_a_running_training_s_interval_is_in_order_and_never_in_the_past(size, share, pace):
    estimate = estimate_cpu_prior(work(**size), 4)
    done = round(share * estimate.epochs)
    so_far = pace * (estimate.before + estimate.epochs_seconds(done))
    interval = correct_running(estimate, done, so_far)
    assert so_far <= interval.low <= interval.likely <= interval.high


def test_what_is_left_is_said_in_a_phrase():
    assert remaining_note(Interval(200, 300, 500), 100) == "about 3 min 20 s left (1 min 40 s to 6 min 40 s)"


@pytest.mark.parametrize(
    ("low", "likely", "high"), [(2, 1, 3), (1, 3, 2), (-1, 0, 1), (0, 0, math.inf), (0, math.nan, 1)]
)
def test_an_interval_that_is_out_of_order_is_refused(low, likely, high):
    with pytest.raises(ValueError, match="low <= likely"):
        Interval(low, likely, high)


def test_intervals_add_and_scale_bound_by_bound():
    assert Interval(1, 2, 3) + Interval(1, 1, 4) == Interval(2, 3, 7)
    assert Interval(1, 2, 3) + 1 == Interval(2, 3, 4)
    assert Interval(1, 2, 3).scaled(2) == Interval(2, 4, 6)


def test_impossible_trainings_are_refused_with_every_fault():
    with pytest.raises(ValueError, match=r"batch is 0.*epochs is 0"):
        work(batch=0, epochs=0)


def test_hyperparameters_are_read_as_ultralytics_reads_them():
    training = work(
        hyperparameters={"fraction": 0.5, "close_mosaic": 3, "val": False, "optimizer": "SGD", "lr0": 0.1}
    )
    assert training.train_images == 150
    assert (training.close_mosaic, training.validate, training.optimizer) == (3, False, "SGD")


@pytest.mark.parametrize(
    ("name", "gflops"),
    [
        ("yolov8n.yaml", 8.9),
        ("yolov8n.pt", 8.9),
        ("yolov8n", 8.9),
        ("yolo26x-seg.pt", 338.2),
        ("yolov5nu.pt", 7.8),
    ],
)
def test_standard_models_are_known_by_every_name_that_a_setting_gives_them(name, gflops):
    assert facts(name).gflops_640 == gflops


@pytest.mark.parametrize(
    "name", ["my/yolov8n.yaml", "https://host/yolov8n.pt#sha256=0", "store:yolov8n.pt", "own.yaml"]
)
def test_somebody_s_own_model_is_not_taken_for_a_standard_one(name):
    assert facts(name) is None


def test_only_models_with_two_heads_are_marked_so():
    assert facts("yolo26n.yaml").dual_head
    assert facts("yolov10b.yaml").dual_head
    assert not facts("yolo26n-cls.yaml").dual_head
    assert not facts("yolo11n.yaml").dual_head
