"""Readiness is decided from observations, stage by stage, each within its own time."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_host import LocalHost

from gpu_offload.infra.instance.readiness import (
    Failed,
    NotReadyError,
    ReadinessProgress,
    Ready,
    await_ready,
    decide,
)
from gpu_offload.infra.instance.readiness_checks import (
    check_boot,
    check_cloud_init,
    check_cuda,
    check_driver,
    check_ssh,
    read_cloud_init,
)
from gpu_offload.infra.instance.stage import LIMITS_S, STAGES, Broken, Passed, Pending, ReadinessStage
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


def test_each_stage_leads_to_the_next_and_the_last_to_ready():
    step, order = ReadinessProgress(STAGES[0], 0.0), []
    for number in range(len(STAGES)):
        order.append(step.current)
        step = decide(step, Passed(f"detail {number}"), float(number))
    assert order == list(STAGES)
    assert step == Ready({stage: f"detail {number}" for number, stage in enumerate(STAGES)})


@given(st.sampled_from(STAGES), st.floats(0, 1_000), st.floats(0, 1_000))
def test_a_stage_is_waited_for_within_its_own_time_and_no_longer(stage, since, spent):
    progress = ReadinessProgress(stage, since)
    step = decide(progress, Pending("missing"), since + spent)
    if (since + spent) - since < LIMITS_S[stage]:
        assert step == progress
    else:
        assert isinstance(step, Failed)
        assert step.stage is stage
        assert "missing" in step.reason


@given(st.lists(st.one_of(st.just(Passed()), st.just(Pending()), st.just(Broken("it is"))), max_size=40))
def test_any_sequence_ends_ready_or_failed_or_goes_on_and_never_goes_back(seen):
    step = ReadinessProgress(STAGES[0], 0.0)
    for number, observation in enumerate(seen):
        before, step = step, decide(step, observation, float(number))
        if isinstance(step, Ready | Failed):
            break
        assert STAGES.index(step.current) >= STAGES.index(before.current)
    good = seen[: seen.index(Broken("it is"))] if Broken("it is") in seen else seen
    assert isinstance(step, Ready) == (good.count(Passed()) >= len(STAGES))


def test_a_broken_stage_fails_at_once_with_its_advice_and_the_console_output():
    clock = Clock()
    with pytest.raises(NotReadyError, match="driver") as caught:
        await_ready(
            {ReadinessStage.DRIVER: lambda: Broken("no such device")}, console=lambda: "NVRM: fell off the bus",
            clock=clock, sleep=clock.sleep,
        )  # fmt: skip
    assert caught.value.stage is ReadinessStage.DRIVER
    assert "no such device" in str(caught.value)
    assert "choose another image" in str(caught.value)
    assert "fell off the bus" in str(caught.value)
    assert clock.now == 0


def test_waiting_reports_what_it_observes_and_begins_at_the_given_stage():
    clock, left, told = Clock(), [2], []

    def driver():
        left[0] -= 1
        return Passed("Tesla T4") if left[0] < 0 else Pending("not yet")

    ready = await_ready(
        {ReadinessStage.SSH: lambda: Broken("is not asked"), ReadinessStage.DRIVER: driver}, console=lambda: "",
        first=ReadinessStage.CLOUD_INIT, every=5.0, tell=lambda *words: told.append(words), clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    assert ready.details[ReadinessStage.DRIVER] == "Tesla T4"
    assert [(stage.value, type(seen).__name__, seconds) for stage, seen, seconds in told] == [
        ("cloud-init", "Passed", 0.0),
        ("driver", "Pending", 0.0),
        ("driver", "Pending", 5.0),
        ("driver", "Passed", 10.0),
        ("cuda", "Passed", 0.0),
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
