"""The stage of one fault: its own simulated cloud, project and store, and real processes."""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.drill.command import Command, DrillError
from gpu_offload.orchestrator.drill.project import CONFIGURATION, OWN, TRAINING, YOLO, DrillPace
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.run.events import events_of
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import RunRecord

if TYPE_CHECKING:
    from gpu_offload.infra.simulator.cloud import SimulatedCloud
    from gpu_offload.infra.store.protocol import ObjectStore

T = TypeVar("T")

HIDDEN = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ROLE_ARN",
    "GITHUB_REPOSITORY",
    "RUNNER_TEMP",
)
"""Variables that would redirect a process of the drill."""

POLL_S = 0.1


@dataclass
class DrillStage:
    """A context manager."""

    name: str
    cloud: "SimulatedCloud"
    pace: DrillPace = field(default_factory=DrillPace)
    patience: float = 240.0
    hidden: tuple[str, ...] = HIDDEN
    """Variables removed from the environment of its commands."""
    _commands: list[Command] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Generate the dataset, write the project, create the bucket."""
        self.folder = Path(tempfile.mkdtemp(prefix="offload-drill-"))
        self.project = self.folder / "project"
        self.project.mkdir()
        generate(self.project / "shapes", images=12, size=64)
        self._trace = self.folder / "trace"
        self._furnish()
        return self

    def _furnish(self) -> None:
        (self.project / "drill_training.py").write_text(
            TRAINING.format(trace=str(self._trace), pace=self.pace.seconds)
        )
        training = (YOLO if self.pace.real else OWN).format(epochs=self.pace.epochs)
        bucket = f"drill-{self.name}"
        self.cloud.client("s3").create_bucket(Bucket=bucket)
        (self.project / "offload.toml").write_text(
            CONFIGURATION.format(training=training, store=f"s3://{bucket}")
        )
        self.store: ObjectStore = open_store(f"s3://{bucket}", endpoint_url=self.cloud.url)
        self.journal = Journal(self.store)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every command and remove the project."""
        for command in self._commands:
            command.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------- commands

    def start(self, *arguments: str, elsewhere: bool = False) -> Command:
        """Start a command in the project; with `elsewhere`, as on a machine that has only the configuration."""
        folder = self.project
        if elsewhere:
            folder = Path(tempfile.mkdtemp(prefix="elsewhere-", dir=self.folder))
            shutil.copy(self.project / "offload.toml", folder)
        kept = {name: value for name, value in os.environ.items() if name not in self.hidden}
        own = {"CI": "true", "XDG_STATE_HOME": str(self.folder / "state")}
        command = Command(arguments, folder, kept | self.cloud.environment() | own)
        self._commands.append(command)
        return command

    def train(self) -> Command:
        """Start the training on an instance."""
        return self.start("train", "--on", "ec2", "--no-calibrate")

    def run_to_end(self, command: Command) -> None:
        """Wait for a command that should succeed. Raises DrillError if it does not."""
        code = command.wait(self.patience)
        if code != 0:
            raise DrillError(f"exit code {code}: {command.last_words()}")

    # ------------------------------------------------------------------------------------- watching

    def until(self, what: str, condition: Callable[[], T | None], command: Command | None = None) -> T:
        """Poll until a condition has a result. Raises DrillError on time-out, or if the command ends first."""
        end = time.monotonic() + self.patience
        while True:
            try:
                found = condition()
            except StoreError:  # the fault can affect the drill's own calls, too
                found = None
            if found is not None and found is not False:
                return found
            if command is not None and command.process.poll() is not None:
                raise DrillError(f"the command ended before {what}: {command.last_words()}")
            if time.monotonic() > end:
                raise DrillError(f"{what}: not within {self.patience:.0f} s")
            time.sleep(POLL_S)

    def epochs(self) -> list[int]:
        """Return every trained epoch, in order, over all attempts."""
        if self._trace.exists():
            return [int(line) for line in self._trace.read_text().split()]
        run = self.run()
        if run is None:
            return []
        numbers = [attempt.record.number for attempt in self.journal.attempts(run.id)]
        events = [event for number in numbers for event in events_of(self.store, run.id, number)]
        return [event.epoch for event in events if event.event == "epoch" and event.epoch]

    def trained_at(self, attempt: int) -> float:
        """Return when an attempt's first epoch was complete, or when the run was published if it trained none."""
        run = self.run()
        events = events_of(self.store, run.id, attempt) if run else ()
        first = next((event.time for event in events if event.event == "epoch"), None)
        return first or self.published_at() or time.time()

    def has_trained(self, epochs: int) -> Callable[[], bool]:
        """Return a condition: at least this many epochs are trained."""
        return lambda: len(self.epochs()) >= epochs

    def run(self) -> RunRecord | None:
        """Return the only run, None while there is none."""
        name = next(self.journal.run_ids(), None)
        return self.journal.run(name) if name else None

    def result_is_there(self) -> bool:
        """Whether the training has put its result into the store."""
        run = self.run()
        return run is not None and self.journal.result(run.id) is not None

    def published_at(self) -> float | None:
        """Return when the run was published completely, None if it is not."""
        run = self.run()
        if run is None:
            return None
        outcome, manifest = self.journal.outcome(run.id), publish.manifest_of(self.store, run.version)
        if outcome is None or outcome.status != "published" or manifest is None:
            return None
        return outcome.at if manifest.epochs_completed == self.pace.epochs else None

    def repeated(self) -> int:
        """Return how many epochs were trained more than once."""
        return sum(count - 1 for count in Counter(self.epochs()).values())

    def struck_at(self) -> float | None:
        """Return when the first fault struck, Unix seconds."""
        return next((e.time for e in self.cloud.events if e.kind == "fault" and e.subject != "armed"), None)

    def quiet_at(self, since: float) -> float:
        """Return when the last instance began to go down after `since`."""
        ends = [
            e.time
            for e in self.cloud.events
            if e.kind == "state" and e.text.startswith("shutting-down") and e.time >= since
        ]
        return max(ends, default=since)

    def left(self) -> int:
        """Return the number of resources left in the cloud once nothing is shutting down."""
        self.cloud.settle()
        left = self.cloud.leftovers()
        return len(left.instances) + len(left.volumes) + len(left.security_groups) + len(left.schedules)
