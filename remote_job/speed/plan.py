"""How fast a training may use the machine it is on: which switches are on, and why.

Every switch leaves alone what is learned: the same images in the same order, the same augmentations, the same
optimizer. Those that change rounding are compared over seeds by `benchmarks/training_parity.py`; what each
gains is in `docs/speed.md`. Switches that were not measured stay off: on a GPU that is all of ours, and
Ultralytics' own choices (mixed precision, channels last, loader workers, pinned memory) stand.

Imports neither torch nor Ultralytics.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gpu_offload.remote_job.allocator import HUGE_PAGES_SINCE
from gpu_offload.remote_job.pace.ending import TRIAL_MIN_STEPS
from gpu_offload.remote_job.speed.capacity import Capacity

MULTIPLY_BFLOAT16 = ("amx_bf16", "avx512_bf16")
"""Instruction sets whose products of 16-bit numbers are at least twice as fast as those of 32 bits."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether one way to be faster is taken."""

    on: bool
    reason: str


@dataclass(frozen=True, slots=True)
class SpeedPlan:
    """The switches of one training."""

    threads: int
    switches: Mapping[str, Switch] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.switches[name].on

    def turn(self, name: str, *, on: bool, reason: str) -> "SpeedPlan":
        """Return the plan with one switch set."""
        return replace(self, switches={**self.switches, name: Switch(on, reason)})

    def document(self) -> dict[str, Any]:
        """Return the plan as `TrainingResult.speed` records it."""
        return {name: asdict(switch) for name, switch in self.switches.items()}


def threads(machine: Capacity) -> Switch:
    """Compute on every core: Ultralytics leaves one of them idle, half of the machine where it has two."""
    return Switch(True, f"all {machine.cores} cores that this process may use")


def allocator(machine: Capacity) -> Switch:
    """Keep freed memory, in large pages."""
    if machine.glibc is None:
        return Switch(False, "the C library is not GNU's, its allocator has no settings")
    pages = (
        "in large pages"
        if machine.glibc >= HUGE_PAGES_SINCE
        else "in small pages, this glibc knows no others"
    )
    return Switch(True, f"freed blocks are kept, {pages}")


def channels_last(machine: Capacity) -> Switch:
    """Lay pictures out pixel by pixel, as oneDNN's fastest kernels want them."""
    if machine.instruction_sets & {"avx512", "avx2", "neon"}:
        return Switch(True, "convolutions need no reordering of their input and output")
    return Switch(False, "not measured on a processor without AVX2, AVX-512 or Neon")


def mixed_precision(machine: Capacity) -> Switch:
    """Train in bfloat16 what a GPU would train in half precision."""
    for name in MULTIPLY_BFLOAT16:
        if name in machine.instruction_sets:
            return Switch(True, f"this processor multiplies in bfloat16 ({name})")
    return Switch(False, "bfloat16 is slower where no instruction multiplies in it")


def fused_norm(machine: Capacity) -> Switch:
    """Normalise and activate in one pass, by a kernel compiled for this processor."""
    if machine.compiler is None:
        return Switch(False, "no C compiler on this machine")
    return Switch(True, f"compiled by {machine.compiler} in about a second")


def always(reason: str) -> Callable[[Capacity], Switch]:
    """Return the choice of a switch that every machine has."""
    return lambda _machine: Switch(True, reason)


CHOICES: dict[str, Callable[[Capacity], Switch]] = {
    "threads": threads,
    "allocator": allocator,
    "channels_last": channels_last,
    "mixed_precision": mixed_precision,
    "fused_norm": fused_norm,
    "fused_optimizer": always("Adam, AdamW and SGD have a fused kernel on a CPU"),
    "image_cache": always("decoded and scaled pictures are kept where memory allows"),
    "trial": always(
        f"a few steps in both memory layouts and precisions, for trainings of {TRIAL_MIN_STEPS} steps and more"
    ),
}
"""All switches, by the name that `TrainingSpec.speed` turns them off by."""

NEEDS = {"mixed_precision": "channels_last", "fused_norm": "channels_last"}
"""Switches that are nothing without another."""


def faults(wishes: Mapping[str, bool]) -> list[str]:
    """Return what is wrong with switches set by hand."""
    return [
        f"speed.{name}: there is no such switch; there are {', '.join(CHOICES)}"
        for name in wishes
        if name not in CHOICES
    ]


def plan(
    machine: Capacity, wishes: Mapping[str, bool] | None = None, *, begun: Mapping[str, bool] | None = None
) -> SpeedPlan:
    """Choose the switches. What the machine cannot do stays off, also where it was wished for.

    What was off in the training that this one resumes (`begun`) stays off, and nothing is tried again: another layout or
    precision rounds differently.

    Raises:
        ValueError: A wish names no switch.
    """
    wishes = wishes or {}
    if wrong := faults(wishes):
        raise ValueError("; ".join(wrong))
    switches = {}
    for name, choice in CHOICES.items():
        switch = choice(machine)
        if switch.on and not wishes.get(name, True):
            switch = Switch(False, "turned off by hand")
        if switch.on and begun is not None and (name == "trial" or not begun.get(name, False)):
            switch = Switch(False, "as it was when the training began")
        switches[name] = switch
    # Last: the switch that another one needs may be off for any of the reasons above.
    for name, other in NEEDS.items():
        if switches[name].on and not switches[other].on:
            switches[name] = Switch(False, f"needs {other}, which is off")
    chosen = SpeedPlan(threads=1, switches=switches)
    # NUM_THREADS of Ultralytics: eight at most, and one core less than there are.
    count = machine.cores if chosen.on("threads") else max(1, min(8, machine.cores - 1))
    return replace(chosen, threads=count)


def respecting_amp(made: SpeedPlan, *, amp: bool | str) -> SpeedPlan:
    """Return the plan for a training whose precision the hyperparameter `amp` may decide: any value but its default."""
    if amp is True or not made.on("mixed_precision"):
        return made
    return made.turn("mixed_precision", on=False, reason=f"the hyperparameter amp ({amp}) decides")


def on_device(made: SpeedPlan, device: str) -> SpeedPlan:
    """Return the plan for another device than the CPU: everything off that was not measured on it."""
    for name in CHOICES:
        if name != "allocator":
            made = made.turn(
                name, on=False, reason=f"not measured on {device}; Ultralytics' own choices stand"
            )
    return made
