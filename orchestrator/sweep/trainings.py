"""The trainings of a trial: their settings, their keys and their plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.errors import UsageError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.offers.offer import Offer, Where
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.inputs import read_inputs
from gpu_offload.orchestrator.plan.planned import Planned
from gpu_offload.orchestrator.plan.planner import Planning, planning_of
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.plan.training_key import version_of
from gpu_offload.orchestrator.settings.dimension import Scalar, path_of, sample
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.sweep.record import TrainingRef
from gpu_offload.orchestrator.sweep.space import Space
from gpu_offload.orchestrator.workspace import Workspace, snapshot_of
from gpu_offload.remote_job.weights import WeightsMismatchError, WeightsUnavailableError


class SweepError(UsageError):
    """The sweep cannot be run as it is configured; the text says why and what to do."""


def settings_with(
    settings: Settings,
    values: Mapping[str, Scalar],
    *,
    seed: int = 0,
    fold: str | None = None,
    max_cost_usd: float | None = None,
    deadline_s: float | None = None,
) -> Settings:
    """Return the settings of one training. Raises ValidationError if a value is not possible."""
    training = settings.training.having(values)
    limits = settings.limits
    split = settings.dataset.split
    changes = {
        "training": training.model_copy(update={"seed": training.seed + seed}),
        "dataset": settings.dataset.model_copy(
            update={"split": split.model_copy(update={"fold": fold}) if fold else split}
        ),
        "limits": limits.model_copy(
            update={
                "max_cost_usd": limits.max_cost_usd if max_cost_usd is None else max_cost_usd,
                "deadline": limits.deadline if deadline_s is None else timedelta(seconds=deadline_s),
            }
        ),
    }
    return Settings(**(dict(settings) | changes))


@dataclass
class Trainings:
    """Makes the trainings of one sweep. Offers, cluster and datasets are read once."""

    settings: Settings
    store: ObjectStore
    workspace: Workspace
    console: Console
    on: Where
    space: Space
    _offers: list[Sequence[Offer] | None] = field(default_factory=list)
    _cluster: list[Offer] = field(default_factory=list)

    def check(self) -> None:
        """Check that trials differ. Raises SweepError, DatasetError."""
        if not self.space.dimensions and len(self.space.repetitions) == 1:
            raise SweepError(
                'there is nothing to try: write for example lr0 = "log 1e-4..1e-1" or seed = 5 below [sweep]'
            )
        faults = []
        for name, dimension in self.space.dimensions.items():
            # What the configuration cannot show: files, weights, and their task.
            for value in sample(dimension) if path_of(name)[-1] in {"model", "init-from"} else ():
                try:
                    read_inputs(settings_with(self.settings, {name: value}), self.store, self.workspace)
                except (PlanningError, DatasetError, WeightsUnavailableError, WeightsMismatchError) as error:
                    faults.append(f"sweep.{name}, {value!r}: {error}")
        if faults:
            raise SweepError("\n".join(faults))
        if self.space.folds > 1 and self._validated(1) == self._validated(2):
            raise SweepError(
                "sweep.folds: the dataset itself lists the images that validate, so all folds would be the same; remove "
                "folds, or the dataset's own split"
            )

    def _validated(self, fold: int) -> list[str]:
        settings = settings_with(self.settings, {}, fold=f"{fold}/{self.space.folds}")
        return [s.image for s in snapshot_of(settings, self.workspace).samples if s.split == "val"]

    @cached_property
    def base_key(self) -> str:
        """The training key of the configuration as it is, whose values the sweep changes."""
        return read_inputs(self.settings, self.store, self.workspace).key

    def references(self, values: Mapping[str, Scalar]) -> tuple[TrainingRef, ...]:
        """Return the trainings that judge a choice of values."""
        found, by_fold = [], {}
        for seed, fold in self.space.repetitions:
            settings = settings_with(self.settings, values, seed=seed, fold=self.fold_text(fold))
            if fold not in by_fold:  # seeds of the same fold train on the same images
                by_fold[fold] = read_inputs(settings, self.store, self.workspace)
            key = replace(by_fold[fold], settings=settings).key
            found.append(TrainingRef(seed=seed, fold=fold, training_key=key, version=version_of(key)))
        return tuple(found)

    def fold_text(self, fold: int | None) -> str | None:
        """Return a fold as `dataset.split.fold` writes it."""
        return None if fold is None else f"{fold}/{self.space.folds}"

    def plan(
        self,
        values: Mapping[str, Scalar],
        training: tuple[int, int | None],
        *,
        max_cost_usd: float | None = None,
        deadline_s: float | None = None,
        calibrate: bool | None = False,
    ) -> Planned:
        """Plan one training within these limits, as `offload train` would."""
        seed, fold = training
        settings = settings_with(
            self.settings,
            values,
            seed=seed,
            fold=self.fold_text(fold),
            max_cost_usd=max_cost_usd,
            deadline_s=deadline_s,
        )
        planning: Planning = planning_of(settings, self.store, self.console)
        ask, ask_cluster = planning.offers, planning.ray_offer

        def offers() -> Sequence[Offer] | None:
            if not self._offers:
                self._offers.append(ask())
            return self._offers[0]

        def ray_offer(modules: Sequence[str]) -> Offer:
            if not self._cluster and ask_cluster is not None:
                self._cluster.append(ask_cluster(modules))
            return self._cluster[0]

        return replace(planning, offers=offers, ray_offer=ray_offer, moves_aliases=False).plan(
            on=self.on, calibrate=calibrate, only_if_it_matters=True
        )
