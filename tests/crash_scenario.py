"""What happens in a case of the crash sweep, and the run, model and costs that follow from it."""

import hashlib
from dataclasses import dataclass, field

import run_case
from run_case import candidate_of, gpu_offer, run_of, spec_of

from gpu_offload.orchestrator.cost.bill import spent
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.registry.manifest import model_key
from gpu_offload.orchestrator.run.attempt_use import use_of
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.remote_job.result import Artifact, TrainingResult

T0 = 1_800_000_000.0
KEY = "k" * 64
RUN = KEY[:12] + "-1"
VERSION = KEY[:16]
MANIFEST_KEY = model_key(VERSION, "manifest.json")

BOOT_S = 5.0
SHUTDOWN_S = 8.0
FORGOTTEN_S = 3600.0
"""After so long a terminated instance is not described any more."""
UNREADABLE = "heartbeat's form"
TOKEN_S = 900.0
"""After so long a launch token means nothing any more: the same launch starts another instance."""
DEAD_PID = 1 << 30
"""No process has this number: a driver of the same machine knows at once that this one is gone."""
BEAT_S = 60.0
POWER_OFF_S = 600.0
STALL_S = 400.0
"""How long a stalled driver stands still at least: longer than its lease."""
PATIENCE_STEPS = 700


class KilledError(BaseException):
    """SIGKILL: no handler runs, and whatever the dead driver's `finally` tries is refused likewise."""


class StuckError(AssertionError):
    """A driver went on for longer than any run can take."""


@dataclass(frozen=True)
class Fault:
    """What befalls a driver at one of its effects.

    `kind`: die-before, die-after, lost (done, the reply lost), unsent (not done, no reply), stall (another driver
    takes `steps` steps meanwhile; 0: to the end), cancel-before, cancel-after (SIGINT), reclaim, reclaim-notice.
    """

    kind: str
    steps: int = 0


@dataclass
class Scenario:
    """What a case is made of; `faults` by (driver, effect), both counted from 1."""

    epochs: int = 3
    epoch_s: float = 300.0
    lag: float = 0.0
    """How many seconds EC2's answers are behind."""
    staging_s: float = 0.0
    """How long the inputs take to reach the store."""
    cpu: bool = False
    detach: bool = False
    dead_man: bool = False
    """Off: then the loop alone has to keep the promises."""
    deadline_s: float = 6 * 3600.0
    max_cost_usd: float = 2.0
    on_overrun: str = "stop"
    reclaims: dict[int, tuple[float, bool]] = field(default_factory=dict)
    """By attempt: seconds after its training began, and whether a notice precedes it."""
    outsider: dict[int, float] = field(default_factory=dict)
    """By attempt: seconds after its training began at which a person terminates its instance."""
    silent: dict[int, float] = field(default_factory=dict)
    """By attempt: seconds after its training began at which its machine hangs and says nothing more."""
    deaf: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By attempt: from when to when (likewise) the instance cannot reach the store."""
    mute_s: float = 0.0
    """Until so long after the run began, no launch is answered, though it is carried out."""
    refused: dict[str, int] = field(default_factory=dict)
    """By zone or market: how often it refuses."""
    quota: frozenset[str] = frozenset()
    """Markets that the account may not use."""
    crowded: dict[str, float] = field(default_factory=dict)
    """By market: until so many seconds after the run began, other instances use the quota up."""
    broken_profile: bool = False
    """The configuration names an instance profile that does not exist."""
    roles: tuple[str, ...] = ()
    """By driver: `janitor` may not launch; drivers past the last have every right."""
    ends_early: int | None = None
    """The training ends by itself after so many epochs, and says that it has finished."""
    foreign: frozenset[str] = frozenset()
    """Documents that a newer version writes, with fields that this one does not know: `heartbeat`."""
    dies_at: int | None = None
    """The training's process dies in this epoch, every time."""
    fails: bool = False
    """The training says no."""
    stop_at: float | None = None
    """Seconds after the run began at which a user runs `offload stop`."""
    slow: float = 1.0
    """How much longer the epochs take than was estimated, on instances."""
    cpu_slow: float = 1.0
    """Likewise on the driver's machine; a run that escalates goes from there to instances."""
    same_machine: bool = False
    """The next driver starts on the same machine, and so knows at once that the last one is dead."""
    restart_s: float = 30.0
    """How long after a driver's death the next one comes."""
    faults: dict[tuple[int, int], Fault] = field(default_factory=dict)


def run_record(scenario: Scenario) -> RunRecord:
    """Return the run that a scenario is about."""
    seconds = scenario.epochs * scenario.epoch_s + 60
    takes = Interval(seconds * 0.8, seconds, seconds * 1.3)
    offers = [cpu_offer(2)] if scenario.cpu else []
    if not scenario.cpu or scenario.on_overrun == "escalate":
        offers += [
            gpu_offer("us-east-1a"),
            gpu_offer("us-east-1b"),
            gpu_offer("us-east-1a", "on-demand", 0.526),
        ]
    return run_of(
        *(candidate_of(offer, takes) for offer in offers),
        now=T0,
        id=RUN,
        training_key=KEY,
        version=VERSION,
        deadline_at=T0 + scenario.deadline_s,
        max_cost_usd=scenario.max_cost_usd,
        on_overrun=scenario.on_overrun,
        forced=False,
        estimate=takes,
        spec=spec_of(
            run=RUN, training_key=KEY, epochs=scenario.epochs, image_size=160, batch=16, output="/out"
        ),
    )


def model_of(attempt: int) -> bytes:
    """Return the model that an attempt would make: each a different one."""
    return f"model of attempt {attempt}".encode()


def result_of(scenario: Scenario, attempt: int) -> TrainingResult:
    """Return what an attempt says it made."""
    body = model_of(attempt)
    return run_case.result_of(
        run=RUN,
        attempt=attempt,
        training_key=KEY,
        epochs=scenario.epochs,
        epochs_completed=scenario.ends_early or scenario.epochs,
        model=Artifact(name="model.pt", size=len(body), sha256=sha_of(body)),
        metrics={"map50": 0.5},
    )


FREE_STORE = run_record(Scenario())
"""A run whose transfers cost nothing, as of every scenario."""


def cost_of(attempts: object, now: float) -> float:
    """Return what attempts cost, by the product's own reckoning."""
    return spent([use_of(a, FREE_STORE, now=now) for a in attempts if a.host is not None])


def json_of(document: object) -> bytes:
    return document.model_dump_json(by_alias=True).encode()


def sha_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
