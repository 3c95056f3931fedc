"""One round of chaos: a run in a random world, whose drivers meet random faults, judged from outside."""

import random
import tempfile
from dataclasses import dataclass, field

from crash_promises import broken_promises
from crash_scenario import Fault, Scenario, StuckError
from crash_world import World

from gpu_offload.orchestrator.run.backend import InstanceLeftError

FAULTS = (
    "die-before", "die-after", "lost", "unsent", "cancel-before", "cancel-after", "reclaim", "reclaim-notice", "stall",
)  # fmt: skip
EFFECTS = 45
"""About how many effects a driver has in a run."""


@dataclass(frozen=True)
class Round:
    """What one round was and came to."""

    seed: int
    scenario: Scenario
    broken: list[str]
    drivers: int = 0
    instances: int = 0
    faults: int = 0
    outcome: str = "none"
    traces: dict[int, int] = field(default_factory=dict)
    """By epoch: how often it was begun."""


def scenario_of(dice: random.Random) -> Scenario:
    """Draw a world and what befalls the drivers in it."""

    def maybe(chance, draw, other):
        return draw() if dice.random() < chance else other

    cpu = dice.random() < 0.2
    epochs = dice.randint(1, 6)
    attempts = range(1, dice.randint(1, 3))
    return Scenario(
        epochs=epochs,
        epoch_s=dice.choice([60.0, 300.0, 900.0]),
        cpu=cpu,
        lag=dice.choice([0.0, 0.0, 5.0, 40.0, 200.0, 290.0]),
        staging_s=dice.choice([0.0, 60.0, 700.0]),
        detach=not cpu and dice.random() < 0.2,
        dead_man=True,
        deadline_s=dice.choice([2, 6, 24]) * 3600.0,
        max_cost_usd=dice.choice([0.3, 1.0, 5.0]),
        on_overrun=dice.choice(["stop", "continue"]),
        reclaims={n: (dice.uniform(10, 2000), dice.random() < 0.5) for n in attempts},
        silent=maybe(0.1, lambda: {1: dice.uniform(10, 1000)}, {}),
        deaf=maybe(0.2, lambda: {1: (100.0, dice.uniform(150, 500))}, {}),
        mute_s=maybe(0.1, lambda: dice.uniform(10, 2000), 0.0),
        refused=maybe(0.3, lambda: {"us-east-1a": dice.randint(1, 3), "us-east-1b": dice.randint(0, 2)}, {}),
        quota=maybe(0.05, lambda: frozenset({"spot"}), frozenset()),
        crowded=maybe(0.1, lambda: {"spot": dice.uniform(100, 3000)}, {}),
        roles=maybe(0.1, lambda: tuple(dice.choice(["launcher", "janitor"]) for _ in range(3)), ()),
        fails=dice.random() < 0.05,
        ends_early=maybe(0.05, lambda: max(1, epochs - 1), None),
        dies_at=maybe(0.05, lambda: dice.randint(1, epochs), None),
        foreign=maybe(0.2, lambda: frozenset({dice.choice(["heartbeat", "heartbeat's form"])}), frozenset()),
        stop_at=maybe(0.15, lambda: dice.uniform(0, 3000), None),
        slow=dice.choice([1.0, 1.0, 1.0, 4.0]),
        same_machine=dice.random() < 0.3,
        restart_s=dice.choice([1.0, 30.0, 1000.0]),
        faults={
            (driver, dice.randint(1, EFFECTS)): Fault(dice.choice(FAULTS), dice.choice([0, 1, 4]))
            for driver in range(1, dice.randint(1, 5))
            for _ in range(dice.randint(0, 2))
        },
        outsider=maybe(0.1, lambda: {n: dice.uniform(10, 2000) for n in attempts}, {}),
    )


def play_round(seed: int) -> Round:
    """Play one round to its end and judge it. The same seed gives the same round."""
    scenario = scenario_of(random.Random(seed))
    world = World(scenario)
    try:
        world.play(drivers=16)
    except (StuckError, InstanceLeftError) as error:
        return Round(seed, scenario, [f"stuck: {error}"])
    except Exception as error:  # noqa: BLE001 - a traceback is what this looks for
        return Round(seed, scenario, [f"traceback: {type(error).__name__}: {error}"])
    broken = broken_promises(world, status=None)
    outcome = world.outcome()
    return Round(
        seed,
        scenario,
        broken,
        drivers=len(world.actors),
        instances=len(world.machines),
        faults=len(scenario.faults),
        outcome=outcome,
        traces=dict(world.epochs_begun),
    )


def use_memory_for_scratch() -> None:
    """Let scratch folders be in memory where there is such a place: thousands are made."""
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as _:
            tempfile.tempdir = "/dev/shm"
    except OSError:
        pass
