"""What the machine really gives, and which switches follow from it."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resources import needs

from gpu_offload.remote_job import allocator
from gpu_offload.remote_job.spec import SWITCHES
from gpu_offload.remote_job.speed import capacity, plan
from gpu_offload.remote_job.speed.capacity import Capacity

RUNNER = Capacity(
    cores=4,
    memory_bytes=16 << 30,
    instruction_sets=frozenset({"avx2", "avx512", "avx512_bf16"}),
    compiler="/usr/bin/cc",
    glibc=(2, 39),
)


def test_the_machine_has_cores_memory_and_no_more_than_the_kernel_says():
    machine = capacity.capacity()
    assert 1 <= machine.cores <= os.cpu_count()
    assert 64 << 20 < machine.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_system_without_affinity_counts_its_processors(monkeypatch):
    """macOS has no `os.sched_getaffinity`."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(capacity, "cpu_quota", lambda: None)
    assert capacity.capacity().cores == os.cpu_count()
    monkeypatch.setenv("GPU_OFFLOAD_CORES", "1")
    assert capacity.capacity().cores == 1


def test_the_tightest_quota_on_the_way_up_counts(tmp_path):
    inner = tmp_path / "system.slice" / "job"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    (inner.parent / "memory.max").write_text("2147483648\n")
    (inner / "memory.max").write_text("max\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/system.slice/job\n")
    assert capacity.cpu_quota(tmp_path, membership) == 1.5
    assert capacity.memory_limit(tmp_path, membership) == 2 << 30


def test_quotas_of_the_first_generation_count_too(tmp_path):
    group = tmp_path / "cpu,cpuacct" / "docker" / "abc"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("200000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n")
    assert capacity.cpu_quota(tmp_path, membership) == 2
    assert capacity.memory_limit(tmp_path, membership) is None


def test_no_quota_is_no_limit(tmp_path):
    assert capacity.cpu_quota(tmp_path, tmp_path / "missing") is None


def test_instruction_sets_are_read_from_the_processors_flags(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: X\nflags\t\t: fpu avx2 avx512f amx_tile amx_bf16\n\nflags\t\t: fpu\n")
    assert capacity.instruction_sets(cpuinfo) == {"avx2", "avx512", "amx", "amx_bf16"}


def test_a_usual_runner_gets_everything():
    made = plan.plan(RUNNER)
    assert all(switch.on and switch.reason for switch in made.switches.values())
    assert made.threads == 4


@given(st.dictionaries(st.sampled_from(sorted(plan.CHOICES)), st.booleans()))
def test_what_is_turned_off_by_hand_is_off_and_says_so(wishes):
    made = plan.plan(RUNNER, wishes)
    for name, wish in wishes.items():
        if not wish:
            assert not made.on(name)
            assert made.switches[name].reason == "turned off by hand"
    assert made.document().keys() == plan.CHOICES.keys()


@given(
    st.builds(
        Capacity,
        cores=st.integers(1, 256),
        memory_bytes=st.integers(1 << 28, 1 << 42),
        instruction_sets=st.frozensets(st.sampled_from(sorted(capacity.INSTRUCTION_SETS.values()))),
        compiler=st.sampled_from([None, "/usr/bin/cc"]),
        glibc=st.sampled_from([None, (2, 31), (2, 39)]),
    )
)
def test_what_the_machine_cannot_do_stays_off_whatever_is_wished(machine):
    made = plan.plan(machine, dict.fromkeys(plan.CHOICES, True))
    assert made.on("allocator") == (machine.glibc is not None)
    assert not (made.on("fused_norm") and machine.compiler is None)
    assert not (made.on("fused_norm") and not made.on("channels_last"))
    assert not made.on("mixed_precision") or machine.instruction_sets & {"avx512_bf16", "amx_bf16"}
    assert 1 <= made.threads <= machine.cores


def test_a_training_that_goes_on_keeps_the_precision_it_began_with_where_the_machine_can():
    """What an older release did not know was off then."""
    off = plan.plan(RUNNER, begun={**dict.fromkeys(plan.CHOICES, True), "mixed_precision": False})
    assert off.switches["mixed_precision"].reason == "as it was when the training began"
    assert off.on("fused_norm")
    before = {name: True for name in plan.CHOICES if name != "mixed_precision"}
    assert not plan.plan(RUNNER, begun=before).on("mixed_precision")
    kept = plan.plan(RUNNER, begun=dict.fromkeys(plan.CHOICES, True))
    assert kept.on("mixed_precision")
    assert not kept.on("trial")
    other = plan.plan(replace(RUNNER, instruction_sets=frozenset({"avx2"})), begun=before)
    assert not other.on("mixed_precision")


@pytest.mark.parametrize("amp", [False, "fp32", "bf16"])
def test_the_hyperparameter_amp_decides_where_it_is_set(amp):
    made = plan.respecting_amp(plan.plan(RUNNER), amp=amp)
    decided = {"on": False, "reason": f"the hyperparameter amp ({amp}) decides"}
    assert made.document()["mixed_precision"] == decided
    assert plan.respecting_amp(plan.plan(RUNNER), amp=True).on("mixed_precision")


def test_without_the_switch_threads_are_as_many_as_ultralytics_takes():
    assert plan.plan(RUNNER, {"threads": False}).threads == 3


def test_a_switch_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(
        ValueError, match=r"speed\.warp: there is no such switch; there are threads, allocator"
    ):
        plan.plan(RUNNER, {"warp": True})
    assert tuple(plan.CHOICES) == SWITCHES, "a configuration is checked by these names"


def test_nothing_of_ours_is_on_where_it_was_not_measured():
    made = plan.on_device(plan.plan(RUNNER), "cuda")
    assert [name for name in plan.CHOICES if made.on(name)] == ["allocator"]
    assert "cuda" in made.switches["channels_last"].reason


def test_allocator_settings_of_the_environment_stay():
    wanted = allocator.environment({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:glibc.malloc.check=1"})
    assert wanted["GLIBC_TUNABLES"].startswith("glibc.malloc.hugetlb=0:glibc.malloc.check=1:")
    assert "hugetlb=1" not in wanted["GLIBC_TUNABLES"]
    assert not allocator.is_tuned(wanted)


def test_our_own_settings_are_recognised_and_not_made_twice():
    wanted = allocator.environment({})
    assert allocator.is_tuned(wanted)
    assert allocator.environment(wanted) == wanted


@pytest.mark.process
def test_a_program_restarts_once_under_the_settings_with_its_arguments():
    program = (
        "import os, sys; from gpu_offload.remote_job import allocator; allocator.restart();"
        "print(os.getpid(), allocator.is_tuned(os.environ), *sys.argv[1:])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    started = subprocess.Popen(
        [sys.executable, "-c", program, "a b", "--c"], env=environment, stdout=subprocess.PIPE, text=True
    )
    out, _ = started.communicate(timeout=60)
    assert out.split(maxsplit=2) == [str(started.pid), "True", "a b --c\n"]


def test_a_spec_can_turn_the_restart_off(tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text('{"speed": {"allocator": false}}')
    assert allocator.unwanted(["--parent-stdin", str(spec)])
    spec.write_text('{"speed": {}}')
    assert not allocator.unwanted([str(spec)])
    assert not allocator.unwanted(["--device-check"])
    assert not allocator.unwanted([str(tmp_path / "missing")])


@pytest.mark.process
def test_choosing_needs_neither_torch_nor_ultralytics():
    program = (
        "import sys; from gpu_offload.remote_job.speed import capacity, plan; plan.plan(capacity.capacity());"
        "print({'torch', 'ultralytics'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


@needs("ultralytics")
@pytest.mark.process
@pytest.mark.training
def test_a_training_without_the_compiler_steps_as_with_it_and_puts_everything_back():
    program = """
import sys, torch
from gpu_offload.remote_job.speed import compiler

def trained(kind):
    weight = torch.nn.Parameter(torch.arange(3.0))
    optimizer = kind([weight], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    optimizer.load_state_dict(optimizer.state_dict())
    return weight.tolist()

kinds = (torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop)
before = torch.optim.Optimizer.zero_grad
with compiler.left_out():
    torch.use_deterministic_algorithms(True)
    without = [trained(kind) for kind in kinds]
    import torchvision
    kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2.1]]), torch.tensor([0.5, 0.6]), 0.5)
    assert kept.tolist() == [1] and torch.are_deterministic_algorithms_enabled()
assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)
assert torch.optim.Optimizer.zero_grad is before
assert torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), [torch.ones(1, 4)], 1).shape == (1, 1, 1, 1)
assert [trained(kind) for kind in kinds] == without
assert "torch._dynamo" in sys.modules
with compiler.left_out():  # the compiler is there: nothing is replaced
    assert torch.optim.Optimizer.zero_grad is before
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
