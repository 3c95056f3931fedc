"""The fused kernel, the image cache and the trial against what Ultralytics and torch do themselves."""

import copy
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from resources import Deferred, needs

from gpu_offload.dataset import synthetic
from gpu_offload.remote_job.speed import capacity, image_cache, kernel

pytestmark = [pytest.mark.training, needs("ultralytics")]

torch = Deferred("torch")
fused_norm = Deferred("gpu_offload.remote_job.speed.fused_norm")
mixed_precision = Deferred("gpu_offload.remote_job.speed.mixed_precision")
trial = Deferred("gpu_offload.remote_job.speed.trial")
ultralytics_build = Deferred("ultralytics.data.build")
ultralytics_cfg = Deferred("ultralytics.cfg")
ultralytics_conv = Deferred("ultralytics.nn.modules.conv")
ultralytics_tasks = Deferred("ultralytics.nn.tasks")


@pytest.fixture(scope="module")
def built():
    machine = capacity.capacity()
    if machine.compiler is None:
        pytest.skip("no C compiler on this machine")
    torch.zeros(1 << 20).exp_()
    return kernel.build(machine.compiler, wide_vectors="avx512" in machine.instruction_sets)


def test_a_compiled_kernel_is_kept_and_not_compiled_again(built, tmp_path):
    compiler = capacity.capacity().compiler
    cache = tmp_path / "kernels"
    kernel.build(compiler, wide_vectors=False, cache=cache)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    again = kernel.build(compiler, wide_vectors=False, cache=cache)
    assert again.bn_act_forward_float is not None
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [before]


@pytest.mark.parametrize("mode", [0o602, 0o620])
def test_a_kept_kernel_that_others_could_have_written_is_not_loaded(built, tmp_path, mode):
    compiler, cache = capacity.capacity().compiler, tmp_path / "kernels"
    kernel.build(compiler, wide_vectors=False, cache=cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(b"not a library")
    kept.chmod(mode)
    kernel.build(compiler, wide_vectors=False, cache=cache)
    assert kept.read_bytes() != b"not a library", "it was compiled again"


def test_kernels_are_kept_in_the_users_cache():
    assert kernel.cache_folder({"HOME": "/home/me"}) == Path("/home/me/.cache/gpu-offload/kernels")
    assert kernel.cache_folder({"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}) == Path("/c/gpu-offload/kernels")
    assert kernel.cache_folder({}) is None


def error(value, exact):
    value, exact = value.detach(), exact.detach()
    return float((value - exact).abs().max() / exact.abs().max())


def through_kernel(built, x, block, activation):
    norm = block.bn
    assert fused_norm.suits(x, norm, block.act)
    return fused_norm.BatchNormActivation.apply(
        built,
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.momentum,
        norm.eps,
        int(activation),
    )


@pytest.mark.parametrize("activation", [True, False], ids=["silu", "identity"])
@pytest.mark.parametrize(
    ("images", "channels", "size", "wider"),
    [(4, 16, 32, 0), (3, 7, 5, 0), (2, 48, 9, 16), (16, 80, 4, 0), (2, 300, 3, 4)],
)
def test_the_kernel_is_at_least_as_exact_as_torch(built, images, channels, size, wider, activation):
    generator = torch.Generator().manual_seed(0)
    block = ultralytics_conv.Conv(channels, channels, 1, act=activation)
    block.bn.weight.data.uniform_(0.5, 1.5, generator=generator)
    block.bn.bias.data.normal_(generator=generator)
    exact = copy.deepcopy(block.bn).double()
    data = torch.randn(images, channels, size, size, generator=generator) * 2 + 5
    x = data.contiguous(memory_format=torch.channels_last).requires_grad_()
    slope = torch.randn(images, channels + wider, size, size, generator=generator)
    slope = slope.contiguous(memory_format=torch.channels_last)[:, :channels]
    silu = torch.nn.functional.silu if activation else torch.nn.Identity()

    wide = data.double().requires_grad_()
    expected = silu(exact(wide))
    expected.backward(slope.double())

    usual = copy.deepcopy(block.bn)
    plain = x.detach().clone().requires_grad_()
    silu(usual(plain)).backward(slope)

    norm = block.bn
    y = through_kernel(built, x, block, activation)
    y.backward(slope)
    for ours, theirs, truth in (
        (y, silu(copy.deepcopy(block.bn).train()(plain)), expected),
        (x.grad, plain.grad, wide.grad),
        (norm.weight.grad, usual.weight.grad, exact.weight.grad),
        (norm.bias.grad, usual.bias.grad, exact.bias.grad),
        (norm.running_mean, usual.running_mean, exact.running_mean),
        (norm.running_var, usual.running_var, exact.running_var),
    ):
        assert error(ours, truth) <= max(2e-6, 2 * error(theirs, truth))


@pytest.mark.parametrize("activation", [True, False], ids=["silu", "identity"])
@pytest.mark.parametrize(
    ("images", "channels", "size", "wider"), [(4, 16, 32, 0), (3, 7, 5, 0), (2, 48, 9, 16)]
)
def test_in_bfloat16_the_kernel_rounds_only_what_comes_out(built, images, channels, size, wider, activation):
    """Statistics and arithmetic are those of single precision, so that one rounding is all the difference."""
    generator = torch.Generator().manual_seed(0)
    block = ultralytics_conv.Conv(channels, channels, 1, act=activation)
    block.bn.weight.data.uniform_(0.5, 1.5, generator=generator)
    exact = copy.deepcopy(block.bn).double()
    data = torch.randn(images, channels, size, size, generator=generator) * 2 + 5
    x = data.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    slope = torch.randn(images, channels + wider, size, size, generator=generator).bfloat16()
    slope = slope.contiguous(memory_format=torch.channels_last)[:, :channels]
    wide = x.detach().double().requires_grad_()
    expected = exact(wide)
    expected = torch.nn.functional.silu(expected) if activation else expected
    expected.backward(slope.double())

    norm = block.bn
    y = through_kernel(built, x, block, activation)
    y.backward(slope)
    for ours, truth in ((y, expected), (x.grad, wide.grad)):
        assert ours.dtype == torch.bfloat16
        # Half a unit in the last of eight places.
        torch.testing.assert_close(ours.double(), truth.detach(), rtol=2**-8, atol=1e-6)
    for ours, truth in (
        (norm.weight.grad, exact.weight.grad),
        (norm.bias.grad, exact.bias.grad),
        (norm.running_mean, exact.running_mean),
        (norm.running_var, exact.running_var),
    ):
        assert ours.dtype == torch.float32
        assert error(ours, truth) < 1e-5


def test_values_are_rounded_to_bfloat16_as_torch_does(built):
    """Ties go to even, infinities and NaN stay what they are."""
    values = torch.tensor(
        [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20, 3.4e38, float("inf"), float("nan")]
    )
    norm = torch.nn.BatchNorm2d(1, eps=0).eval()
    x = torch.ones(1, 1, 1, 7, dtype=torch.bfloat16)
    norm.weight.data.zero_()
    for value in values:
        norm.bias.data.fill_(value)
        fused_norm.infer(built, x, norm, 0)
        assert torch.equal(x.nan_to_num(), value.bfloat16().expand_as(x).nan_to_num()), value
        assert x.isnan().all() == value.isnan()
        x.fill_(1)


def test_in_mixed_precision_a_model_gives_and_keeps_single_precision():
    torch.manual_seed(0)
    model = ultralytics_tasks.ClassificationModel("yolov8n-cls.yaml", nc=3, verbose=False).train()
    x = torch.rand(2, 3, 32, 32)
    seen = []
    model.model[1].conv.register_forward_hook(lambda _module, _input, output: seen.append(output.dtype))
    last = []
    model.model[-1].linear.register_forward_hook(lambda _module, _input, output: last.append(output.dtype))
    with mixed_precision.bfloat16():
        output = model(x)
        output.sum().backward()
        model.eval()
        with torch.inference_mode():
            model(x)
    model.train()(x)
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
    assert last == [torch.float32] * 3
    assert output.dtype == torch.float32
    assert (
        {p.grad.dtype for p in model.parameters()} == {p.dtype for p in model.parameters()} == {torch.float32}
    )


def test_architectures_with_a_forward_pass_of_their_own_are_not_covered():
    assert not mixed_precision.covers(
        ultralytics_tasks.RTDETRDetectionModel.__new__(ultralytics_tasks.RTDETRDetectionModel)
    )
    assert mixed_precision.covers(
        ultralytics_tasks.ClassificationModel.__new__(ultralytics_tasks.ClassificationModel)
    )


def test_a_block_in_a_fused_training_is_the_block_it_was(built):
    torch.manual_seed(0)
    block = ultralytics_conv.Conv(8, 16, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 12, 12).contiguous(memory_format=torch.channels_last)
    twin = copy.deepcopy(block)
    expected = block(x)
    with fused_norm.fused(built):
        ours = twin(x)
        assert "BatchNormActivation" in type(ours.grad_fn).__name__
        block.eval(), twin.eval()
        with torch.inference_mode():
            torch.testing.assert_close(twin(x), block.act(block.bn(block.conv(x))), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for name, value in block.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert "BatchNormActivation" not in type(twin(x).grad_fn).__name__


@pytest.mark.parametrize("kind", ["contiguous", "double", "other activation", "momentum"])
def test_what_the_kernel_does_not_know_is_left_to_torch(built, kind):
    block = ultralytics_conv.Conv(8, 16, 3, act=torch.nn.ReLU() if kind == "other activation" else True)
    x = torch.randn(2, 8, 12, 12)
    if kind == "double":
        block, x = block.double(), x.double()
    if kind == "momentum":
        block.bn.momentum = None
    if kind != "contiguous":
        block, x = (
            block.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    expected = copy.deepcopy(block)(x)
    with fused_norm.fused(built):
        assert torch.equal(block(x), expected)


def test_nan_comes_out_where_nan_goes_in(built):
    block = ultralytics_conv.Conv(4, 4, 1).to(memory_format=torch.channels_last)
    x = torch.randn(1, 4, 4, 4).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = float("nan")
    with fused_norm.fused(built):
        assert torch.isnan(block(x)).any()


def test_a_compiler_that_fails_is_reported():
    torch.zeros(1 << 20).exp_()
    with pytest.raises(kernel.KernelError, match="false failed"):
        kernel.build(shutil.which("false"), wide_vectors=False)


def batches(folder, *, cached, epochs=3):
    """Return what a training would see, with mosaics first and without at the end."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the one that Ultralytics uses
    torch.manual_seed(1)
    args = ultralytics_cfg.get_cfg(overrides={"imgsz": 64, "task": "detect", "mixup": 0.3, "copy_paste": 0.3})
    data = {"names": {0: "circle", 1: "square", 2: "triangle"}, "nc": 3, "channels": 3}
    dataset = ultralytics_build.build_yolo_dataset(args, str(folder / "images"), 4, data, mode="train")
    cache = image_cache.ImageCache(capacity.capacity().memory_bytes)
    if cached:
        assert cache.attach(dataset)
    # Small, so that pictures leave the buffer and are read again.
    dataset.max_buffer_length = 5
    loader = ultralytics_build.build_dataloader(dataset, batch=4, workers=0)
    seen = []
    for epoch in range(epochs):
        if epoch == epochs - 1:
            dataset.close_mosaic(copy.copy(args))
            loader.reset()
        seen += [(batch["img"].clone(), batch["bboxes"].clone(), tuple(batch["im_file"])) for batch in loader]
    return seen, list(dataset.buffer), random.random(), cache.bytes


def test_with_the_image_cache_a_training_sees_the_same_pictures(tmp_path):
    synthetic.generate(tmp_path / "flat", images=10, size=96)
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        (tmp_path / kind).mkdir()
        for path in (tmp_path / "flat").glob(f"0*{suffix}"):
            shutil.copy(path, tmp_path / kind)
    plain, buffer, draw, _ = batches(tmp_path, cached=False)
    ours, our_buffer, our_draw, kept = batches(tmp_path, cached=True)
    assert kept == 10 * 64 * 64 * 3
    assert (buffer, draw) == (our_buffer, our_draw)
    for left, right in zip(plain, ours, strict=True):
        assert torch.equal(left[0], right[0])
        assert torch.equal(left[1], right[1])
        assert left[2] == right[2]


def test_the_image_cache_keeps_to_its_limit():
    cache = image_cache.ImageCache(memory_bytes=4000)
    assert cache.limit == 1000
    assert cache.admits(900)
    assert not cache.admits(200)
    assert cache.bytes == 900


def test_a_trial_changes_neither_model_nor_random_numbers():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        ultralytics_conv.Conv(3, 8, 3, 2), torch.nn.Dropout(0.5), ultralytics_conv.Conv(8, 4, 3, 2)
    )
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    tried = trial.tried(model, image_size=32, batch=2, mixed=True)
    assert min(tried.contiguous, tried.channels_last, tried.bfloat16) > 0
    assert trial.tried(model, image_size=32, batch=2, mixed=False).bfloat16 is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("contiguous", "last", "mixed", "kept"),
    [
        (1.0, 0.8, None, "channels_last"),
        (1.0, 1.02, None, "channels_last"),
        (1.0, 1.2, None, "neither"),
        (1.0, 0.8, 0.6, "both"),
        (1.0, 0.8, 0.79, "channels_last"),
        (1.0, 1.2, 0.9, "both"),
        (1.0, 1.2, 0.98, "neither"),
    ],
)
def test_what_a_trial_shows_to_be_slower_is_given_up(contiguous, last, mixed, kept):
    tried = trial.SpeedTrial(contiguous, last, mixed)
    assert tried.keeps_channels_last is (kept != "neither")
    assert tried.keeps_bfloat16 is (kept == "both")
