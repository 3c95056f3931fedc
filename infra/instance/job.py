"""A training on a host: started once, independent of any connection, polled from byte offsets on."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gpu_offload.infra.instance.software import HostSoftware
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.errors import HostError

SPOT_NOTICE = "http://169.254.169.254"
"""The metadata service, which gives notice of a reclaim two minutes ahead."""

PIECE = 262_144
"""Most bytes of progress, and of log, that one poll returns."""

POLL_S = 60.0
"""Time limit of one poll, in seconds."""

POWER_OFF_S = 600
"""Seconds from the job's end, or from the last poll that held it, until the machine powers off."""

END = b"# end\n"
"""The last line of the uploader's variables, without which `job.sh start` starts nothing."""


class JobError(HostError):
    """The host's status of the job cannot be parsed."""


class JobState(StrEnum):
    """State of a job."""

    ABSENT = "absent"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"
    """Started, gone, and without an exit code: killed, or the machine rebooted."""


@dataclass(frozen=True, slots=True)
class Look:
    """Result of one poll: the job's state, and what it has written since the offsets."""

    state: JobState
    exit_code: int | None
    progress: bytes
    """Whole or partial lines of JSON. Like the log, it comes from another machine: validate, and escape."""
    log: bytes
    progress_offset: int
    """Offset of the next poll."""
    log_offset: int
    more: bool
    """Whether PIECE cut something off."""
    trouble: str = ""
    """What the store does not take from the machine, in a sentence; empty while it takes everything."""


HEADER = re.compile(rb"state=(\w+) exit=(-?\d*) progress=(\d+) log=(\d+) trouble=([^\n]*)\n")


def read_look(output: bytes, progress_offset: int, log_offset: int) -> Look:
    """Take apart what `job.sh poll` printed. Raises JobError."""
    header = HEADER.match(output)
    if header is None:
        raise JobError(f"no status from the instance, but {output[:200]!r}")
    state, code, *sizes, trouble = (word.decode(errors="replace") for word in header.groups())
    progress_size, log_size = map(int, sizes)
    body = output[header.end() :]
    if len(body) != progress_size + log_size:
        # A file shrank or could not be read, and the two parts cannot be separated. The next poll returns them again.
        progress_size = log_size = 0
    try:
        job_state = JobState(state)
    except ValueError as error:
        raise JobError(f"no status from the instance, but {output[:200]!r}") from error
    return Look(
        state=job_state,
        exit_code=int(code) if code else None,
        progress=body[:progress_size],
        log=body[progress_size : progress_size + log_size],
        progress_offset=progress_offset + progress_size,
        log_offset=log_offset + log_size,
        more=max(progress_size, log_size) >= PIECE,
        trouble=trouble.strip(),
    )


class InstanceJob:
    """One attempt of one run on a host. The constructor starts nothing, so it also gives access to a running job.

    A run's id has letters, digits, `.`, `_` and `-`; attempts are counted from 1.
    """

    def __init__(self, host: SshHost, instance: HostSoftware, run: str, attempt: int) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", run):
            raise ValueError(f"a run's id has letters, digits, `.`, `_` and `-` only: {run!r}")
        self.unit = f"gpu-offload-job-{run}-{attempt}"
        self._host = host
        self._instance = instance
        self._script = f"{instance.inbox}/job.sh"

    @property
    def folder(self) -> str:
        """Where the job is on the host."""
        return f"{self._instance.root}/var/lib/gpu-offload/jobs/{self.unit}"

    @property
    def output(self) -> str:
        """The spec's `output`."""
        return f"{self.folder}/output"

    def start(
        self,
        spec: bytes,
        python: str,
        *,
        uploader: Mapping[str, str],
        trainer: Mapping[str, str] | None = None,
        spot_notice: str = SPOT_NOTICE,
        power_off_after: int = POWER_OFF_S,
    ) -> None:
        """Start the job unless it was started; after that it runs without this process.

        `spec` is the TrainingSpec as JSON, with `output` as above, and `trainer` has variables for the process that
        trains: neither may hold a secret. Variables for the `uploader`, which talks to the store, stay in memory.
        `spot_notice` is the address to watch for the interruption notice; an empty one is not watched.
        """
        inbox = self._instance.inbox
        self._host.put(spec, f"{inbox}/{self.unit}.json")
        self._host.put(_shell_lines(trainer or {}), f"{inbox}/{self.unit}.environment")
        self._call(
            "start", self.unit, python, str(power_off_after), spot_notice,
            timeout=POLL_S, stdin=_shell_lines(uploader) + END,
        )  # fmt: skip

    def look(self, progress_offset: int = 0, log_offset: int = 0, *, hold: bool = False) -> Look:
        """Poll the job from offsets in `progress.jsonl` and `log.txt`; `hold` puts off the power-off after its end."""
        words = (str(progress_offset), str(log_offset), str(PIECE), str(int(hold)))
        return read_look(self._call("poll", self.unit, *words, timeout=POLL_S), progress_offset, log_offset)

    def console(self) -> str:
        """Return the end of the job's output, for a message about a job that failed early."""
        text = f"tail -c 4000 {shlex.quote(f'{self.folder}/console.txt')}"
        return self._host.run(text, timeout=POLL_S, check=False).text

    def _call(self, *words: str, timeout: float, stdin: bytes = b"") -> bytes:
        return self._host.run(["sh", self._script, *words], timeout=timeout, stdin=stdin).stdout


def _shell_lines(variables: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items()).encode()
