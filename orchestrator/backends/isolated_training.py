"""Trains on a GitHub runner in three processes, as on an instance: fetch, train isolated, mirror; docs/security.md."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.infra.instance.isolation import Isolation, why_not
from gpu_offload.orchestrator.backends.training_process import TrainingProcess, drain
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.state import on_runner
from gpu_offload.orchestrator.training_environment import training_environment
from gpu_offload.remote_job.mirror.inputs import InputFolder
from gpu_offload.remote_job.spec import TrainingSpec

FILES = ("GITHUB_EVENT_PATH", "GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")
FOLDERS = ("HOME", "GITHUB_WORKSPACE", "RUNNER_TEMP", "RUNNER_WORKSPACE", "XDG_RUNTIME_DIR")
"""Variables that name files and folders of a runner, which hold its credentials or what later steps run."""


class IsolationError(OffloadError):
    """`training.isolation = "required"`, and this machine cannot isolate a training."""


def why_open(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """Return why a training here is not isolated; None if it is, empty if this is no runner. Raises IsolationError."""
    if not on_runner(environment):
        return ""
    if settings.training.isolation == "off":
        return "training.isolation is off"
    temp = Path(environment["RUNNER_TEMP"])
    reason = _why_not(temp, hidden_folders(settings.root, environment))
    if reason is not None and settings.training.isolation == "required":
        raise IsolationError(
            f"training.isolation is required, and this runner cannot isolate a training: {reason}; a runner of GitHub's "
            "can (sudo without a password, util-linux)"
        )
    return reason


def not_isolated(reason: str) -> str:
    """Return the sentence by which a person learns that a training was not isolated."""
    return f"the training is not isolated from this runner and its network: {reason}"


@cache
def _why_not(folder: Path, hidden: tuple[Path, ...]) -> str | None:
    return why_not(folder, hidden)


def hidden_folders(project: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return what a training on a runner must not find: checkout, state, tools' settings, the runner's own files."""
    found = {project}
    with contextlib.suppress(KeyError):  # a container's user without a name
        found.add(Path(pwd.getpwuid(os.geteuid()).pw_dir))
    found |= {Path(environment[name]) for name in FOLDERS if environment.get(name)}
    found |= {Path(environment[name]).parent for name in FILES if environment.get(name)}
    if workspace := environment.get("RUNNER_WORKSPACE"):
        # Other repositories' checkouts on a self-hosted runner, and above them its credentials.
        work = Path(workspace).parent
        found.add(work.parent if (work.parent / ".runner").exists() else work)
    return tuple(sorted({Path(os.path.realpath(path)) for path in found}))


class IsolatedProcess(TrainingProcess):
    """The process that trains as another user: a file asks it to stop, and only root can kill it."""

    def __init__(self, isolation: Isolation, inputs: InputFolder) -> None:
        command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", "--inputs", str(inputs.folder)]
        super().__init__(isolation.command(*command, str(inputs.spec), "--parent-stdin"))
        self._isolation, self._inputs = isolation, inputs

    def stop(self, reason: str) -> None:
        """See `TrainingProcess`."""
        self._inputs.ask_to_stop(reason)

    def end(self) -> None:
        """See `TrainingProcess`."""
        subprocess.run(self._isolation.end_command(), capture_output=True, check=False, timeout=60)

    @property
    def code(self) -> int:
        """See `TrainingProcess`; the shell between us gives a signal as 128 plus its number."""
        code = self.returncode if self.returncode <= 128 else 128 - self.returncode
        return code or self.mirror_code


@dataclass(frozen=True)
class IsolatedTraining:
    """One attempt. Its folder has the layout of a job on an instance; see docs/instance.md."""

    spec: TrainingSpec
    """What to train, with local inputs; its output is `output` in the folder of the job."""
    project: Path
    """The project's folder, which is hidden."""

    @property
    def job(self) -> Path:
        """The folder of the job."""
        return Path(self.spec.output).parent

    @property
    def inputs(self) -> InputFolder:
        """What is fetched for it."""
        return InputFolder(self.job / "input")

    @property
    def _spec(self) -> Path:
        return self.job / "spec.json"

    @property
    def _over(self) -> Path:
        return self.job / "trained"

    def prepare(self) -> None:
        """Make its folders; remove what an earlier attempt left, but for its checkpoint."""
        shutil.rmtree(self.inputs.folder, ignore_errors=True)
        self._over.unlink(missing_ok=True)
        for name in ("progress.jsonl", "log.txt", "heartbeat.json"):
            with contextlib.suppress(FileNotFoundError):
                (self.job / "output" / name).unlink()
        environment = training_environment(
            os.environ, project=self.project, in_bucket=False, own_code=self.spec.entrypoint is not None
        )
        self._isolation.prepare(environment)
        self._spec.write_text(self.spec.model_dump_json(indent=1))

    def fetching(self) -> TrainingProcess:
        """Return the process that fetches, verified, what the training needs."""
        return TrainingProcess(self._module("--fetch", str(self.inputs.folder), "--parent-stdin"))

    @contextlib.contextmanager
    def training(self, tail: deque[str]) -> Iterator[IsolatedProcess]:
        """Train while a second process mirrors the output to the store; that one's standard error goes to `tail`."""
        words = self._module("--mirror", str(self.inputs.folder), "--until", str(self._over))
        with (
            TrainingProcess(words) as mirror,
            IsolatedProcess(self._isolation, self.inputs) as process,
        ):
            reader = threading.Thread(target=drain, args=(mirror, tail), daemon=True)
            reader.start()
            try:
                yield process
            finally:
                # A driver that fails here ends the training with its standard input; nothing else limits it now.
                if process.stdin is not None:
                    process.stdin.close()
                code = process.wait()
                # The mirror ends once this file is there; a training that never started does not write it.
                if not self._over.exists():
                    self._over.write_text(f"{code}")
                process.mirror_code = mirror.wait()
                reader.join(timeout=5)

    @property
    def _isolation(self) -> Isolation:
        spec = self.spec
        named = [spec.dataset.tree, spec.weights.path if spec.weights else None]
        kept = tuple(Path(name) for name in (*named, spec.model) if name and Path(name).is_absolute())
        return Isolation(self.job, hidden_folders(self.project, os.environ), kept)

    def _module(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "gpu_offload.remote_job", *words, str(self._spec)]
