"""The results of a sweep's trials: their scores, their curves, and the metric that compares them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.sweep.facts import Facts, TrainingFacts, metric_in, value_in
from gpu_offload.orchestrator.sweep.journal import Trial
from gpu_offload.orchestrator.sweep.pruning import Point
from gpu_offload.orchestrator.sweep.record import TrainingRef
from gpu_offload.orchestrator.sweep.sampling import State, Tried
from gpu_offload.orchestrator.sweep.statistics import score_of

LOOK_HERE_S, LOOK_STORE_S = 1.0, 15.0
"""Seconds between two looks at the epochs of a training on this machine, and in the store, which gets them every 15 s."""


@dataclass
class Results:
    """Looks up results, and caches them until a process of the sweep may have changed them."""

    facts: Facts
    work: Path
    """The folder of this machine's runs."""
    clock: Callable[[], float]
    metric: str | None
    """The metric that trials are compared by; None until the first result."""
    _facts: dict[str, TrainingFacts] = field(default_factory=dict)
    """By training key; only this sweep's processes change them."""
    _looked: dict[int, float] = field(default_factory=dict)
    _curves: dict[int, tuple[Point, ...]] = field(default_factory=dict)

    def facts_of(self, ref: TrainingRef) -> TrainingFacts:
        """Return the state of a training that no process of this sweep works on."""
        if ref.training_key not in self._facts:
            self._facts[ref.training_key] = self.facts.of(ref, self.clock())
        return self._facts[ref.training_key]

    def forget(self, trial: Trial, training: int) -> None:
        """Forget a training, counted from 0, after a process worked on it."""
        self._facts.pop(trial.record.trainings[training].training_key, None)
        self._curves.pop(trial.record.number, None)

    def scores(self, trial: Trial) -> dict[tuple[int, int | None], float]:
        """Return the values of a trial's trainings, by seed and fold."""
        found = {}
        for ref in trial.record.trainings:
            facts = self.facts_of(ref)
            if self.metric is None and facts.metrics:
                self.metric = metric_in(facts.metrics, None)
            if self.metric is not None and (value := value_in(facts.metrics, self.metric)) is not None:
                found[ref.seed, ref.fold] = value
        return found

    def as_tried(self, trial: Trial) -> Tried:
        """Return a trial as the sampler sees it."""
        scores = self.scores(trial)
        state: State = trial.end.state if trial.end else "running"
        score = score_of(list(scores.values())).mean if scores and state == "complete" else None
        if state == "complete" and score is None:
            state = "failed"
        curve = tuple((point.epoch, point.value) for point in self.curve(trial))
        return Tried(trial.record.values, state, score, curve)

    def curve(self, trial: Trial) -> tuple[Point, ...]:
        """Return the values of the epochs of a trial's first training."""
        number = trial.record.number
        if number not in self._curves:
            points: tuple[Point, ...] = ()
            # A run that continues an earlier one begins at its checkpoint, so the points of all runs are one curve.
            for run in Journal(self.facts.store).runs_of(trial.record.trainings[0].training_key):
                points += self.facts.curve(run.id, self.metric, self.work)
            self._curves[number] = points
        return self._curves[number]

    def has_new_epochs(self, trial: Trial, *, here: bool) -> bool:
        """Read a trial's curve again if it is due; return whether it grew. `here`: it trains on this machine."""
        now, number = self.clock(), trial.record.number
        if now - self._looked.get(number, 0.0) < (LOOK_HERE_S if here else LOOK_STORE_S):
            return False
        self._looked[number] = now
        before = self._curves.pop(number, ())
        return len(self.curve(trial)) > len(before)
