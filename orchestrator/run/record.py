"""A run: one training from the decision to the published model, over as many attempts as it takes.

The journal, below `runs/<id>/` in the store; written once, but for the lease and the launching record:

    run.json                what to train, until when, for how much, and the offers to try
    stop.json               a request to end the run
    driver.json             the lease of the driver
    attempts/<n>.json       an attempt, written before the launch it describes
    attempts/<n>.launching.json  when its instance was last requested; rewritten before each launch call
    attempts/<n>.host.json  the instance that came of it; what accounting needs once the instance has vanished
    attempts/<n>.end.json   how the attempt ended
    attempts/<n>.gone.json  when its instance ended, where that is later than the attempt's end
    collected.json          the staged result was read back and found complete
    outcome.json            how the run ended; a run without it is open
    cost.json               its bill, written after that
"""

from typing import Literal

from pydantic import Field

from gpu_offload.orchestrator.cost.prices import VOLUME_GIB
from gpu_offload.orchestrator.cost.traffic import StorePlace
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.plan.candidate import Candidate, Project
from gpu_offload.orchestrator.run.experience import Experience
from gpu_offload.remote_job.spec import TrainingSpec
from gpu_offload.remote_job.wire import Wire

RUN_PREFIX = "runs/"
RUN_KEY_LENGTH = 12
COST = "cost.json"

Policy = Literal["expected-cost", "uniform-progress", "greedy", "on-demand"]
"""How spot, on-demand and waiting are chosen; see `spot_policy`."""


class Origin(Wire):
    """Where a training that was to continue a published version starts; see `orchestrator.plan.warm_start`."""

    recipe: str
    version: str | None
    """The version that it continues; None: it begins from scratch."""
    warm_starts: int
    note: str


class RunRecord(Wire):
    """What a run is. Times are Unix seconds, so that every machine reads them alike."""

    format: Literal[1] = 1
    id: str
    training_key: str
    fingerprint: str
    version: str
    created_at: float
    installed_s: float = Field(default=0.0, ge=0)
    """Seconds that the job had installed its software before; part of the run's time."""
    deadline_at: float
    max_cost_usd: float
    value_of_time_usd_per_hour: float = 0.0
    """What the user would pay for an hour less: it decides whether the run waits for spot."""
    on_overrun: Literal["stop", "escalate", "continue"] = "stop"
    reversible: bool = False
    """Whether it begins on the CPU as a toss-up. It moves to an instance once that is better, or not safe to put off."""
    cpu_limit_s: float | None = None
    """Longest attempt on the CPU, in seconds, where the run may move to an instance and its job ends before the deadline."""
    max_attempts: int = Field(default=6, ge=1)
    why: str
    candidates: tuple[Candidate, ...]
    """In order of preference; an attempt takes the first that was not refused and still fits."""
    forced: bool = False
    """True if the user chose the place: estimates then do not refuse it, limits still end it."""
    estimate: Interval
    installation: Interval | None = None
    """What of the estimate is for installing, in seconds; None where nothing has to be."""
    dataset_name: str = ""
    """The dataset's path in the repository: it survives the dataset's growth."""
    cpu_estimate: Interval | None = None
    """Estimate for the free runner; for the report."""
    resumes: str | None = None
    """The earlier run of the same training whose checkpoint this one starts from."""
    spec: TrainingSpec
    """The training. The machine that trains fills in `attempt`, `output` and `dataset.tree`."""
    sweep: str | None = None
    """The sweep that it belongs to: its version is published, and no alias moves."""
    project: Project | None = None
    """What the training needs of the user's repository besides the dataset; None for Ultralytics' own models."""
    commit: str | None = None
    repository: str | None = None
    classes: tuple[str, ...] | None = None
    images: dict[str, int] | None = None
    """Number of images by split; as `classes`, for the manifest."""
    origin: Origin | None = None

    policy: Policy = "expected-cost"
    experience: Experience = Experience()
    """What former runs observed of EC2: where spot lasts, and how long a start takes."""
    volume_gib: int = VOLUME_GIB
    dataset_bytes: int = 0
    store_region: str | None = None
    """The bucket's region in AWS; None where it is not known or the store is elsewhere."""
    store_outside_aws: bool = False
    """Whether an instance reaches the store over the internet, and AWS charges for what it sends."""
    checkpoint_bytes: int = 0
    """What an epoch's checkpoint is expected to have, until the first was written."""
    model_bytes: int = 0

    @property
    def began_at(self) -> float:
        """From when its time is counted, in Unix seconds."""
        return self.created_at - self.installed_s

    @property
    def store_place(self) -> StorePlace:
        """Where the store is, as far as AWS's charges depend on it."""
        return StorePlace(self.store_region is not None, self.store_region, self.store_outside_aws)

    @property
    def regions(self) -> frozenset[str]:
        """The regions of its offers."""
        return frozenset(c.offer.region for c in self.candidates if c.offer.region)

    @property
    def is_rented(self) -> bool:
        """Whether any of its offers is an instance."""
        return any(candidate.offer.where == "ec2" for candidate in self.candidates)


class AttemptRecord(Wire):
    """An attempt, journalled before its first effect."""

    format: Literal[1] = 1
    number: int = Field(ge=1)
    offer: Offer
    created_at: float
    expires_at: float
    """When the instance powers itself off in any case: deadline or budget, whichever is first."""
    driver: str
    """The driver that opened it, and so has the SSH keys in memory."""
    max_price_usd: float | None = None
    """The highest spot price, USD/h, at which EC2 keeps the instance; `expires_at` is affordable at that price."""


class LaunchingRecord(Wire):
    """When the instance of an attempt was requested; written before the launch call, so that a later reader knows."""

    first_at: float
    """The first call: its client token does not last for ever."""
    at: float
    """The last call: an instance can appear for some minutes after it."""


class HostRecord(Wire):
    """The instance of an attempt, as the launch answered."""

    instance_id: str
    address: str | None
    launched_at: float
    market: Literal["spot", "on-demand"]
    zone: str
    region: str
    volume_gib: int
    ended_at: float | None = None
    """When it ended, for an instance that was found after its attempt was closed."""


class GoneRecord(Wire):
    """When the instance of a closed attempt really ended, by EC2's state reason."""

    instance_id: str
    at: float
    by_cloud: bool = False
    """True when EC2's own state reason says that it reclaimed the instance."""


EndReason = Literal[
    "finished", "refused", "reclaimed", "died", "failed", "stopped", "expired", "orphaned", "overrun", "moved"
]
"""`refused`: no instance came; `died`: the heartbeat stopped; `orphaned`: its driver died, and with it the keys or the
training; `failed`: the training itself failed, and would again; `overrun`: too slow for the limits, and another offer
would make it; `moved`: on-demand was left for spot, which is cheaper and can be there again."""

Scope = Literal["offer", "region", "run"]


class AttemptEnd(Wire):
    """How an attempt ended, and what accounting needs."""

    number: int
    reason: EndReason
    at: float
    message: str = ""
    quota: bool = False
    """True when the account's quota refused: no other zone helps, and a smaller type or a later hour can."""
    limit_vcpus: float | None = None
    """With `quota`: the account's limit, where it is known. An offer above it is never possible."""
    for_good: Scope | None = None
    """What a refusal rules out for the whole run; None for one that passes."""
    denied: bool = False
    """True when the driver's role may not launch: it says nothing about the offer."""
    by_cloud: bool = False
    """True when EC2's own state reason says that it reclaimed the instance."""


class StopRequest(Wire):
    """A request to end a run."""

    at: float
    reason: str


class Collected(Wire):
    """The staged result was read back whole: sizes, sha256 and epochs are right."""

    at: float
    attempt: int
    model_sha256: str


OutcomeStatus = Literal["published", "stopped", "failed"]


class Outcome(Wire):
    """How a run ended."""

    status: OutcomeStatus
    at: float
    message: str = ""
    version: str | None = None
    cut: bool = False
    """Whether money or time ended it, and a run with more of them would carry on."""


def run_key(run: str, name: str) -> str:
    """Return the store key of a run's document."""
    return f"{RUN_PREFIX}{run}/{name}"
