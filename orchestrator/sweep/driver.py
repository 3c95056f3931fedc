"""The loop of a sweep: observe its trials, decide, start or end a process, until nothing is left to do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from gpu_offload.errors import EXIT_RESUMABLE, EXIT_USAGE, OffloadError, ResumableError
from gpu_offload.infra.signals import handled, signal_text
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import InterruptedRunError
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.sweep.children import POLL_S, Child, Children, Ended
from gpu_offload.orchestrator.sweep.decision import (
    Complete,
    Fail,
    Idle,
    Move,
    NewTrial,
    Over,
    StartTraining,
    StopRun,
    SweepView,
    TrainingView,
    TrialView,
    closing_of,
    next_move,
)
from gpu_offload.orchestrator.sweep.facts import Facts, TrainingFacts
from gpu_offload.orchestrator.sweep.journal import SweepJournal, Trial
from gpu_offload.orchestrator.sweep.record import SWEEP_PREFIX, SweepRecord, TrainingRef
from gpu_offload.orchestrator.sweep.results import Results
from gpu_offload.orchestrator.sweep.start import Starter
from gpu_offload.orchestrator.sweep.trainings import SweepError, Trainings
from gpu_offload.orchestrator.sweep.trials import Trials


@dataclass
class Driver:
    """Drives one sweep. `arguments` are the options that give a child the same configuration."""

    record: SweepRecord
    trainings: Trainings
    journal: SweepJournal
    console: Console
    arguments: Sequence[str]
    parallel: int
    prune: bool
    clock: Callable[[], float] = time.time
    children: Children = field(init=False)
    results: Results = field(init=False)
    trials: Trials = field(init=False)
    starter: Starter = field(init=False)
    lease: Lease = field(init=False)
    _blocked: str | None = None
    """Why nothing can be started until a process ends: `cpu`, `budget` or `deadline`."""

    def __post_init__(self) -> None:
        facts = Facts(self.journal.store, self.trainings.settings.store, self.record.created_at)
        self.children = Children(self.console, self.clock)
        self.results = Results(facts, self.trainings.workspace.work, self.clock, self.record.metric)
        self.trials = Trials(
            self.record, self.trainings, self.journal, self.results, self.console, self.clock
        )
        self.starter = Starter(self.record, self.trainings, self.arguments)
        self.lease = Lease(clock=self.clock, folder=SWEEP_PREFIX)

    def to_end(self) -> SweepRecord:
        """Drive the sweep until it is over; return it, closed.

        Raises InterruptedRunError: resume with the same command; ResumableError: another process drives it;
        SweepFailedError; OffloadError: a training could not be started.
        """
        with handled(lambda number, _: self.children.on_signal(number)):
            try:
                self._claim()
                while True:
                    if self.children.signal is not None:
                        self._leave(self.children.signal)
                    moved = self._once()
                    if moved is not None:
                        return moved
            finally:
                self.children.end()
                self.lease.release(self.journal.store, self.record.id)

    def _leave(self, number: int) -> None:
        """End the processes, each in a resumable state. Raises InterruptedRunError."""
        self.children.end()
        raise InterruptedRunError(
            f"{signal_text(number)}; {self.record.id} stays open; run the same command to continue"
        )

    def _claim(self) -> None:
        other = self.lease.claim(self.journal.store, self.record.id)
        if other is not None:
            raise ResumableError(f"{other} drives {self.record.id}; wait for it, or end it")

    def _once(self) -> SweepRecord | None:
        self._claim()  # renews the lease; another driver may have taken over one that ran out
        self._reap()
        if self.prune:
            self._prune()
        trials = self.trials.all()
        move = next_move(self.view())
        if self._blocked and isinstance(move, StartTraining | NewTrial):
            move = Idle() if self.children else Over(self._blocked)
        return self._perform(move, trials)

    def view(self) -> SweepView:
        """Return what the decision depends on."""
        return SweepView(
            trials=tuple(
                TrialView(
                    trial.record.number,
                    tuple(
                        self._training(trial, index, ref) for index, ref in enumerate(trial.record.trainings)
                    ),
                    trial.end,
                )
                for trial in self.trials.all()
            ),
            most_trials=self.record.trials,
            parallel=self.parallel,
            now=self.clock(),
            deadline_at=self.record.deadline_at,
            prune=self.prune,
            exhausted=self.trials.exhausted,
        )

    def _training(self, trial: Trial, index: int, ref: TrainingRef) -> TrainingView:
        child = self.children.of(trial.record.number, index)
        # While a process works on it, what is reserved for it stands for its cost.
        facts = self.results.facts_of(ref) if child is None else TrainingFacts(status="open")
        limits = self.trainings.settings.limits
        # Deadlines are passed on in whole seconds.
        by_sweep = facts.cut and (
            facts.deadline_at >= self.record.deadline_at - 1 or facts.max_cost_usd < limits.max_cost_usd
        )
        return TrainingView(facts, child is not None, child.reserved_usd if child else 0.0, by_sweep)

    def _perform(self, move: Move, trials: list[Trial]) -> SweepRecord | None:
        match move:
            case Complete(number):
                self.trials.complete(trials[number - 1])
            case Fail(number, message):
                self.trials.fail(number, message)
            case StopRun(number, training, run):
                self._stop(number, training, run)
            case StartTraining(number, training):
                self._train(trials[number - 1], training)
            case NewTrial(number):
                self.trials.begin(number)
            case Over(why):
                return self._over(why, trials)
            case Idle():
                time.sleep(POLL_S)
            case _:
                assert_never(move)
        return None

    def _prune(self) -> None:
        """End trials whose first training is not worth continuing."""
        trials = self.trials.all()
        for child in self.children:
            if child.kind != "train" or child.training != 0:
                continue
            trial = trials[child.trial - 1]
            if trial.end is not None or not self.results.has_new_epochs(trial, here=child.on_cpu):
                continue
            if self.trials.prune(trial):
                child.send()

    def _train(self, trial: Trial, index: int) -> None:
        """Start or continue a training, or note what prevents it."""
        record, ref = trial.record, trial.record.trainings[index]
        start = self.starter.start_of(
            record,
            ref,
            self.results.facts_of(ref),
            committed_usd=self.view().committed_usd,
            now=self.clock(),
            cpu_busy=any(child.on_cpu for child in self.children),
        )
        if isinstance(start, str):
            self._blocked = start
            return
        name = f"trial {record.number}" + (f", training {index + 1}" if len(record.trainings) > 1 else "")
        child = Child(
            start.arguments,
            "train",
            record.number,
            index,
            name,
            self.console,
            on_cpu=start.on_cpu,
            reserved_usd=start.reserved_usd,
        )
        self.children.add(child)

    def _stop(self, number: int, training: int, run: str) -> None:
        why = f"trial {number} of {self.record.id} was pruned"
        arguments = ["stop", *self.arguments, run, "--reason", why]
        self.children.add(Child(arguments, "stop", number, training, f"trial {number}", self.console))

    def _reap(self) -> None:
        for child, ended in self.children.take_ended():
            self._blocked = None
            self.results.forget(self.trials.all()[child.trial - 1], child.training)
            if ended.code != 0:
                self._judge(child, ended)

    def _judge(self, child: Child, ended: Ended) -> None:
        """Raise the error of a failed process, unless it concerns only its own trial."""
        if child.kind == "stop":
            raise OffloadError(f"{child.name}: {ended.message}")
        if ended.error.get("type") == "TrainingFailedError":
            return  # the journal has its outcome, which fails the trial
        trial = self.trials.all()[child.trial - 1]
        if trial.end is not None or self.children.signal is not None:
            return  # this driver ended it
        kinds = {EXIT_RESUMABLE: InterruptedRunError, EXIT_USAGE: SweepError}
        raise kinds.get(ended.code, OffloadError)(f"{child.name}: {ended.message}")

    def _over(self, why: str, trials: Sequence[Trial]) -> SweepRecord:
        closed = closing_of(self.record, why, trials, exhausted=self.trials.exhausted, now=self.clock())
        update = {"closed": closed, "metric": self.results.metric}
        return self.journal.open(self.record, lambda there: there.model_copy(update=update))
