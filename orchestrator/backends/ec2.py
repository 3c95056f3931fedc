"""Train on rented instances: launch one, hand it the training, watch it, terminate it, leave nothing."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.errors import (
    CloudError,
    DeniedError,
    InUseError,
    InvalidRequestError,
    NotYetVisibleError,
    QuotaError,
    TokenMismatchError,
)
from gpu_offload.infra.aws.image import Image, find_image
from gpu_offload.infra.aws.launch import LaunchRequest
from gpu_offload.infra.aws.public_address import public_cidr
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.security_group import Subnet
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.instance.readiness import NotReadyError
from gpu_offload.infra.instance.software import Software, own_software
from gpu_offload.infra.instance.user_data import SSH_USER, user_data
from gpu_offload.infra.ssh.client import SshHost
from gpu_offload.infra.ssh.connection import Address
from gpu_offload.infra.ssh.errors import HostError, HostKeyMismatchError
from gpu_offload.infra.ssh.key import ClientKey, HostKey
from gpu_offload.orchestrator.backends.progress import StoreWatch
from gpu_offload.orchestrator.backends.ssh_session import LOST, Session
from gpu_offload.orchestrator.backends.staging import Staging, project_key
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import CloudUnreachableError, RefusedError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import ObservedAttempt, ObservedInstance
from gpu_offload.orchestrator.run.record import AttemptRecord, EndReason, HostRecord, RunRecord
from gpu_offload.orchestrator.settings.sections import Ec2Settings
from gpu_offload.remote_job.spec import StoreRef

ELSEWHERE_S = 300.0
"""How long a region without an open attempt, once seen empty, is not asked again."""

SCHEDULE_SLACK_S = 120.0
"""How much later than the instance itself the schedule acts: it is there for an instance that did not."""

SETTLE_S = 2.0
CLEAN_UP_TRIES = 60
ABANDON_S = 4.0
"""Seconds to look for an instance whose launch was not answered yet, when there is no more time than that."""


@dataclass(frozen=True, slots=True)
class Keys:
    """An attempt's two identities; they live in this process only."""

    host: HostKey
    client: ClientKey

    @classmethod
    def generate(cls) -> "Keys":
        """Make fresh ones."""
        return cls(HostKey.generate(), ClientKey.generate())


@dataclass
class RentedTraining:
    """Trains on EC2; see `orchestrator.drive.Cloud`. `renew` keeps the driver's lease alive during waits."""

    settings: Ec2Settings
    journal: Journal
    store: StoreRef
    console: Console
    staging: Staging | None = None
    """None for a driver without the dataset at hand: then it must have been staged before."""
    software: Callable[[], Software] = own_software
    store_keys: Mapping[str, str] = field(default_factory=dict)
    """Variables with the keys of a store that knows nothing of the instance's role; see `infra.credentials`."""
    renew: Callable[[], object] = field(default=lambda: None)
    ssh_user: str = SSH_USER
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    bytes_over_ssh: int = 0
    _clients: dict[str, Ec2] = field(default_factory=dict)
    _images: dict[str, Image] = field(default_factory=dict)
    _subnets: dict[str, dict[str, Subnet]] = field(default_factory=dict)
    _cidr: str = ""
    _staged: bool = False
    _keys: dict[int, Keys] = field(default_factory=dict)
    _found: dict[str, tuple[str, Instance]] = field(default_factory=dict)
    """Every instance seen, by id, with its region."""
    _empty_since: dict[str, float] = field(default_factory=dict)
    _sessions: dict[int, Session] = field(default_factory=dict)
    _watch: StoreWatch | None = None
    _tries: dict[str, int] = field(default_factory=dict)

    def instances(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[ObservedInstance, ...]:
        """See `Cloud`. Other regions than the open attempt's are asked once in a while: strays end there, too."""
        current = attempts[-1].record.offer.region if attempts and attempts[-1].end is None else None
        for region in _regions(attempts):
            if region != current and self.clock() - self._empty_since.get(region, 0.0) < ELSEWHERE_S:
                continue
            with _asking():
                found = [i for i in self._ec2(region).find(run.id) if self._is_ours(i.store)]
            for known in [i for i, (where, _) in self._found.items() if where == region]:
                del self._found[known]
            self._found |= {instance.id: (region, instance) for instance in found}
            if all(i.state == "terminated" for i in found):
                self._empty_since[region] = self.clock()
            else:
                self._empty_since.pop(region, None)
        return tuple(
            ObservedInstance(
                id=i.id,
                attempt=i.attempt or None,
                state=i.state,  # type: ignore[arg-type]  # EC2's own words
                reclaimed=i.reclaimed,
                host=self._host(i, region),
                ended_at=i.ended_at.timestamp() if i.ended_at else None,
            )
            for region, i in self._found.values()
        )

    def leftovers(self, run: RunRecord, attempts: Sequence[ObservedAttempt]) -> tuple[str, ...]:
        """See `Cloud`. A leftover is called `REGION/KIND/ID`."""
        names: list[str] = []
        for region in _regions(attempts):
            with _asking():
                ec2 = self._ec2(region)
                groups = ec2.find_security_groups(run.id)
                names += [f"{region}/group/{group.id}" for group in groups if self._is_ours(group.store)]
                names += [
                    f"{region}/volume/{v.id}"
                    for v in ec2.volumes(run.id)
                    if v.state in {"available", "error"} and self._is_ours(v.store)
                ]
                if self.settings.schedule_role:
                    schedules = Schedules(region).find(run.id, store=self._mark)
                    names += [f"{region}/schedule/{s.name}" for s in schedules]
        return tuple(name for name in names if self._tries.get(name, 0) < CLEAN_UP_TRIES)

    def launch(self, run: RunRecord, attempt: AttemptRecord) -> HostRecord | None:
        """See `Cloud`. Everything that keeps the instance from leaking goes into the one call."""
        offer = attempt.offer
        region = _region(offer)
        if self.staging is not None and not self._staged:
            self.staging.stage(run)
            self._staged = True
            if self.renew() is not None:
                # Staging took longer than the lease lasts, and somebody else drives now: leave the launch to them.
                self.console.note("another driver has taken the run over")
                return None
        ec2 = self._ec2(region)
        try:
            instance = self._launched(ec2, run, attempt)
        except (QuotaError, DeniedError) as error:
            raise RefusedError(str(error), quota=True) from error
        except CloudError as error:
            if error.retry == "elsewhere" or isinstance(error, InvalidRequestError):
                raise RefusedError(str(error)) from error
            if error.retry == "same":
                self.console.warning(f"{error}; asking again under the same token")
                return None
            raise
        self._found[instance.id] = region, instance
        self.console.note(f"{instance.id} in {instance.zone}, {offer.instance_type} ({instance.market})")
        self._schedule(run, attempt, instance.id, region)
        return self._host(instance, region)

    def train(self, run: RunRecord, attempt: ObservedAttempt) -> tuple[EndReason, str] | None:
        """See `Cloud`."""
        number = attempt.record.number
        session = self._sessions.get(number)
        if session is not None and session.started:
            return self.follow(run, attempt, SETTLE_S)
        keys = self._keys.get(number)
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
            if self._state(attempt) not in {"pending", "running"}:
                return None  # the instance is gone; what the cloud says of it is the better reason
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
        """See `Cloud`: over SSH while the line holds, from the store otherwise."""
        session = self._sessions.get(attempt.record.number)
        if session is not None and session.started and session.reachable:
            ended = session.follow(seconds)
            return ended if ended and not self._store_knows(run, attempt.record.number) else None
        if self._watch is None or self._watch.attempt != attempt.record.number:
            self._watch = StoreWatch(
                self.journal.store, run, attempt.record.number, self.console, self._pause
            )
        self._watch.follow(seconds, until=lambda: session is not None and session.reachable)
        return None

    def terminate(self, run: RunRecord, instances: tuple[str, ...]) -> None:
        """See `Cloud`; the loop asks until they are terminated."""
        del run
        for region in sorted({self._found[i][0] for i in instances if i in self._found}):
            with _asking():
                self._ec2(region).terminate(i for i in instances if self._found.get(i, ("",))[0] == region)
        self._pause(0.5)

    def abandon(self, run: RunRecord, attempt: ObservedAttempt) -> tuple[str, ...]:
        """See `Cloud`. An instance whose launch was not answered is looked for by its tag for a moment."""
        region = _region(attempt.record.offer)
        ec2, end = self._ec2(region), self.clock() + ABANDON_S
        known = [i for i, (where, one) in self._found.items() if where == region and not one.ended]
        if attempt.host is not None and attempt.host.instance_id not in known:
            known.append(attempt.host.instance_id)
        terminated: set[str] = set()
        while True:
            for each in [i for i in known if i not in terminated]:
                with contextlib.suppress(CloudError):
                    ec2.terminate([each])
                    terminated.add(each)
            with contextlib.suppress(CloudError):
                known = [i.id for i in ec2.find(run.id) if not i.ended and self._is_ours(i.store)]
            if terminated.issuperset(known) and (terminated or self.clock() >= end):
                return tuple(sorted(terminated))
            if self.clock() >= end:
                left = ", ".join(i for i in known if i not in terminated)
                self.console.error(f"not terminated: {left}; run `offload stop {run.id}` at once")
                return tuple(sorted(terminated))
            self.sleep(0.2)

    def clean_up(self, run: RunRecord, leftovers: tuple[str, ...]) -> None:
        """See `Cloud`. What something still holds is tried again; at last it is left to `offload tend`."""
        del run
        for name in leftovers:
            region, kind, identity = name.split("/", 2)
            self._tries[name] = tries = self._tries.get(name, 0) + 1
            try:
                with _asking():
                    if kind == "group":
                        self._ec2(region).delete_security_group(identity)
                    elif kind == "volume":
                        self._ec2(region).delete_volume(identity)
                    else:
                        Schedules(region).delete(identity)
            except CloudUnreachableError as error:
                if not isinstance(error.__cause__, InUseError):
                    raise
                if tries >= CLEAN_UP_TRIES:
                    self.console.warning(f"{identity} is left over, `offload tend` removes it: {error}")
                self._pause(1.0)

    def close(self) -> None:
        """See `Cloud`."""
        self.bytes_over_ssh += sum(session.bytes_over_ssh for session in self._sessions.values())
        for session in self._sessions.values():
            session.host.close()
        self._sessions.clear()

    # --------------------------------------------------------------------------------------- launching

    def _launched(self, ec2: Ec2, run: RunRecord, attempt: AttemptRecord) -> Instance:
        try:
            return ec2.launch(self._request(ec2, run, attempt))
        except TokenMismatchError:
            mine = [
                i
                for i in ec2.find(run.id)
                if i.attempt == attempt.number and not i.ended and self._is_ours(i.store)
            ]
            if not mine:
                raise
            return mine[0]

    def _request(self, ec2: Ec2, run: RunRecord, attempt: AttemptRecord) -> LaunchRequest:
        offer, expires = attempt.offer, datetime.fromtimestamp(int(attempt.expires_at), UTC)
        keys = self._keys.setdefault(attempt.number, Keys.generate())
        mark = self._mark
        image, subnet = self._image(ec2.region), self._subnet(ec2, offer)
        self._cidr = self._cidr or public_cidr(self.settings.ssh_cidr)
        group = ec2.create_security_group(
            run.id,
            self._cidr,
            self.settings.ssh_port,
            vpc=subnet.vpc,
            expires=datetime.fromtimestamp(int(run.deadline_at), UTC),
            store=mark,
        )
        return LaunchRequest(
            run=run.id,
            attempt=attempt.number,
            expires=expires,
            instance_type=offer.instance_type or "",
            market=offer.market or "spot",
            subnet=subnet,
            image_id=image.id,
            root_device=image.root_device,
            security_group=group,
            # Equal for every repetition: a launch that is repeated with other words is another launch.
            user_data=user_data(
                deadline=attempt.expires_at,
                launched=attempt.created_at,
                host_key=keys.host,
                client_key=keys.client.public,
                ssh_user=self.ssh_user,
            ),
            volume_gib=self._volume_gib(image),
            instance_profile=self.settings.instance_profile,
            store=mark,
        )

    def _host(self, instance: Instance, region: str) -> HostRecord:
        """Return what the journal keeps of an instance; the image's size counts where it was looked up."""
        image = self._images.get(region)
        return HostRecord(
            instance_id=instance.id,
            address=instance.public_ip,
            launched_at=instance.launch_time.timestamp(),
            market=instance.market,
            zone=instance.zone,
            region=region,
            volume_gib=self._volume_gib(image) if image else self.settings.volume_gib,
        )

    def _volume_gib(self, image: Image) -> int:
        return max(self.settings.volume_gib, image.size_gib)

    def _image(self, region: str) -> Image:
        if region not in self._images:
            self._images[region] = find_image(region, self.settings.image)
        return self._images[region]

    def _subnet(self, ec2: Ec2, offer: Offer) -> Subnet:
        if offer.zone is not None and self.settings.subnet is not None:
            return ec2.subnet(offer.zone, self.settings.subnet)
        if ec2.region not in self._subnets:
            self._subnets[ec2.region] = ec2.subnets()
        zones = self._subnets[ec2.region]
        # Without a zone in the offer (no API was asked for prices) any that has a network will do.
        zone = offer.zone or next(iter(zones), "")
        return zones[zone] if zone in zones else ec2.subnet(zone)

    def _schedule(self, run: RunRecord, attempt: AttemptRecord, instance_id: str, region: str) -> None:
        """Let AWS itself terminate the instance, should everything else fail."""
        if self.settings.schedule_role is None:
            return
        at = datetime.fromtimestamp(attempt.expires_at + SCHEDULE_SLACK_S, UTC)
        try:
            Schedules(region).create(
                run.id, attempt.number, instance_id, at, self.settings.schedule_role, store=self._mark
            )
        except CloudError as error:
            self.console.warning(f"no schedule terminates {instance_id}, the other layers do: {error}")

    # ---------------------------------------------------------------------------------------- watching

    def _session(self, run: RunRecord, attempt: ObservedAttempt, keys: Keys) -> Session | None:
        found = next((i for _, i in self._found.values() if i.attempt == attempt.record.number), None)
        if found is None or found.public_ip is None:
            return None
        region = _region(attempt.record.offer)
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
            return self._ec2(_region(attempt.record.offer)).get(attempt.host.instance_id).state
        except NotYetVisibleError:
            return "pending"
        except CloudError:
            return "running"  # unknown: waiting goes on within its limits

    def _serial_console(self, region: str, instance_id: str) -> str:
        with contextlib.suppress(CloudError):
            return self._ec2(region).console_output(instance_id)
        return ""

    def _store_knows(self, run: RunRecord, number: int) -> bool:
        """Whether the training has said itself how it ended."""
        look = self.journal.look(run.id)
        beat = look.attempts[number - 1].heartbeat if len(look.attempts) >= number else None
        return look.result is not None or (beat is not None and beat.state in {"failed", "interrupted"})

    @property
    def _mark(self) -> str:
        return store_mark(self.store.url, self.store.endpoint_url)

    def _is_ours(self, mark: str | None) -> bool:
        """Whether a run's name is all that something of another store has in common with ours."""
        return mark in {None, self._mark}

    def _ec2(self, region: str) -> Ec2:
        if region not in self._clients:
            self._clients[region] = Ec2(region)
        return self._clients[region]

    def _pause(self, seconds: float) -> None:
        """Wait; the lease is kept alive meanwhile, and a store that is away does not matter here."""
        self.sleep(seconds)
        with contextlib.suppress(Exception):
            self.renew()


@contextmanager
def _asking() -> Iterator[None]:
    """Let the loop ask again later where AWS did not answer."""
    try:
        yield
    except CloudError as error:
        if error.retry == "same":
            raise CloudUnreachableError(str(error)) from error
        raise


def _regions(attempts: Sequence[ObservedAttempt]) -> list[str]:
    return sorted({a.record.offer.region for a in attempts if a.record.offer.region})


def _region(offer: Offer) -> str:
    if offer.region is None:  # every offer of EC2's has one
        raise AssertionError(offer.name)
    return offer.region
