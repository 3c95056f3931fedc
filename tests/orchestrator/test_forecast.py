"""What a training's own steps say about the rest of it, on a quiet machine and on a busy one."""

import math
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.estimate.forecast import ForecastPosition, forecast
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.workload import Workload, workload
from gpu_offload.orchestrator.run.pace import _forecast_rest, _measured_rest
from gpu_offload.remote_job.pace.meter import Reading
from gpu_offload.remote_job.pace.pace import ModePace, Pace
from gpu_offload.remote_job.pace.pace_meter import PaceMeter, spread, usual
from gpu_offload.remote_job.result import ProgressEvent
from gpu_offload.remote_job.speed.threads import fewer, more

BATCH, EPOCHS = 16, 20


def work(**changes) -> Workload:
    given_ = {
        "task": Task.DETECT,
        "model": "yolov8n.yaml",
        "image_size": 160,
        "batch": BATCH,
        "epochs": EPOCHS,
        "train_images": 320,
        "val_images": 80,
    }
    return workload(**given_ | changes)


def pace(**changes) -> Pace:
    given_ = {
        "ready": 5.0,
        "batches": 20,
        "mosaic": ModePace(batch=0.5, spread=0.02, steps=3),
        "plain": ModePace(batch=0.4),
        "optimizer": 0.02,
        "validation": 0.01,
        "save": 0.3,
        "final": 4.0,
    }
    return Pace(**given_ | changes)


def test_a_short_training_s_interval_allows_for_another_machine_s_end():
    """On a machine of half the speed it may take twice as long as expected; a long training's interval hardly feels it."""
    at, known = ForecastPosition(0, 4, 12.0), pace(save=None, final=5.0, slowness=2.0)
    short = forecast(work(epochs=2), known, at)
    longer = sum(short.breakdown[part] for part in ("end", "final validation"))
    assert short.interval.likely + longer < short.interval.high * 1.1
    long, longer_end = (
        forecast(work(epochs=100), pace(save=None, final=f), at).interval for f in (5.0, 10.0)
    )
    assert longer_end.high < long.high * 1.02


def test_a_batch_that_memory_halved_makes_twice_as_many_steps():
    at = ForecastPosition(1, 0, 20.0)
    whole, halved = (forecast(work(), pace(batches=n), at).breakdown["training"] for n in (20, 40))
    assert halved == pytest.approx(2 * whole)


@given(st.floats(0.1, 10))
def test_the_end_is_less_certain_the_more_another_machine_differs(slowness):
    at = ForecastPosition(0, 4, 12.0)
    here, there = (forecast(work(), pace(slowness=value), at).interval for value in (1.0, slowness))
    assert there.high - there.low >= here.high - here.low


class Machine:
    """A machine with as many cores as the training has threads, and a neighbour that takes some of their time."""

    def __init__(self, seed: int, busy) -> None:
        self.random, self.busy, self.now = random.Random(seed), busy, 10.0
        self.cpu = self.waited = 0.0

    def read(self) -> Reading:
        return Reading(self.now, self.cpu, self.waited)

    def compute(self, seconds: float) -> None:
        """Compute what takes so long on a quiet machine."""
        seconds *= math.exp(self.random.gauss(0, 0.03))
        share = 1 / (1 + self.busy(self.now))
        self.now += seconds / share
        self.cpu += seconds
        self.waited += seconds / share - seconds


def simulated(seed: int, busy) -> tuple[float, list[tuple[int, float, object]]]:
    """Train on a simulated machine; return what it took and the estimate after the first steps and each epoch."""
    training, machine = work(), Machine(seed, busy)
    meter = PaceMeter(clock=machine.read, batches=20, final=4.0, between=deque([0.0]))
    found = []
    for epoch in range(EPOCHS):
        meter.begin()
        for number in range(20):
            machine.compute(0.5 if epoch < EPOCHS - 10 else 0.4)
            meter.step("mosaic" if epoch < EPOCHS - 10 else "plain", is_new=False)
            if not meter.announced and meter.is_enough:
                meter.announced, meter.other = True, -0.1 / meter.share()
                meter.validation.append(0.01 / meter.share())
                at = ForecastPosition(epoch, number + 1, machine.now)
                found.append((epoch, machine.now, forecast(training, meter.pace(), at)))
        begun = machine.now
        machine.compute(80 * 0.01)
        meter.validation.append((machine.now - begun) / 80)
        machine.compute(0.3)
        meter.save.append(0.3)
        at = ForecastPosition(epoch + 1, 0, machine.now, measured=epoch + 1)
        found.append((epoch + 1, machine.now, forecast(training, meter.pace(), at)))
    machine.compute(0.67 * 80 * 0.01 + 4.7)
    return machine.now, found


def test_steps_on_a_quiet_machine_give_the_whole_within_a_few_per_cent():
    errors = []
    for seed in range(20):
        actual, found = simulated(seed, lambda _now: 0)
        first = found[0][2].interval
        errors.append(abs(first.likely / actual - 1))
        assert (first.high - first.low) / 2 / first.likely < 0.12
    assert sorted(errors)[10] < 0.04


@pytest.mark.parametrize("neighbours", [1, 2, 4])
def test_a_neighbour_that_stays_is_in_the_estimate(neighbours):
    for seed in range(10):
        actual, found = simulated(seed, lambda _now: neighbours)
        first = found[0][2].interval
        assert abs(first.likely / actual - 1) < 0.15
        assert first.low <= actual <= first.high


@given(neighbours=st.sampled_from([1, 2, 4]), ends=st.floats(20, 250), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_neighbour_that_leaves_in_the_middle_stays_inside_the_interval(neighbours, ends, seed):
    actual, found = simulated(seed, lambda now: neighbours if now < ends else 0)
    first = found[0][2].interval
    assert first.low * 0.98 <= actual <= first.high


@given(neighbours=st.sampled_from([1, 2, 4]), begins=st.floats(40, 120), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_neighbour_that_comes_is_known_two_epochs_later(neighbours, begins, seed):
    actual, found = simulated(seed, lambda now: neighbours if now >= begins else 0)
    later = next(estimate for epoch, at, estimate in found if at > begins + 2.5 * 12 * (1 + neighbours))
    assert later.interval.low <= actual <= later.interval.high * 1.02


@given(st.integers(0, 400 << 20), st.floats(0, 0.5))
def test_memory_for_pictures_that_are_kept_is_no_part_of_later_steps(taken, loading):
    """On a virtual machine the kernel takes 2 ns a byte."""
    readings, growing = [Reading(0.0, 0.0, 0.0)], 2e-9 * taken
    meter = PaceMeter(clock=lambda: readings[-1], again=loading)

    def spend(seconds: float, kernel: float = 0.0) -> None:
        last = readings[-1]
        wall, cpu = last.wall + seconds + kernel, last.cpu + seconds + kernel
        readings.append(Reading(wall, cpu, 0.0, last.kernel + kernel))

    meter.begin()
    for _ in range(5):
        spend(loading, kernel=0.01)
        meter.loaded()
        spend(0.2, kernel=growing)
        meter.step("plain", is_new=True, kept=taken)
    assert meter.pace().plain.batch == pytest.approx(0.2 + loading, abs=1e-4)
    assert meter.is_enough


def test_time_in_the_kernel_for_anything_else_stays_in_every_step():
    """A process that hands its memory back and takes it again does so in each of its steps."""
    readings = [Reading(float(n), float(n), 0.0, 0.4 * n) for n in range(6)]
    remaining = iter(readings)
    meter = PaceMeter(clock=lambda: next(remaining))
    meter.begin()
    for _ in range(5):
        meter.step("plain", is_new=True)
    assert meter.pace().plain.batch == pytest.approx(1.0)


def test_an_estimate_after_the_last_epoch_is_what_was_measured_and_the_end():
    actual, found = simulated(0, lambda _now: 0)
    assert found[-1][2].interval.likely == pytest.approx(actual, rel=0.02)


@given(
    st.integers(1, 60),
    st.integers(0, 60),
    st.integers(0, 20),
    st.floats(0, 1e4),
    st.floats(0.05, 1),
    st.integers(0, 9),
)
def test_every_forecast_is_in_order_and_never_in_the_past(epochs, done, batches, elapsed, share, measured):
    training = work(epochs=epochs)
    at = ForecastPosition(min(done, epochs), batches, elapsed, measured)
    estimate = forecast(training, pace(share=share), at)
    assert elapsed <= estimate.interval.low <= estimate.interval.likely <= estimate.interval.high
    assert estimate.point == pytest.approx(math.fsum(estimate.breakdown.values()))


@given(st.integers(1, 50), st.integers(16, 2000), st.integers(1, 400))
def test_more_epochs_and_more_images_never_take_less(epochs, images, held_out):
    at = ForecastPosition(0, 4, 12.0)
    least = forecast(work(epochs=epochs, train_images=images, val_images=held_out), pace(batches=0), at).point
    for more_work in (
        work(epochs=epochs + 1, train_images=images, val_images=held_out),
        work(epochs=epochs, train_images=images + 16, val_images=held_out),
        work(epochs=epochs, train_images=images, val_images=held_out + 1),
    ):
        assert forecast(more_work, pace(batches=0), at).point >= least - 1e-9


def test_code_of_one_s_own_is_estimated_by_its_epochs():
    mine = Pace(epoch=10.0, spread=0.05)
    estimate = forecast(work(), mine, ForecastPosition(5, 0, 55.0, measured=5))
    assert estimate.interval.likely == pytest.approx(55 + 15 * 10)
    early = forecast(work(), Pace(epoch=10.0, spread=0.25, batches=20), ForecastPosition(0, 3, 5.0))
    assert early.interval.high / early.interval.likely > estimate.interval.high / estimate.interval.likely


def test_past_trainings_correct_a_forecast():
    at = ForecastPosition(0, 4, 12.0)
    plain, corrected = forecast(work(), pace(), at), forecast(work(), pace(), at, past=[0.03] * 5)
    assert corrected.interval.likely > plain.interval.likely * 1.015
    assert corrected.interval.high / corrected.interval.low < plain.interval.high / plain.interval.low


def test_a_pace_without_a_step_or_an_epoch_says_nothing():
    with pytest.raises(ValueError, match="neither"):
        forecast(work(), Pace(), ForecastPosition(0, 0, 1.0))


def test_steps_that_disagree_need_more_of_them():
    machine = Machine(0, lambda _now: 0)
    meter = PaceMeter(clock=machine.read)
    meter.begin()
    for number in range(20):
        machine.compute(1.0 if number % 2 else 2.0)
        meter.step("plain", is_new=False)
        if meter.is_enough:
            break
    assert number == 11, "the first two warm up, and ten more are enough in any case"


def test_optimizer_and_loading_for_the_first_time_are_no_part_of_a_batch():
    machine = Machine(0, lambda _now: 0)
    meter = PaceMeter(clock=machine.read)
    meter.begin()
    for _ in range(4):
        machine.now += 0.375
        meter.loaded()
        machine.now += 0.625
        meter.optimized(0.125)
        meter.step("plain", is_new=True)
    assert meter.loads == pytest.approx(0.375)
    meter.again = 0.125
    assert meter.pace().plain.batch == pytest.approx(1.0 - 0.25 - 0.125)
    assert meter.pace().optimizer == pytest.approx(0.125)


def test_steps_agree_by_what_they_compute_however_long_their_pictures_take_to_load():
    machine = Machine(0, lambda _now: 0)
    meter = PaceMeter(clock=machine.read)
    meter.begin()
    for load in (0.1, 0.1, 0.1, 4.0, 1.0):
        machine.now += load
        meter.loaded()
        machine.now += 0.5
        meter.step("plain", is_new=True)
    assert meter.is_enough


def test_the_end_decodes_large_pictures_again():
    """Predictions are drawn on six held-out pictures, read twice, and each export is compared on eight."""
    at = ForecastPosition(2, 0, 20.0, measured=2)
    small, large = (forecast(work(exports=1), pace(decoding=d), at).breakdown["end"] for d in (0.0, 1.6))
    assert large - small == pytest.approx((6 + 6 + 8) * 1.6 / BATCH)


def test_the_first_steps_of_all_warm_up_and_do_not_count():
    machine = Machine(0, lambda _now: 0)
    meter = PaceMeter(clock=machine.read)
    meter.begin()
    for seconds in (5.0, 2.0, 1.0, 1.0, 1.0):
        machine.now += seconds
        meter.step("plain", is_new=False)
    assert meter.pace().plain.batch == pytest.approx(1.0)


def test_steps_in_more_threads_than_there_are_cores_for_do_not_count_later():
    """Beside four busy programs a step in two threads took 2.7 s, and in one thread 0.2."""
    machine = Machine(0, lambda _now: 0)
    meter = PaceMeter(clock=machine.read)
    meter.begin()
    for _ in range(4):
        machine.now += 2.7
        meter.step("plain", is_new=False)
    meter.forget()
    meter.part = 0.5
    assert meter.pace() is None
    machine.now += 0.2
    meter.step("plain", is_new=False)
    assert meter.pace().plain.batch == pytest.approx(0.2)
    assert meter.pace().share == pytest.approx(0.5)


def test_what_some_of_many_steps_take_more_counts_and_a_suspended_machine_does_not():
    assert usual([1.0] * 9 + [2.0]) == pytest.approx(1.1)
    assert usual([1.0] * 99 + [3600.0]) < 1.05


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("at", [0, -1])
def test_a_machine_that_was_suspended_among_few_steps_does_not_make_a_training_endless(steps, at):
    values = [1.0] * steps
    values[at] = 3600.0
    assert usual(values) <= 2.0
    modes = {"plain": ModePace(batch=usual(values), spread=spread(values), steps=steps), "mosaic": None}
    whole = forecast(work(), pace(**modes), ForecastPosition(0, steps, 3600.0)).interval
    assert whole.high < 3 * forecast(work(), pace(), ForecastPosition(0, steps, 3600.0)).interval.high


def test_the_only_optimizer_step_so_far_counts_although_it_was_the_first():
    machine = Machine(0, lambda _now: 0)
    meter = PaceMeter(clock=machine.read)
    meter.begin()
    meter.optimized(0.5)
    for _ in range(4):
        machine.now += 1.0
        meter.step("plain", is_new=False)
    assert meter.pace().optimizer == pytest.approx(0.5)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60))
def test_the_usual_time_is_among_the_times(values):
    assert min(values) <= usual(values) <= max(values) + 1e-9
    assert spread(values) >= 0


@given(st.integers(1, 64), st.floats(0.01, 1))
def test_threads_follow_the_share_and_come_back_with_idle_cores(threads, share):
    left = fewer(threads, share)
    assert 1 <= left <= threads
    assert left < threads or share >= 0.75 or threads == 1
    assert more(left, threads, idle_cores=0.2) == left
    assert more(left, threads, idle_cores=64.0) == threads


ODD = st.one_of(st.floats(), st.sampled_from([0.0, -1.0, 5e-324, 1e9, 1e308, math.inf, math.nan]))


@given(ODD, ODD, ODD, ODD, st.integers(0, 10**400), st.integers(0, 10**400))
def test_no_claim_of_a_training_stops_its_driver(batch, spread_, decoding, share, batches, begun):
    """Even claims that a reader refuses give a rest or none."""
    mode = ModePace.model_construct(batch=batch, spread=spread_, steps=5)
    odd = Pace.model_construct(mosaic=mode, decoding=decoding, share=share)
    by_epoch = Pace.model_construct(epoch=batch, batches=batches, share=share)
    for claim in (odd, by_epoch):
        rest = _forecast_rest(work(), claim, ForecastPosition(0, begun, 0.0))
        assert rest is None or 0 <= rest.low <= rest.high < math.inf
    rest = _measured_rest(Interval(1.0, 2.0, 3.0), 10, 3, batch)
    assert rest is None or 0 <= rest.low <= rest.high < math.inf


@pytest.mark.parametrize("odd", [-1.0, math.nan, math.inf, 1e300])
def test_a_training_leaves_out_what_it_cannot_say_and_goes_on(odd):
    said = ProgressEvent.measured(event="epoch", time=1.0, epoch=3, seconds=odd)
    assert (said.epoch, said.seconds) == (3, None)
    with pytest.raises(ValueError):
        ProgressEvent(event="epoch", time=1.0, seconds=odd)
    with pytest.raises(ValueError):
        ProgressEvent.measured(event="epoch", time=odd)
