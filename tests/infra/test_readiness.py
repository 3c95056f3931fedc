"""Readiness is decided from observations, stage by stage, each within its own time."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_host import LocalHost

from gpu_offload.infra.instance.readiness import NotReadyError, await_ready
from gpu_offload.infra.instance.readiness_checks import (
    check_boot,
    check_cloud_init,
    check_cuda,
    check_driver,
    check_ssh,
    read_cloud_init,
)
from gpu_offload.infra.instance.stage import LIMITS_S, Broken, Passed, Pending, ReadinessStage
from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.errors import HostKeyMismatchError, HostUnreachableError


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def ready(checks, clock, **options):
    """Wait for stages; return those that passed, with what their checks said and the seconds they took."""
    told = []
    await_ready(
        checks, console=lambda: "NVRM: fell off the bus", passed=lambda *words: told.append(words),
        clock=clock, sleep=clock.sleep, **options,
    )  # fmt: skip
    return told


@given(st.sampled_from(ReadinessStage), st.floats(1, 500))
def test_a_stage_is_waited_for_within_its_own_time_and_no_longer(stage, takes):
    clock, every = Clock(), 0.5

    def check():
        return Passed("there") if clock.now >= takes else Pending("missing")

    if takes <= LIMITS_S[stage]:
        [(_, detail, seconds)] = ready({stage: check}, clock, every=every)
        assert detail == "there"
        assert takes <= seconds < takes + every
    elif takes > LIMITS_S[stage] + every:
        with pytest.raises(NotReadyError, match="missing"):
            ready({stage: check}, clock, every=every)
        assert LIMITS_S[stage] <= clock.now < LIMITS_S[stage] + every


def test_a_broken_stage_fails_at_once_with_its_advice_and_the_console_output():
    clock = Clock()
    with pytest.raises(NotReadyError, match="driver") as caught:
        ready({ReadinessStage.DRIVER: lambda: Broken("no such device")}, clock)
    assert "no such device" in str(caught.value)
    assert "choose another image" in str(caught.value)
    assert "fell off the bus" in str(caught.value)
    assert clock.now == 0


def test_each_stage_is_checked_until_it_passes_and_then_the_next():
    seen = iter([Passed("on"), Pending("not yet"), Pending("not yet"), Passed("Tesla T4")])
    stages = (ReadinessStage.CLOUD_INIT, ReadinessStage.DRIVER)
    assert ready(dict.fromkeys(stages, lambda: next(seen)), Clock(), every=5.0) == [
        (ReadinessStage.CLOUD_INIT, "on", 0.0),
        (ReadinessStage.DRIVER, "Tesla T4", 10.0),
    ]


class Answers:
    """A host on which every command raises."""

    name = "host"

    def __init__(self, error):
        self.error = error

    def run(self, *_, **__):
        raise self.error


@pytest.mark.parametrize(
    "check",
    [
        check_ssh,
        check_cloud_init,
        lambda host: check_driver(host, gpus=1),
        lambda host: check_cuda(host, "python", gpus=1),
    ],
    ids=["ssh", "cloud-init", "driver", "cuda"],
)
def test_silence_is_pending_and_an_impostor_is_raised(check):
    assert check(Answers(HostUnreachableError("nobody"))) == Pending("nobody")
    with pytest.raises(HostKeyMismatchError):
        check(Answers(HostKeyMismatchError("somebody else")))


@pytest.mark.simulator
def test_a_kernel_that_answers_at_all_has_booted_and_silence_has_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        assert check_boot(address) == Passed("the port is open")
    assert check_boot(address) == Passed("the kernel answers")
    assert isinstance(check_boot(Address("nowhere.invalid", 22)), Pending)


def machine(tmp_path, **programs):
    """This machine with nothing in its PATH but a shell, `test` and these programs."""
    for name, text in programs.items():
        path = tmp_path / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return LocalHost({"PATH": str(tmp_path), "GPU_OFFLOAD_ROOT": str(tmp_path)}, tmp_path)


@pytest.mark.process
def test_cloud_init_is_done_when_our_last_command_was(tmp_path):
    host = machine(tmp_path, cloud_init='echo \'{"status": "running"}\'')
    assert check_cloud_init(host) == Pending("cloud-init is running")
    (tmp_path / "var/lib/gpu-offload").mkdir(parents=True)
    (tmp_path / "var/lib/gpu-offload/ready").touch()
    assert check_cloud_init(host) == Passed()


@pytest.mark.process
def test_a_cloud_init_that_ends_while_it_is_asked_is_done(tmp_path):
    (tmp_path / "var/lib/gpu-offload").mkdir(parents=True)
    host = machine(
        tmp_path, cloud_init=f': >{tmp_path}/var/lib/gpu-offload/ready; echo \'{{"status": "done"}}\''
    )
    assert check_cloud_init(host) == Passed()


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("", Pending, "nothing yet"),
        ("[]", Pending, "nothing yet"),
        ('{"status": "not run"}', Pending, "not run"),
        ('{"status": "error", "errors": ["disk full"]}', Broken, "disk full"),
        ('{"status": "done", "errors": []}', Broken, "without having done"),
    ],
)
def test_cloud_inits_word_is_read(text, kind, part):
    seen = read_cloud_init(text)
    assert isinstance(seen, kind)
    assert part in (seen.detail if kind is Pending else seen.reason)


@pytest.mark.process
def test_a_promised_gpu_must_be_seen_and_a_missing_one_is_only_right_where_none_was_promised(tmp_path):
    none = machine(tmp_path)
    assert check_driver(none, gpus=0) == Passed("no GPU, as the offer says")
    missing = check_driver(none, gpus=1)
    assert isinstance(missing, Pending)
    assert "0 of 1 GPUs" in missing.detail
    broken = machine(tmp_path, nvidia_smi="echo 'NVIDIA-SMI has failed'; exit 9")
    assert "has failed" in check_driver(broken, gpus=1).detail
    good = machine(tmp_path, nvidia_smi="echo 'Tesla T4, 570.1, 15360 MiB'")
    assert check_driver(good, gpus=1) == Passed("Tesla T4, 570.1, 15360 MiB")
    assert "1 of 2" in check_driver(good, gpus=2).detail


@pytest.mark.process
def test_a_cuda_operation_runs_in_the_python_that_will_train(tmp_path):
    good = machine(tmp_path, python="echo 'Tesla T4 CUDA 12.8'")
    assert check_cuda(good, "python", gpus=1) == Passed("Tesla T4 CUDA 12.8")
    bad = machine(tmp_path, python="echo 'CUDA driver version is insufficient' >&2; exit 1")
    assert "insufficient" in check_cuda(bad, "python", gpus=1).detail
    assert check_cuda(bad, "python", gpus=0) == Passed("no GPU to try")
