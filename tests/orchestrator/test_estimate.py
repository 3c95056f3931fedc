"""How long a training takes on a CPU, and whose calibration counts."""

import math
from dataclasses import replace

import pytest
from estimate_case import calibration, pace, work
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.calibration import calibration_key
from gpu_offload.orchestrator.estimate.comparison import comparison
from gpu_offload.orchestrator.estimate.cpu import LOOK_S, Processor, estimate_cpu, estimate_cpu_prior
from gpu_offload.orchestrator.estimate.forecast import ForecastPosition, forecast
from gpu_offload.orchestrator.estimate.gpu import estimate_gpu_prior
from gpu_offload.orchestrator.estimate.installation import NOTHING
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.processor import CoreReading, measure, this_processor
from gpu_offload.orchestrator.offers.offer import GPUS
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.plan.decision import judge
from gpu_offload.orchestrator.plan.option import Limits
from gpu_offload.remote_job.pace import interpreter
from gpu_offload.remote_job.pace.idle import Idle
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec


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


ZEN5 = Processor(product_gflops=107, copy_gb_s=38)


def test_the_formula_adds_up_by_hand():
    """10 epochs of 32 images in batches of 16, the last 4 without mosaic, one optimiser step a batch."""
    training = work(epochs=10, train_images=32, val_images=10, hyperparameters={"close_mosaic": 4, "nbs": 16})
    parts = estimate_cpu(training, calibration()).breakdown
    assert parts["training"] == pytest.approx(6 * 2 * 1.2 + 4 * 2 * 1.0)
    assert parts["optimiser"] == pytest.approx(20 * 0.03)
    assert parts["validation"] == pytest.approx(10 * 10 * 0.02)
    assert parts["final validation"] == pytest.approx(0.67 * 10 * 0.02)
    total = 6 + LOOK_S + 0.5 * 1.0 + 22.4 + 0.6 + 2.0 + 10 * 0.4 + 0.134 + 4.0
    assert estimate_cpu(training, calibration()).point == pytest.approx(total)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_comparison_takes_longer_the_more_images_it_is_made_on(one, more):
    training = work()
    here = estimate_cpu(training, calibration())
    fewer, all_of_them = comparison(training, here, one), comparison(training, here, one + more)
    validated = here.breakdown["final validation"] / training.val_images
    assert all_of_them.likely - fewer.likely > 2 * more * validated
    assert fewer.low < fewer.likely < fewer.high < all_of_them.high
    assert comparison(training, here, 0) == NOTHING


def test_a_comparison_takes_time_and_costs_nothing_at_the_place():
    limits = Limits(deadline_s=3600, max_cost_usd=1.0)
    alone = judge(TABLE[0], Interval(100, 200, 300), limits)
    followed = judge(TABLE[0], Interval(100, 200, 300), limits, comparison=Interval(10, 20, 30))
    assert (followed.cost_likely, followed.cost_high) == (alone.cost_likely, alone.cost_high)
    assert followed.interval == Interval(110, 220, 330)
    assert followed.trained == alone.interval


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


@given(
    epochs=st.integers(1, 12),
    images=st.integers(1, 400),
    batch=st.integers(1, 70),
    warmup=st.sampled_from([0.0, 0.5, 1.0, 3.0, 100.0]),
    nbs=st.sampled_from([1, 64, 1000]),
)
def test_the_optimiser_s_steps_are_counted_as_the_trainer_takes_them(epochs, images, batch, warmup, nbs):
    hyperparameters = {"warmup_epochs": warmup, "nbs": nbs}
    training = work(epochs=epochs, train_images=images, batch=batch, hyperparameters=hyperparameters)
    assert training.optimizer_steps() == _replayed_by_the_trainer_s_own_rule(training)


def test_a_billion_batches_of_warm_up_are_counted_at_once():
    training = work(epochs=10_000, train_images=100_000, batch=1, hyperparameters={"warmup_epochs": 1e4})
    assert 10**9 / 64 < training.optimizer_steps() < 10**9


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
    assert len({key(train_images=n, batch=64) for n in (10, 20, 64, 65)}) == 3


@pytest.mark.parametrize("batch", [16, 64, 512])
def test_a_batch_has_no_more_images_than_there_are(batch):
    measured = calibration(batch=batch)  # a step of it took 1.2 and 1 s, with as many images
    small = work(train_images=12, epochs=20, batch=batch)
    assert estimate_cpu(small, measured).breakdown["training"] == pytest.approx(10 * 1.2 + 10 * 1.0)
    whole = work(train_images=12, epochs=20, batch=12)
    for prior in (lambda w: estimate_cpu_prior(w, 2), lambda w: estimate_gpu_prior(w, GPUS["T4"], 4)):
        assert prior(small).breakdown["training"] == pytest.approx(prior(whole).breakdown["training"])
    at = ForecastPosition(1, 0, 20.0)
    assert forecast(small, pace(batches=1), at).breakdown["training"] == pytest.approx(9 * 1.2 + 10 * 1.0)


def test_the_first_epoch_decodes_and_only_a_long_training_makes_a_trial():
    measured = calibration(pace={"decoding": 0.1}, trial=3.0, trial_steps=200)
    short = estimate_cpu(work(epochs=2, train_images=32), measured).breakdown
    long = estimate_cpu(work(epochs=100, train_images=32), measured).breakdown
    assert (short["start"], long["start"]) == (pytest.approx(3.0), pytest.approx(6.0))
    assert short["first step"] == long["first step"] == pytest.approx(LOOK_S + 0.5 + 2 * 0.1)


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
        work(image_size=size, epochs=1, decode=0.0015), cores=2, full_speed=full_speed
    )
    assert estimate.epochs_seconds(1) == pytest.approx(measured, rel=0.25)
    assert estimate.interval.low < measured + estimate.before < estimate.interval.high
    assert estimate.basis == "prior, not measured"


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
    for slower in (replace(slow, wide=False), replace(slow, slowness=2.0)):
        assert estimate_cpu_prior(training, cores, processor=slower).point >= least
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


@pytest.mark.parametrize(("quota", "part"), [(0.5, 0.5), (None, 1.0), (2.5, 1.0)])
def test_a_quota_of_half_a_core_takes_twice_as_long(monkeypatch, quota, part):
    monkeypatch.setattr("gpu_offload.remote_job.machine.cpu_quota", lambda: quota)
    here = this_processor.__wrapped__()
    assert here.part == part
    whole, less = (estimate_cpu_prior(work(), 1, processor=replace(here, part=p)) for p in (1.0, part))
    assert less.point == pytest.approx(whole.point / part)
    assert any("quota" in note for note in less.notes) is (part < 1)


def test_a_processor_is_measured_in_a_second_and_plausibly():
    found = measure()
    assert 0.5 < found.product_gflops < 5000
    assert 0.1 < found.copy_gb_s < 5000
    assert interpreter.LEAST <= found.slowness <= interpreter.MOST
