"""Trains on this machine: runs the training module in a process of its own and watches it to its end."""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from gpu_offload.errors import EXIT_RESUMABLE
from gpu_offload.infra.signals import signal_text
from gpu_offload.orchestrator.backends.isolated_training import IsolatedTraining, not_isolated
from gpu_offload.orchestrator.backends.standby import Standby
from gpu_offload.orchestrator.backends.training_process import (
    TrainingProcess,
    drain,
    events_of,
    judging,
    passing_signals_on,
    renewing,
)
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.plan.project import unpack_project
from gpu_offload.orchestrator.run.backend import Ending, StoppedHereError
from gpu_offload.orchestrator.run.record import AttemptRecord, RunRecord
from gpu_offload.orchestrator.run.revision import Revision, beginning, past_of
from gpu_offload.orchestrator.training_environment import local_environment
from gpu_offload.remote_job.files import regular_file
from gpu_offload.remote_job.files.result_files import RESULT
from gpu_offload.remote_job.pace.meter import process_age
from gpu_offload.remote_job.result import Heartbeat
from gpu_offload.remote_job.spec import StoreRef, TrainingSpec

LOG_TAIL_LINES = 15


@dataclass
class LocalTraining:
    """Runs the training module here. `renew` keeps the driver's lease alive while the training lasts."""

    BEGINNING: ClassVar[str] = "loading the training software, the dataset and the model"
    tree: Callable[[], Path]
    """Makes the training tree, if it is not there yet, and returns it."""
    work: Path
    store: StoreRef
    console: Console
    root: Path
    renew: Callable[[], object] = field(default=lambda: None)
    weights: Callable[[], Path | None] = field(default=lambda: None)
    model_file: Path | None = None
    """The model definition where it is a file of the user's."""
    project: bytes | None = None
    """The user's own code, packed; unpacked for the training, so that it runs as on an instance."""
    packages: Path | None = None
    """Where installed requirements are kept between trainings."""
    standby: Standby = field(default_factory=Standby)
    """A process that was started for the training before it was planned."""

    why_open: Callable[[], str | None] = field(default=lambda: "")
    """Why the training is not isolated here; None where it trains as another user, in three processes as on an instance."""

    def output(self, run: RunRecord) -> Path:
        """Return where the training of a run writes on this machine."""
        return self._folder(run) / "output" if self.is_isolated else self._folder(run)

    @cached_property
    def is_isolated(self) -> bool:
        """Whether it trains as another user."""
        reason = self.why_open()
        if reason:
            self.console.warning(not_isolated(reason))
        return reason is None

    def _folder(self, run: RunRecord) -> Path:
        return self.work / run.id

    def train(
        self, run: RunRecord, attempt: AttemptRecord, judge: Callable[[Heartbeat | None], Ending | None]
    ) -> Ending | None:
        """Train to the end; see `orchestrator.run.backend.Attended`."""
        output = self.output(run)
        output.mkdir(parents=True, exist_ok=True)
        spec = self._spec(run, attempt, output)
        tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        began = beginning(run.created_at, time.time(), process_age()) - run.installed_s
        revision = Revision(run, began, past_of(run))
        resumes = attempt.number > 1 or run.resumes is not None
        likely = None if resumes else max(0.0, run.estimate.likely - run.installed_s)
        whole = f"; about {human_duration(likely)} in all" if likely else ""
        self.console.note(f"{self.BEGINNING}{whole}")
        told: int | None = None
        message = ""

        def look() -> Ending | None:
            return judge(_last_word(output, attempt.number))

        with self.console.training(likely, revision.take) as show, renewing(self.renew):
            for stage in self._stages(spec, tail):
                with (
                    stage as process,
                    passing_signals_on(process),
                    judging(process, self._watch(process, look)),
                ):
                    # An unread pipe fills up, and then blocks the training.
                    reader = threading.Thread(target=drain, args=(process, tail), daemon=True)
                    reader.start()
                    for event in events_of(process):
                        # After our own signal, `interrupted` only repeats what was said.
                        if event.event != "interrupted" or process.told is None:
                            show(event)
                        if event.event in {"failed", "interrupted"}:
                            message = event.message or ""
                    process.wait()
                    reader.join(timeout=5)
                told = told or process.told
                if process.code != 0:
                    break
        if process.code != 0 and process.verdict is not None and told is None:
            return process.verdict
        return self._ending(process.code, message, tail, output, told=told)

    def _watch(
        self, process: TrainingProcess, look: Callable[[], Ending | None]
    ) -> Callable[[], Ending | None]:
        """Return what is asked once a second: it notes the first signal, and returns what `look` says."""
        said = False

        def watch() -> Ending | None:
            nonlocal said
            if process.told is not None and not said:
                said = True
                self.console.note(
                    f"{signal_text(process.told)}: stopping after this batch, with a checkpoint (Ctrl-C again: at once, "
                    "without the epoch in progress)"
                )
            return look()

        return watch

    def _stages(
        self, spec: TrainingSpec, tail: deque[str]
    ) -> Iterator[AbstractContextManager[TrainingProcess]]:
        """Yield the processes of the training, one after the other; each begins when the one before it has succeeded."""
        if self.is_isolated:
            training = IsolatedTraining(spec, self.root)
            training.prepare()
            yield training.fetching()
            if training.inputs.spec.exists():  # else the store has the result
                yield training.training(tail)
            return
        path = Path(spec.output) / "spec.json"
        path.write_text(spec.model_dump_json(indent=1))
        environment = local_environment(
            os.environ,
            project=self.root,
            store_url=self.store.url,
            own_code=spec.entrypoint is not None,
            speed=spec.speed,
        )
        # The end of its standard input tells the training that this process is gone.
        command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(path), "--parent-stdin"]
        yield self.standby.take(path, environment) or TrainingProcess(command, env=environment)

    def _spec(self, run: RunRecord, attempt: AttemptRecord, output: Path) -> TrainingSpec:
        tree = self.tree()
        weights = self.weights()
        project: Path | None = None
        packages: Path | None = None
        if self.project is not None:
            project, packages = self._folder(run) / "project", self.packages
            unpack_project(self.project, project)
        return run.spec.model_copy(
            update={
                "run": run.id,
                "attempt": attempt.number,
                "output": str(output),
                "store": self.store,
                "project": project and str(project),
                "packages": packages and str(packages),
                "model": str(self.model_file) if self.model_file else run.spec.model,
                "dataset": run.spec.dataset.model_copy(update={"tree": str(tree), "archive": None}),
                "weights": run.spec.weights
                and run.spec.weights.model_copy(update={"path": str(weights), "key": None}),
            }
        )

    def _log(self, output: Path) -> str:
        return str(output / "log.txt")

    def _ending(
        self, code: int, message: str, tail: deque[str], output: Path, *, told: int | None
    ) -> Ending | None:
        if code == 0:
            # What is fetched for an isolated training can be the result that the store has already.
            if any((folder / "result" / RESULT).is_file() for folder in (output, output.with_name("input"))):
                return None
            return (
                "failed",
                f"the training process exited with code 0 and without a result (the whole log: {self._log(output)})",
            )
        if told is not None:
            raise StoppedHereError(told)
        # Told by no signal of ours: the machine shuts down, for example.
        if code == EXIT_RESUMABLE:
            return "died", message or "the training was interrupted"
        for line in tail:
            self.console.detail(line)
        if code < 0:
            name = signal.Signals(-code).name
            hint = (
                "; is there enough memory? a smaller training.batch needs less" if name == "SIGKILL" else ""
            )
            return "died", f"the training process ended by {name}{hint}"
        if not message:
            message = next((line for line in reversed(tail) if line.strip()), f"exit code {code}")
        return "failed", f"{message} (the whole log: {self._log(output)})"


def _last_word(output: Path, attempt: int) -> Heartbeat | None:
    """Return the last heartbeat of an attempt's training on this machine."""
    try:
        beat = Heartbeat.model_validate_json(regular_file.read(output, "heartbeat.json", limit=1 << 20))
    except (OSError, ValidationError):
        return None
    return beat if beat.attempt == attempt else None  # an earlier one's can still be there
