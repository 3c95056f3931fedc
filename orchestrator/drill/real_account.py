"""The drill on the user's own account: fewer faults, real instances, and a cost limit for each run."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.drill.account_cloud import AccountCloud
from gpu_offload.orchestrator.drill.command import DrillError
from gpu_offload.orchestrator.drill.faults import FAULTS, DrillFault, Recovery
from gpu_offload.orchestrator.drill.project import TRAINING, DrillPace
from gpu_offload.orchestrator.drill.stage import DrillStage
from gpu_offload.orchestrator.drill.suite import DrillReport, Survived, outcome_of
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.plan.prerequisites import check_renting
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.settings.load import Settings

if TYPE_CHECKING:
    from gpu_offload.infra.simulator.cloud import SimulatedCloud


PACE = DrillPace(epochs=4, seconds=15.0)

CONFIGURATION = """\
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
entrypoint = "drill_training:main"
epochs = {epochs}
image-size = 64
batch = 8
hyperparameters = {{drill = {token}}}
[limits]
deadline = "1h"
max-cost-usd = {usd}
[store]
{store}
[ec2]
{ec2}
"""


def drill_on_account(
    settings: Settings,
    store_url: str,
    max_cost_usd: float,
    *,
    wanted: Sequence[str] = (),
    on_result: Callable[[Survived], object] = lambda _: None,
) -> DrillReport:
    """Run a drill on the account of the configuration, one fault after the other, for at most `max_cost_usd` in all.

    `store_url` is a store for the drill alone, since it publishes; `wanted` names faults (all if empty). Raises
    DrillError: nothing was started; RentingError.
    """
    known = {fault.name: fault for fault in ON_AN_ACCOUNT}
    if unknown := [name for name in wanted if name not in known]:
        raise DrillError(f"not on an account: {', '.join(unknown)} (there are {', '.join(known)})")
    if store_url.rstrip("/") == settings.store_url.rstrip("/"):
        raise DrillError(
            "the drill publishes a model, which must not become your `stable`: give it a store of its own"
        )
    there = settings.model_copy(update={"store": settings.store.model_copy(update={"url": store_url})})
    check_renting(there)
    chosen = [fault for fault in ON_AN_ACCOUNT if not wanted or fault.name in wanted]
    results = []
    for fault in chosen:
        with AccountStage.of(there, fault, max_cost_usd / len(chosen)) as stage:
            results.append(outcome_of(fault, stage))
        on_result(results[-1])
    return DrillReport(tuple(results))


@dataclass
class AccountStage(DrillStage):
    """A stage on the user's account. It leaves no instance in any case."""

    max_cost_usd: float = 0.0
    patience: float = 1500.0
    hidden: tuple[str, ...] = ()
    _began: float = 0.0

    @classmethod
    def of(cls, settings: Settings, fault: DrillFault, max_cost_usd: float) -> Self:
        """Return the stage for one fault."""
        cloud = AccountCloud(settings)
        # A stage uses only what an account can answer.
        return cls(fault.name, cast("SimulatedCloud", cloud), PACE, max_cost_usd=max_cost_usd)

    def _furnish(self) -> None:
        account = self.rented
        settings, self._began = account.settings, time.time()
        (self.project / "drill_training.py").write_text(
            TRAINING.format(trace="/dev/null", pace=self.pace.seconds)
        )
        store = settings.store.model_dump(by_alias=True, mode="json", exclude_none=True)
        ec2 = settings.ec2.model_dump(by_alias=True, mode="json", exclude_none=True)
        ec2["instance-types"] = [smallest(settings.ec2.types)]
        (self.project / "offload.toml").write_text(
            CONFIGURATION.format(
                epochs=self.pace.epochs,
                token=secrets.randbelow(10**9),  # another training key each time: it is not published already
                usd=round(self.max_cost_usd, 4),
                store=_toml(store),
                ec2=_toml(ec2),
            )
        )
        self.store = open_store(
            settings.store_url, endpoint_url=settings.store.endpoint_url, region=settings.store.region
        )
        self.journal = Journal(self.store)

    def __exit__(self, *error: object) -> None:
        """End every command and every remaining instance."""
        super().__exit__(*error)  # type: ignore[arg-type]  # as it came
        self.rented.terminate()

    @property
    def rented(self) -> AccountCloud:
        """The account."""
        return cast("AccountCloud", self.cloud)

    def run(self) -> RunRecord | None:
        """Return this fault's run: the store has those of others, too."""
        runs = [self.journal.run(name) for name in self.journal.run_ids()]
        return next((run for run in runs if run.created_at >= self._began - 1), None)


def smallest(instance_types: Sequence[str]) -> str:
    """Return the cheapest of these types by the price table; the first if none is in it."""
    price = {o.instance_type: o.usd_per_hour for o in TABLE if o.market == "on-demand"}
    return min(instance_types, key=lambda name: price.get(name, float("inf")))


def _instance_lost(stage: DrillStage) -> Recovery:
    """Terminate the instance without notice; the driver must rent another and resume."""
    if not isinstance(stage, AccountStage):
        raise DrillError("a simulated cloud has its own reclaims")
    command = stage.train()
    stage.until("an epoch is trained", stage.has_trained(1), command)
    struck = time.time()
    stage.rented.terminate()
    stage.run_to_end(command)
    run = stage.run()
    attempts = len(stage.journal.attempts(run.id)) if run else 0
    if attempts < 2:
        return Recovery("too late to lose it: it had finished", 0.0)
    return Recovery(f"attempt {attempts} carried on and finished it", stage.trained_at(attempts) - struck)


def _toml(section: Mapping[str, object]) -> str:
    """Write one section's settings; strings, numbers and lists are in TOML as they are in JSON."""
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in section.items())


_SIGNALS = {"cancel-while-starting", "cancel-while-training", "cancel-while-publishing", "runner-killed"}

ON_AN_ACCOUNT: tuple[DrillFault, ...] = (
    *(fault for fault in FAULTS if fault.name in _SIGNALS),
    DrillFault("instance-lost", _instance_lost),
)
"""Faults that need no simulator: signals to our processes, and terminating our instance."""
