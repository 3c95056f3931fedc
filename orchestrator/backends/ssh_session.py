"""Drives one attempt's training over SSH: makes the instance ready, starts the training once, follows it."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gpu_offload.infra.instance.job import SPOT_NOTICE, InstanceJob, JobState, Look
from gpu_offload.infra.instance.readiness import await_ready
from gpu_offload.infra.instance.readiness_checks import (
    check_boot,
    check_cloud_init,
    check_cuda,
    check_driver,
    check_ssh,
)
from gpu_offload.infra.instance.software import Software, look, set_up
from gpu_offload.infra.instance.stage import Broken, Passed, Pending, ReadinessStage, StageResult
from gpu_offload.infra.ssh import errors
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.orchestrator.backends.remote_spec import remote_spec, send_project
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.events import parse_events
from gpu_offload.orchestrator.run.record import AttemptRecord, EndReason, RunRecord
from gpu_offload.orchestrator.run.revision import Revision
from gpu_offload.remote_job.result import ProgressEvent
from gpu_offload.remote_job.spec import StoreRef

LOST = (errors.HostUnreachableError, errors.ConnectionLostError, errors.CommandTimeoutError)
"""The connection is cut or the machine hangs: the training may go on."""

READY_POLL_S = 0.5
"""Seconds between two looks at whether an instance is ready."""

LOOK_S = 2.0
"""Seconds between two looks over SSH: 1.5 kB each."""

RECONNECT_S: Final = (2.0, 60.0)
"""Seconds until the first try to reconnect, and at most between two; meanwhile progress is read from the store."""

FAULTY = {2, 77, 78}
"""Exit codes that another instance would give too: a spec that cannot be trained, an instance that is not safe, a store
that denies what the instance writes."""

PROBE = r'printf "%s\n%s\n" "${GPU_OFFLOAD_ROOT+simulated}" "$AWS_EC2_METADATA_SERVICE_ENDPOINT"'


@dataclass(slots=True)
class Session:
    """A driver's SSH session with one instance. Only the process that launched it has the keys."""

    run: RunRecord
    attempt: AttemptRecord
    host: SshHost
    console: Console
    store: StoreRef
    store_keys: Mapping[str, str]
    """Environment variables with the store's own keys; empty where the instance's role has access."""
    region: str
    """Where the store is, for the job's own calls."""
    software: Callable[[], Software]
    project: Callable[[], bytes]
    dataset: Callable[[], str]
    """Returns the key of the staged dataset."""
    state: Callable[[], str]
    """Asks the cloud for the instance's state."""
    serial_console: Callable[[], str]
    pause: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic
    started: bool = False
    trouble: str = ""
    """What the store did not take of what the instance writes, at the last look."""
    _job: InstanceJob | None = None
    _offsets: tuple[int, int] = (0, 0)
    _lines: bytes = b""
    _log: bytes = b""
    _lost_since: float | None = None
    _next_try: float = 0.0
    _delay: float = RECONNECT_S[0]
    _asked: float = field(default=-1e9)
    _revision: Revision = field(init=False)

    def __post_init__(self) -> None:
        self._revision = Revision(self.run, self.run.created_at)

    def start(self) -> None:
        """Make the instance ready and start the training; again is harmless.

        Raises:
            NotReadyError: a stage failed or took too long.
            HostKeyMismatchError: another host answers at the address.
            HostError: what is wrong on the way; `LOST` says which of them are worth another try.
        """
        self._ready(
            {
                ReadinessStage.CAPACITY: self._check_capacity,
                ReadinessStage.BOOT: lambda: self._unless_gone(check_boot(self.host.address)),
                ReadinessStage.SSH: lambda: self._unless_gone(check_ssh(self.host)),
                ReadinessStage.CLOUD_INIT: lambda: self._unless_gone(check_cloud_init(self.host)),
            }
        )
        instance = look(self.host)
        # The driver before the software: minutes of set-up are wasted on a GPU that does not work.
        simulated, metadata = self.host.run(PROBE, timeout=30).text.split("\n")[:2]
        gpus = 0 if simulated else self.attempt.offer.gpu.count if self.attempt.offer.gpu else 0
        self._ready({ReadinessStage.DRIVER: lambda: check_driver(self.host, gpus=gpus)})
        software = self.software()
        if instance.ready_python(software) is None:
            self.console.note("setting up the software; an image that has it baked in saves this")
        python = set_up(self.host, instance, software)
        self._ready({ReadinessStage.CUDA: lambda: check_cuda(self.host, python, gpus=gpus)})
        job = InstanceJob(self.host, instance, self.run.id, self.attempt.number)
        project = self.run.project
        folder = send_project(self.host, instance, project, self.project()) if project else None
        uploader = {"AWS_DEFAULT_REGION": self.region, **self.store_keys}
        spec = remote_spec(
            self.run,
            self.attempt.number,
            self.store,
            dataset=self.dataset(),
            output=job.output,
            project=folder,
            gpus=gpus if self.run.spec.device in {"auto", "cuda"} else 1,
        )
        # An on-demand instance gets a notice of retirement at the same place.
        notice = metadata.rstrip("/") or SPOT_NOTICE
        job.start(spec.model_dump_json(indent=1).encode(), python, uploader=uploader, spot_notice=notice)
        self._job, self.started = job, True
        self.console.note(
            f"training on {self.host.name}, {self.attempt.offer.name}; it goes on without this driver"
        )

    def follow(self, seconds: float) -> tuple[EndReason, str] | None:
        """Show progress for `seconds`, or less; return why the attempt is over if the job left no last heartbeat.

        The last thing is a look, also where this process was stopped meanwhile.
        """
        end = self.clock() + seconds
        with self.console.training(self.run.estimate.likely, self._revision.take) as show:
            while self.reachable:
                try:
                    found = self._look(show)
                except LOST as error:
                    self._lose(error)
                    break
                if found.state is not JobState.RUNNING and not found.more:
                    return self._verdict(found)
                if self.clock() >= end:
                    break
                if not found.more:
                    self.pause(min(LOOK_S, max(0.0, end - self.clock())))
        return None

    @property
    def reachable(self) -> bool:
        """Whether to try SSH now; after a loss the pauses between two tries grow."""
        return self._job is not None and (self._lost_since is None or self.clock() >= self._next_try)

    @property
    def position(self) -> int:
        """Bytes of the progress that were shown, in whole lines."""
        return self._offsets[0] - len(self._lines)

    def skip_to(self, position: int) -> None:
        """Show only what is behind this position of the progress; what is before was shown from the store."""
        if position > self.position:
            self._offsets, self._lines = (position, self._offsets[1]), b""

    def _ready(self, checks: dict[ReadinessStage, Callable[[], StageResult]]) -> None:
        def passed(stage: ReadinessStage, detail: str, seconds: float) -> None:
            self.console.detail(f"{stage}: {detail or 'ready'} ({seconds:.1f} s)")

        await_ready(checks, console=self.serial_console, passed=passed, every=READY_POLL_S, sleep=self.pause)

    def _check_capacity(self) -> StageResult:
        match self.state():
            case "pending":
                return Pending("the instance is pending")
            case "running":
                return Passed("the instance is running")
            case state:
                return Broken(f"the instance is {state}")

    def _unless_gone(self, seen: StageResult) -> StageResult:
        """Do not wait for SSH on an instance that the cloud has ended; ask it every ten seconds."""
        if isinstance(seen, Pending) and self.clock() - self._asked >= 10:
            self._asked = self.clock()
            if (state := self.state()) not in {"pending", "running"}:
                return Broken(f"the instance is {state}")
        return seen

    def _look(self, show: Callable[[ProgressEvent], None]) -> Look:
        if self._job is None:  # `reachable` says so before
            raise AssertionError("no job")
        found = self._job.look(*self._offsets, hold=True)
        if self._lost_since is not None:
            self.console.note(f"connected again after {self.clock() - self._lost_since:.0f} s")
            self._lost_since, self._delay = None, RECONNECT_S[0]
        self._offsets = found.progress_offset, found.log_offset
        self._tell_trouble(found.trouble)
        *lines, self._lines = (self._lines + found.progress).split(b"\n")
        for event in parse_events(lines):
            show(event)
        *lines, self._log = (self._log + found.log).split(b"\n")
        for line in lines:
            self.console.detail(line.decode(errors="replace"))
        return found

    def _tell_trouble(self, trouble: str) -> None:
        if trouble == self.trouble:
            return
        self.trouble = trouble
        if trouble:
            self.console.warning(f"{self.host.name}: {trouble}")
        else:
            self.console.note(f"the store takes what {self.host.name} writes again")

    def _lose(self, error: errors.HostError) -> None:
        now = self.clock()
        if self._lost_since is None:
            self._lost_since = now
            self.console.note(f"the connection is lost, the training goes on without it: {error}")
        self._next_try = now + self._delay
        self._delay = min(self._delay * 2, RECONNECT_S[1])

    def _verdict(self, found: Look) -> tuple[EndReason, str] | None:
        if found.state is JobState.ENDED and found.exit_code == 0:
            return None
        # The job's console has what came before its log: a missing module, a denied download.
        said = ""
        with contextlib.suppress(errors.HostError):
            said = _last_lines(self._job.console()) if self._job else ""
        if found.state is JobState.ENDED:
            reason: EndReason = "failed" if found.exit_code in FAULTY else "died"
            return reason, f"the job ended with exit code {found.exit_code}: {said or 'it printed nothing'}"
        return "died", f"the job is {found.state}, without an exit code: {said or 'it printed nothing'}"


def _last_lines(text: str, limit: int = 800) -> str:
    """Return the last whole lines of a text, as many as fit."""
    lines = text.strip()[-limit:].splitlines()
    return "\n".join(lines[1:] if len(lines) > 1 and len(text.strip()) > limit else lines)
