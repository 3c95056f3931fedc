"""The loop of a sweep: look at its trials, decide, start or end a process; until nothing is left to do."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Literal, assert_never

from gpu_offload.errors import EXIT_RESUMABLE, EXIT_USAGE, OffloadError
from gpu_offload.infra.signals import handled, signal_text
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_money
from gpu_offload.orchestrator.run.backend import InterruptedRunError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.record import StopRequest
from gpu_offload.orchestrator.sweep.children import Child, Ended
from gpu_offload.orchestrator.sweep.decision import (
    Complete,
    Fail,
    Move,
    NewTrial,
    Over,
    StopRun,
    SweepView,
    Train,
    TrainingView,
    TrialView,
    Wait,
    allowance,
    next_move,
    reserve,
)
from gpu_offload.orchestrator.sweep.facts import Facts, TrainingFacts, metric_in, value_in
from gpu_offload.orchestrator.sweep.journal import SweepJournal, Trial
from gpu_offload.orchestrator.sweep.pruning import Point, pruned_at
from gpu_offload.orchestrator.sweep.record import (
    NAME,
    SWEEP_PREFIX,
    Closed,
    SweepRecord,
    TrainingRef,
    TrialEnd,
    TrialRecord,
    Why,
)
from gpu_offload.orchestrator.sweep.sampling import State, Tried, ask
from gpu_offload.orchestrator.sweep.space import values_text, words
from gpu_offload.orchestrator.sweep.statistics import score_of
from gpu_offload.orchestrator.sweep.trainings import SweepError, Trainings

POLL_S = 0.1
LOOK_HERE_S, LOOK_STORE_S = 1.0, 15.0
"""Seconds between two looks at the epochs of a training: on this machine, and in the store, where they come every 15 s."""
ENDING_S = 180.0
"""How long a process may take to keep its checkpoint and to terminate its instance."""


class SweepFailedError(OffloadError):
    """Every trial failed."""


class SweepBusyError(OffloadError):
    """Another process drives this sweep."""

    exit_code = EXIT_RESUMABLE


@dataclass
class Driver:
    """Drives one sweep. `arguments` are the options by which a child finds the same configuration."""

    record: SweepRecord
    trainings: Trainings
    journal: SweepJournal
    console: Console
    arguments: Sequence[str]
    parallel: int
    prune: bool
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    facts: Facts = field(init=False)
    lease: Lease = field(init=False)
    _children: list[Child] = field(default_factory=list)
    _signal: int | None = None
    _exhausted: bool = False
    _blocked: str | None = None
    """Why no more can be started until a process ends: `cpu`, `budget` or `deadline`."""
    _trials: list[Trial] | None = None
    _facts: dict[str, TrainingFacts] = field(default_factory=dict)
    """By training key: nothing but our own processes changes them."""
    _looked: dict[int, float] = field(default_factory=dict)
    _curves: dict[int, tuple[Point, ...]] = field(default_factory=dict)
    _metric: str | None = None

    def __post_init__(self) -> None:
        settings = self.trainings.settings
        self.facts = Facts(self.journal.store, settings.store, self.record.created_at)
        self.lease = Lease(clock=self.clock, folder=SWEEP_PREFIX)
        self._metric = self.record.metric

    @property
    def seed(self) -> int:
        """The seed of every random choice of the sweep: the same for every driver."""
        return int(self.record.id.removeprefix(NAME), 16)

    def to_end(self) -> SweepRecord:
        """Drive the sweep until it is over; return it, closed.

        Raises:
            InterruptedRunError: this process was told to end; the same command carries on.
            SweepBusyError: another process drives it.
            SweepFailedError: every trial failed. OffloadError: a training could not be started.
        """
        with handled(self._heard):
            try:
                self._claim()
                while True:
                    if self._signal is not None:
                        self._leave()
                    moved = self._once()
                    if moved is not None:
                        return moved
            finally:
                self._end_children()
                self.lease.release(self.journal.store, self.record.id)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        for child in self._children:
            child.tell(number)

    def _leave(self) -> None:
        """Wait until the processes have ended, each with a resumable state, and say so."""
        by = signal_text(self._signal or signal.SIGTERM)
        self._end_children()
        raise InterruptedRunError(f"{by}; {self.record.id} stays open; run the same command to carry on")

    def _end_children(self) -> None:
        """Let the processes end, each with a resumable state, and wait for them."""
        if self._children:
            self.console.note(f"waiting for {len(self._children)} trainings to stop")
        for child in self._children:
            child.tell()
        until = self.clock() + ENDING_S
        while any(child.poll() is None for child in self._children) and self.clock() < until:
            self.sleep(POLL_S)
        for child in self._children:
            child.kill()
        self._children.clear()

    def _claim(self) -> None:
        other = self.lease.claim(self.journal.store, self.record.id)
        if other is not None:
            raise SweepBusyError(f"{other} drives {self.record.id}; wait for it, or end it")

    def _once(self) -> SweepRecord | None:
        self._claim()
        self._reap()
        if self.prune:
            self._prune(self.trials())
        trials = self.trials()
        move = next_move(self.view(trials))
        if self._blocked and isinstance(move, Train | NewTrial):
            move = Wait() if self._children else Over(self._blocked)
        return self._perform(move, trials)

    def trials(self) -> list[Trial]:
        """Return the trials; only this process changes them while it has the lease."""
        if self._trials is None:
            self._trials = self.journal.trials(self.record.id)
        return self._trials

    def facts_of(self, ref: TrainingRef) -> TrainingFacts:
        """Return what is known of a training that no process of ours works on."""
        if ref.training_key not in self._facts:
            self._facts[ref.training_key] = self.facts.of(ref, self.clock())
        return self._facts[ref.training_key]

    def view(self, trials: Sequence[Trial]) -> SweepView:
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
                for trial in trials
            ),
            most_trials=self.record.trials,
            parallel=self.parallel,
            now=self.clock(),
            deadline_at=self.record.deadline_at,
            prune=self.prune,
            exhausted=self._exhausted,
        )

    def _training(self, trial: Trial, index: int, ref: TrainingRef) -> TrainingView:
        child = self._child(trial.record.number, index)
        facts = self.facts_of(ref) if child is None else TrainingFacts(status="open")
        limits = self.trainings.settings.limits
        by_sweep = facts.cut and (
            facts.deadline_at >= self.record.deadline_at - 1 or facts.max_cost_usd < limits.max_cost_usd
        )
        return TrainingView(facts, child is not None, child.reserved_usd if child else 0.0, by_sweep)

    def _child(self, trial: int, training: int) -> Child | None:
        return next((c for c in self._children if (c.trial, c.training) == (trial, training)), None)

    def _perform(self, move: Move, trials: list[Trial]) -> SweepRecord | None:
        match move:
            case Complete(number):
                self._complete(trials[number - 1])
            case Fail(number, message):
                self._end(TrialEnd(number=number, state="failed", at=self.clock(), message=message))
            case StopRun(number, training, run):
                self._stop(number, training, run)
            case Train(number, training):
                self._train(trials[number - 1], training)
            case NewTrial(number):
                self._new_trial(number, trials)
            case Over(why):
                return self._over(why, trials)
            case Wait():
                self.sleep(POLL_S)
            case _:
                assert_never(move)
        return None

    # --------------------------------------------------------------------------------------------- its trials

    def _new_trial(self, number: int, trials: Sequence[Trial]) -> None:
        space = self.trainings.space
        tried = [self.as_tried(trial) for trial in trials]
        values = ask(space, tried, seed=self.seed, goal=self.record.goal)
        if values is None:
            self._exhausted = True
            return
        self.console.stage(f"trial {number} of {self.record.trials}: {values_text(values)}")
        record = TrialRecord(
            number=number, values=values, at=self.clock(), trainings=self.trainings.references(values)
        )
        self.journal.begin_trial(self.record.id, record)
        self._trials = None

    def as_tried(self, trial: Trial) -> Tried:
        """Return a trial as the sampler sees it."""
        scores = self.scores(trial)
        state: State = trial.end.state if trial.end else "running"
        score = score_of(list(scores.values())).mean if scores and state == "complete" else None
        if state == "complete" and score is None:
            state = "failed"
        curve = tuple((point.epoch, point.value) for point in self._curve(trial))
        return Tried(trial.record.values, state, score, curve)

    def scores(self, trial: Trial) -> dict[tuple[int, int | None], float]:
        """Return what a trial's trainings reached, by seed and fold."""
        found = {}
        for ref in trial.record.trainings:
            facts = self.facts_of(ref)
            name = self.metric(facts.metrics)
            if name is not None and (value := value_in(facts.metrics, name)) is not None:
                found[ref.seed, ref.fold] = value
        return found

    def metric(self, metrics: Mapping[str, float]) -> str | None:
        """Return what trials are compared by, once the first result says so."""
        if self._metric is None and metrics:
            self._metric = metric_in(metrics, None)
        return self._metric

    def _complete(self, trial: Trial) -> None:
        scores = self.scores(trial)
        if len(scores) < len(trial.record.trainings):
            facts = self.facts_of(trial.record.trainings[0])
            raise SweepError(
                f"trial {trial.record.number} has no metric to compare by"
                f"{f' called {self._metric}' if self._metric else ''}: set registry.metric to one of "
                f"{', '.join(sorted(facts.metrics)) or 'those that your training returns'}"
            )
        score = score_of(list(scores.values()))
        spread = "" if score.low is None else f" ({score.low:.4g} to {score.high:.4g})"
        self._end(
            TrialEnd(
                number=trial.record.number,
                state="complete",
                at=self.clock(),
                message=f"{self._metric} {score.mean:.4g}{spread}",
            )
        )

    def _end(self, end: TrialEnd) -> None:
        self.journal.end_trial(self.record.id, end)
        self._trials = None
        tell = self.console.warning if end.state == "failed" else self.console.note
        tell(f"trial {end.number}: {end.state}{f', {end.message}' if end.message else ''}")

    # ----------------------------------------------------------------------------------------------- pruning

    def _prune(self, trials: Sequence[Trial]) -> None:
        """End trials whose first training is not worth going on."""
        for child in [c for c in self._children if c.kind == "train" and c.training == 0]:
            trial = trials[child.trial - 1]
            if trial.end is not None or not self._is_new(child, trial):
                continue
            curves = {t.record.number: self._curve(t) for t in trials}
            point = pruned_at(curves, child.trial, epochs=self.record.epochs, goal=self.record.goal)
            if point is None:
                continue
            why = f"after epoch {point.epoch}: {self._metric or 'its metric'} {point.value:.4g}"
            # Written first: a driver that comes after us ends the run, too.
            end = TrialEnd(
                number=child.trial,
                state="pruned",
                at=self.clock(),
                message=why,
                epoch=point.epoch,
                value=point.value,
            )
            self._end(end)
            runs = Journal(self.journal.store)
            for run in runs.runs_of(trial.record.trainings[0].training_key)[-1:]:
                runs.request_stop(run.id, StopRequest(at=self.clock(), reason=f"pruned {why}"))
            child.tell()

    def _is_new(self, child: Child, trial: Trial) -> bool:
        """Read a training's epochs if it is time; return whether there are more."""
        now = self.clock()
        if now - self._looked.get(child.trial, 0.0) < (LOOK_HERE_S if child.on_cpu else LOOK_STORE_S):
            return False
        self._looked[child.trial] = now
        before = self._curves.pop(child.trial, ())
        return len(self._curve(trial)) > len(before)

    def _curve(self, trial: Trial) -> tuple[Point, ...]:
        number = trial.record.number
        if number not in self._curves:
            key = trial.record.trainings[0].training_key
            runs = Journal(self.journal.store).runs_of(key)
            points: tuple[Point, ...] = ()
            for run in runs:
                points += self.facts.curve(run.id, self._metric, work=self.trainings.workspace.work)
            self._curves[number] = points
        return self._curves[number]

    # --------------------------------------------------------------------------------------------- processes

    def _train(self, trial: Trial, index: int) -> None:
        """Start or carry on a training, as far as machine, money and time allow."""
        record, ref = trial.record, trial.record.trainings[index]
        where = (ref.seed, ref.fold)
        facts = self.facts_of(ref)
        committed = self.view(self.trials()).committed_usd
        left_s = self.record.deadline_at - self.clock()
        limits = self.trainings.settings.limits
        money = allowance(self.record.budget_usd, committed, limits.max_cost_usd)
        seconds = min(limits.deadline.total_seconds(), left_s)
        reserved = facts.limit_usd
        planned = self.trainings.plan(record.values, where, max_cost_usd=money, deadline_s=seconds)
        option = planned.report.decision.option
        if option is None and facts.status != "open" and planned.report.already_trained is None:
            self._blocked = self._why_not(record, where, planned.report.decision.why, money)
            return
        on_cpu = option is None or option.where == "cpu"
        if on_cpu and any(child.on_cpu for child in self._children):
            self._blocked = "cpu"
            return
        if facts.status != "open" and option is not None:
            moves = limits.on_overrun == "escalate"  # from this CPU to an instance
            reserved = reserve(money, option.cost_high) if not on_cpu else money if moves else 0.0
        arguments = [
            "train", *self.arguments, "--json", "--sweep", self.record.id, "--on", self.trainings.on,
            *(part for word in self._words(record, ref) for part in ("--set", word)),
            "--set", f"limits.max-cost-usd={money if on_cpu else reserved!r}",
            "--set", f"limits.deadline={max(1, int(seconds))}s",
        ]  # fmt: skip
        name = f"trial {record.number}" + (f", training {index + 1}" if len(record.trainings) > 1 else "")
        self._start(arguments, "train", record.number, index, name, on_cpu=on_cpu, reserved=reserved)

    def _words(self, record: TrialRecord, ref: TrainingRef) -> list[str]:
        base = self.trainings.settings.training.seed
        return words(record.values, base_seed=base, seed=ref.seed, fold=self.trainings.fold_text(ref.fold))

    def _why_not(self, record: TrialRecord, where: tuple[int, int | None], why: str, money: float) -> str:
        """Return which of the sweep's limits keeps a training from its start.

        Raises:
            SweepError: None does: it would not fit the configuration's own limits either.
        """
        if self.trainings.plan(record.values, where).report.decision.option is None:
            raise SweepError(f"trial {record.number} ({values_text(record.values)}): {why}")
        fits = self.trainings.plan(record.values, where, max_cost_usd=money).report.decision.option
        return "budget" if fits is None else "deadline"

    def _stop(self, number: int, training: int, run: str) -> None:
        arguments = [
            "stop",
            *self.arguments,
            run,
            "--reason",
            f"trial {number} of {self.record.id} was pruned",
        ]
        self._start(arguments, "stop", number, training, f"trial {number}")

    def _start(
        self,
        arguments: Sequence[str],
        kind: Literal["train", "stop"],
        number: int,
        training: int,
        name: str,
        *,
        on_cpu: bool = False,
        reserved: float = 0.0,
    ) -> None:
        child = Child(
            arguments,
            kind,
            number,
            training,
            name,
            self.console,
            on_cpu=on_cpu,
            reserved_usd=reserved,
        )
        self._children.append(child)
        if self._signal is not None:  # it came while the process was being started
            child.tell(self._signal)

    def _reap(self) -> None:
        """Take the processes in that have ended."""
        for child in list(self._children):
            ended = child.poll()
            if ended is None:
                continue
            self._children.remove(child)
            self._blocked = None
            ref = self.trials()[child.trial - 1].record.trainings[child.training]
            self._facts.pop(ref.training_key, None)
            self._curves.pop(child.trial, None)
            if ended.code != 0:
                self._judge(child, ended)

    def _judge(self, child: Child, ended: Ended) -> None:
        """Raise unless a process that failed says something about its trial alone."""
        if child.kind == "stop":
            raise OffloadError(f"{child.name}: {ended.message}")
        if ended.error.get("type") == "TrainingFailedError":
            return  # the journal says how it ended
        trial = self.trials()[child.trial - 1]
        if trial.end is not None or self._signal is not None:
            return  # we ended it
        kinds = {EXIT_RESUMABLE: InterruptedRunError, EXIT_USAGE: SweepError}
        raise kinds.get(ended.code, OffloadError)(f"{child.name}: {ended.message}")

    # ---------------------------------------------------------------------------------------------- its end

    def _over(self, why: str, trials: Sequence[Trial]) -> SweepRecord:
        if why == "failed":
            first = next(trial for trial in trials if trial.end and trial.end.state == "failed")
            message = first.end.message if first.end else ""
            raise SweepFailedError(
                f"every trial of {self.record.id} failed; trial {first.record.number} "
                f"({values_text(first.record.values)}): {message}"
            )
        reasons: dict[str, tuple[Why, str]] = {
            "budget": (
                "budget",
                f"what is left of {human_money(self.record.budget_usd)} buys no other training; a higher --budget-usd continues it",
            ),
            "deadline": ("deadline", "the time is up; a longer --deadline continues it"),
            "complete": (
                "complete",
                f"{len(trials)} trials" + (", every combination" if self._exhausted else ""),
            ),
        }
        kind, message = reasons[why]
        closed = Closed(at=self.clock(), why=kind, message=message)
        update = {"closed": closed, "metric": self._metric}
        return self.journal.open(self.record, lambda there: there.model_copy(update=update))
