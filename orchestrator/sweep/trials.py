"""The trials of a sweep: how one begins, and how it is completed, pruned or failed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import StopRequest
from gpu_offload.orchestrator.sweep.journal import SweepJournal, Trial
from gpu_offload.orchestrator.sweep.pruning import pruned_at
from gpu_offload.orchestrator.sweep.record import NAME, SweepRecord, TrialEnd, TrialRecord
from gpu_offload.orchestrator.sweep.results import Results
from gpu_offload.orchestrator.sweep.sampling import Tried, ask
from gpu_offload.orchestrator.sweep.space import Values, values_text
from gpu_offload.orchestrator.sweep.statistics import score_of
from gpu_offload.orchestrator.sweep.trainings import SweepError, Trainings


@dataclass
class Trials:
    """Begins and ends the trials of one sweep, for the process that holds the sweep's lease."""

    record: SweepRecord
    trainings: Trainings
    journal: SweepJournal
    results: Results
    console: Console
    clock: Callable[[], float]
    exhausted: bool = field(default=False, init=False)
    """Whether every combination of values was tried."""
    _read: list[Trial] | None = field(default=None, init=False)

    def all(self) -> list[Trial]:
        """Return the trials, in the order of their numbers."""
        if self._read is None:
            self._read = self.journal.trials(self.record.id)
        return self._read

    def next_values(self, also: Sequence[Tried] = ()) -> Values | None:
        """Return values for another trial, None if every combination was tried; `also` counts as tried."""
        tried = [*(self.results.as_tried(trial) for trial in self.all()), *also]
        # The seed of every random choice of the sweep: the same for every driver.
        seed = int(self.record.id.removeprefix(NAME), 16)
        return ask(self.trainings.space, tried, seed=seed, goal=self.record.goal)

    def begin(self, number: int) -> None:
        """Choose values for another trial, and write it."""
        values = self.next_values()
        if values is None:
            self.exhausted = True
            return
        self.console.stage(f"trial {number} of {self.record.trials}: {values_text(values)}")
        record = TrialRecord(
            number=number, values=values, at=self.clock(), trainings=self.trainings.references(values)
        )
        self.journal.begin_trial(self.record.id, record)
        self._read = None

    def complete(self, trial: Trial) -> None:
        """End a trial whose trainings are published; it failed if its score is not finite. Raises SweepError: no metric."""
        scores, metric = self.results.scores(trial), self.results.metric
        if len(scores) < len(trial.record.trainings):
            if metric and any(
                self.results.scores(other) or self.results.curve(other) for other in self.all()
            ):
                self.fail(trial.record.number, f"{metric} is not a finite number")
                return
            facts = self.results.facts_of(trial.record.trainings[0])
            raise SweepError(
                f"trial {trial.record.number} has no metric to compare by"
                f"{f' called {metric}' if metric else ''}: set registry.metric to one of "
                f"{', '.join(sorted(facts.metrics)) or 'those that your training returns'}"
            )
        score = score_of(list(scores.values()))
        spread = "" if score.low is None else f" ({score.low:.4g} to {score.high:.4g})"
        message = f"{metric} {score.mean:.4g}{spread}"
        self._end(TrialEnd(number=trial.record.number, state="complete", at=self.clock(), message=message))

    def fail(self, number: int, message: str) -> None:
        """End a trial of which a training ended without a model."""
        self._end(TrialEnd(number=number, state="failed", at=self.clock(), message=message))

    def prune(self, trial: Trial) -> bool:
        """End a trial and its run if its first training is not worth continuing; return whether it was ended."""
        number = trial.record.number
        curves = {t.record.number: self.results.curve(t) for t in self.all()}
        point = pruned_at(curves, number, epochs=self.record.epochs, goal=self.record.goal)
        if point is None:
            return False
        why = f"after epoch {point.epoch}: {self.results.metric or 'its metric'} {point.value:.4g}"
        # The end is written first, so that a later driver ends the run if this one is killed here.
        self._end(
            TrialEnd(
                number=number,
                state="pruned",
                at=self.clock(),
                message=why,
                epoch=point.epoch,
                value=point.value,
            )
        )
        runs = Journal(self.journal.store)
        for run in runs.runs_of(trial.record.trainings[0].training_key)[-1:]:
            runs.request_stop(run.id, StopRequest(at=self.clock(), reason=f"pruned {why}"))
        return True

    def _end(self, end: TrialEnd) -> None:
        self.journal.end_trial(self.record.id, end)
        self._read = None
        say = self.console.warning if end.state == "failed" else self.console.note
        say(f"trial {end.number}: {end.state}{f', {end.message}' if end.message else ''}")
