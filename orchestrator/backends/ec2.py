"""Trains on EC2 instances: launches one, starts the training on it, follows it, terminates it."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_offload.infra.aws.errors import CloudError, NotYetVisibleError
from gpu_offload.infra.aws.state_reason import explained
from gpu_offload.infra.instance.readiness import NotReadyError
from gpu_offload.infra.instance.software import Software, own_software
from gpu_offload.infra.instance.user_data import SSH_USER
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.errors import HostError, HostKeyMismatchError
from gpu_offload.orchestrator.backends.ec2_cleanup import Ec2Cleanup
from gpu_offload.orchestrator.backends.ec2_instances import Ec2Instances, region_of
from gpu_offload.orchestrator.backends.ec2_launch import Keys, Launcher
from gpu_offload.orchestrator.backends.progress import StoreWatch
from gpu_offload.orchestrator.backends.ssh_session import LOST, Session
from gpu_offload.orchestrator.backends.staging import Staging, project_key, staged_dataset
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptRecord, EndReason, HostRecord, RunRecord
from gpu_offload.orchestrator.settings.machines import Ec2Settings
from gpu_offload.remote_job.spec import StoreRef

SETTLE_S = 2.0
"""Seconds between two tries to reach an instance."""


@dataclass
class RentedTraining:
    """Trains on EC2; see `orchestrator.run.backend.Cloud`. `renew` keeps the driver's lease alive during waits."""

    settings: Ec2Settings
    journal: Journal
    store: StoreRef
    console: Console
    staging: Staging | None = None
    """None for a driver without the dataset at hand: then it must have been staged before."""
    software: Callable[[], Software] = own_software
    store_keys: Mapping[str, str] = field(default_factory=dict)
    """Environment variables with the keys of a store that does not accept the instance's role."""
    renew: Callable[[], object] = field(default=lambda: None)
    ssh_user: str = SSH_USER
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    found: Ec2Instances = field(init=False)
    launcher: Launcher = field(init=False)
    cleanup: Ec2Cleanup = field(init=False)
    _sessions: dict[int, Session] = field(default_factory=dict)
    _watch: StoreWatch | None = None

    def __post_init__(self) -> None:
        self.found = Ec2Instances(self.store, self.clock)
        self.launcher = Launcher(self.settings, self.found, self.console, self.ssh_user, clock=self.clock)
        schedules = self.settings.schedule_role is not None
        self.cleanup = Ec2Cleanup(self.found, self.console, self._pause, self.sleep, schedules, self.clock)

    def instances(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[ObservedInstance, ...]:
        """See `Cloud`."""
        return tuple(
            ObservedInstance(
                id=i.id,
                attempt=i.attempt or None,
                state=i.state,
                reclaimed=i.reclaimed,
                shut_down=i.shut_down,
                host=self.launcher.host_record(i, region),
                ended_at=i.ended_at.timestamp() if i.ended_at else None,
                why=explained(i.state_reason, i.why),
            )
            for region, i in self.found.find(run.id, attempts)
        )

    def leftovers(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[str, ...]:
        """See `Cloud`."""
        return self.cleanup.leftovers(run, attempts)

    def prepare(self, run: RunRecord) -> None:
        """See `Cloud`: stages what the instance reads."""
        if self.staging is not None:
            self.staging.stage(run)

    def adopt(self, run: RunRecord, attempt: AttemptRecord, host: HostRecord) -> None:
        """See `Cloud`."""
        self.launcher.schedule(run, attempt, host.instance_id, host.region)

    def launch(self, run: RunRecord, attempt: AttemptRecord) -> HostRecord | None:
        """See `Cloud`."""
        return self.launcher.launch(run, attempt)

    def train(self, run: RunRecord, attempt: ObservedAttempt) -> tuple[EndReason, str] | None:
        """See `Cloud`."""
        number = attempt.record.number
        session = self._sessions.get(number)
        if session is not None and session.started:
            return self.follow(run, attempt, SETTLE_S)
        keys = self.launcher.keys.get(number)
        if keys is None:
            return "orphaned", "its SSH keys died with the process that launched it"
        try:
            session = session or self._session(run, attempt, keys)
            if session is None:
                self._pause(SETTLE_S)  # no address yet
                return None
            self._sessions[number] = session
            session.start()
        except NotReadyError as error:
            # Of an instance that is gone the next observation has the better reason: EC2's.
            if self._state(attempt) not in {"pending", "running"}:
                return None
            return "died", str(error)
        except HostKeyMismatchError as error:
            return "died", str(error)
        except LOST as error:
            self.console.note(f"{error}; trying again")
            self._pause(SETTLE_S)
        except HostError as error:
            return "died", str(error)
        return None

    def follow(
        self, run: RunRecord, attempt: ObservedAttempt, seconds: float
    ) -> tuple[EndReason, str] | None:
        """See `Cloud`: over SSH while the connection holds, from the store otherwise.

        It ends with a look over SSH where that is possible: only the instance knows how a job ended whose store denies
        its writes, and what the store says by its silence is judged next.
        """
        number = attempt.record.number
        session = self._sessions.get(number)
        if session is None or not session.reachable:
            if self._watch is None or self._watch.attempt != number:
                self._watch = StoreWatch(self.journal.store, run, number, self.console, self._pause)
            # Both read copies of one file, which only grows: what one has shown the other skips.
            reader = self._watch.reader
            if session is not None:
                reader.position = max(reader.position, session.position)
            self._watch.follow(seconds, until=lambda: session is not None and session.reachable)
            if session is not None:
                session.skip_to(reader.position)
            seconds = 0.0
        ended = session.follow(seconds) if session is not None and session.reachable else None
        return ended if ended and not self._store_knows(run, number) else None

    def terminate(self, instances: tuple[str, ...]) -> None:
        """See `Cloud`."""
        self.cleanup.terminate(instances)

    def keeps_nothing(self, attempt: ObservedAttempt) -> bool:
        """See `Cloud`."""
        session = self._sessions.get(attempt.record.number)
        return session is not None and bool(session.trouble)

    def abandon(self, run: RunRecord, attempt: ObservedAttempt) -> tuple[str, ...]:
        """See `Cloud`."""
        return self.cleanup.abandon(run, attempt)

    def clean_up(self, leftovers: tuple[str, ...]) -> None:
        """See `Cloud`."""
        self.cleanup.remove(leftovers)

    def close(self) -> None:
        """See `Cloud`."""
        for session in self._sessions.values():
            session.host.close()
        self._sessions.clear()

    def _session(self, run: RunRecord, attempt: ObservedAttempt, keys: Keys) -> Session | None:
        found = self.found.of_attempt(attempt.record.number)
        if found is None or found.public_ip is None:
            return None
        region = region_of(attempt.record.offer)
        address = Address(found.public_ip, self.settings.ssh_port, self.ssh_user)
        return Session(
            run=run,
            attempt=attempt.record,
            host=SshHost(address, keys.client, keys.host.public, patience=5.0),
            console=self.console,
            store=self.store,
            store_keys=self.store_keys,
            region=self.store.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or region,
            software=self.software,
            project=lambda: self._project(run),
            dataset=lambda: staged_dataset(self.journal.store, run),
            state=lambda: self._state(attempt),
            serial_console=lambda: self._serial_console(region, found.id),
            pause=self._pause,
        )  # fmt: skip

    def _project(self, run: RunRecord) -> bytes:
        if run.project is None:
            return b""
        return self.journal.store.read(project_key(run.id, run.project))[0]

    def _state(self, attempt: ObservedAttempt) -> str:
        if attempt.host is None:
            return "pending"
        try:
            return self.found.client(region_of(attempt.record.offer)).get(attempt.host.instance_id).state
        except NotYetVisibleError:
            return "pending"
        except CloudError:
            return "running"  # unknown: the wait goes on within its limits

    def _serial_console(self, region: str, instance_id: str) -> str:
        with contextlib.suppress(CloudError):
            return self.found.client(region).console_output(instance_id)
        return ""

    def _store_knows(self, run: RunRecord, number: int) -> bool:
        """Whether the store has the training's own account of its end."""
        documents = self.journal.read(run.id)
        beat = documents.attempts[number - 1].heartbeat if len(documents.attempts) >= number else None
        return documents.result is not None or (beat is not None and beat.state in {"failed", "interrupted"})

    def _pause(self, seconds: float) -> None:
        """Wait, and keep the lease alive."""
        self.sleep(seconds)
        self.renew()
