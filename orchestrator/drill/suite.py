"""`offload drill`: injects every fault that the tool promises to survive, one after the other."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.environment import replaced_environment
from gpu_offload.infra.store.errors import StoreError
from gpu_offload.orchestrator.drill.command import FOREGROUND, DrillError
from gpu_offload.orchestrator.drill.faults import FAULTS, DrillFault
from gpu_offload.orchestrator.drill.stage import HIDDEN, DrillStage
from gpu_offload.orchestrator.output.table import terminal_width, text_table
from gpu_offload.orchestrator.run.journal_documents import JournalError

MOST_REPEATED = 1
"""An interrupted training loses at most the epoch it was in."""


@dataclass(frozen=True, slots=True)
class Survived:
    """One fault and its result; `seconds` are from the fault to the recovery."""

    name: str
    outcome: str
    recovered: bool
    seconds: float
    epochs_repeated: int
    leaked: int = 0
    lost: int = 0

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "recovered": self.recovered,
            "seconds": round(self.seconds, 2),
            "epochs_repeated": self.epochs_repeated,
        }


@dataclass(frozen=True, slots=True)
class DrillReport:
    """A whole drill."""

    faults: tuple[Survived, ...]

    @property
    def leaked(self) -> int:
        """Number of instances, volumes, groups and schedules left."""
        return sum(fault.leaked for fault in self.faults)

    @property
    def lost(self) -> int:
        """Number of trainings without a model, or with more repeated epochs than allowed."""
        return sum(fault.lost for fault in self.faults)

    @property
    def green(self) -> bool:
        """Whether every fault was survived."""
        return all(fault.recovered for fault in self.faults) and not self.leaked and not self.lost

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {"faults": [f.json() for f in self.faults], "leaked": self.leaked, "lost": self.lost}

    def text(self) -> str:
        """Return the table and its last line."""
        rows = [("fault", "", "recovery", "epochs repeated", "outcome")]
        rows += [
            (f.name, "ok" if f.recovered else "RED", f"{f.seconds:.2f} s", str(f.epochs_repeated), f.outcome)
            for f in self.faults
        ]
        lines = [text_table(rows, width=terminal_width())]
        verdict = f"{self.leaked} leaked, {self.lost} lost"
        red = [fault.name for fault in self.faults if not fault.recovered]
        lines += ["", verdict if self.green else f"RED: {verdict}; not survived: {', '.join(red) or 'none'}"]
        return "\n".join(lines)


def drill(
    wanted: Sequence[str] = (), *, jobs: int = 2, on_result: Callable[[Survived], object] = lambda _: None
) -> DrillReport:
    """Run a drill on the simulated cloud, `jobs` faults at a time (`wanted`, or all). Raises DrillError: unknown fault."""
    known = {fault.name: fault for fault in FAULTS}
    if unknown := [name for name in wanted if name not in known]:
        raise DrillError(f"no such fault: {', '.join(unknown)} (there are {', '.join(known)})")
    chosen = [known[name] for name in known if not wanted or name in wanted]
    children = DrillProcesses()

    def one(fault: DrillFault) -> Survived:
        done = _survive(fault) if len(chosen) == 1 else children.survive(fault)
        on_result(done)
        return done

    with ThreadPoolExecutor(jobs) as pool:
        try:
            results = list(pool.map(one, chosen))
        except BaseException:
            children.end()
            pool.shutdown(cancel_futures=True)
            raise
    return DrillReport(tuple(results))


@dataclass
class DrillProcesses:
    """Processes, one per fault: moto's state is global, so a process can hold only one cloud."""

    _running: list["subprocess.Popen[str]"] = field(default_factory=list)
    _ended: bool = False

    def survive(self, fault: DrillFault) -> Survived:
        """Run one fault in a process of its own. Raises DrillError if it does not report."""
        if self._ended:
            raise DrillError("ended by hand")
        command = [*FOREGROUND, "drill", "--only", fault.name, "--json"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            self._running.append(process)
            out, err = process.communicate()
            self._running.remove(process)
        try:
            document = json.loads(out)
        except ValueError:
            text = err.strip().splitlines()[-1:] or ["nothing"]
            raise DrillError(f"{fault.name}: exit code {process.returncode}; it said {text[0]}") from None
        return Survived(**document["faults"][0], leaked=document["leaked"], lost=document["lost"])

    def end(self) -> None:
        """End all of them; each ends its cloud, its instances and its commands."""
        self._ended = True
        for process in list(self._running):
            process.send_signal(signal.SIGINT)


def _survive(fault: DrillFault) -> Survived:
    from gpu_offload.infra.simulator.cloud import SimulatedCloud

    with _own_environment(), SimulatedCloud() as cloud, DrillStage(fault.name, cloud, fault.pace) as stage:
        return outcome_of(fault, stage)


def outcome_of(fault: DrillFault, stage: DrillStage) -> Survived:
    """Inject a fault on its stage; return the result."""
    why, seconds, published = "", 0.0, False
    try:
        recovery = fault.happens(stage)
        why, seconds = recovery.outcome, recovery.seconds
        published = stage.published_at() is not None
        why = why if published else f"{why}; but no whole model is published"
    except (DrillError, StoreError, CloudError, JournalError) as error:
        why = str(error)
    leaked, repeated = stage.left(), stage.repeated()
    lost = 0 if published and repeated <= MOST_REPEATED else 1
    return Survived(
        name=fault.name,
        outcome=why + (f"; left: {stage.cloud.leftovers()}" if leaked else ""),
        recovered=published and not leaked and not lost,
        seconds=seconds,
        epochs_repeated=repeated,
        leaked=leaked,
        lost=lost,
    )


@contextmanager
def _own_environment() -> Iterator[None]:
    """Let this process use the simulated cloud's key, and no settings of the user's."""
    from gpu_offload.infra.simulator.clients import ACCESS_KEY, SECRET_KEY

    # Without the user's profile no command of the drill can reach a real account.
    wanted = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with replaced_environment(wanted, HIDDEN):
        yield
