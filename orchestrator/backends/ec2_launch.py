"""Launches the instance of an attempt: everything that keeps it from leaking is in the one call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.errors import (
    CloudError,
    DeniedError,
    InvalidRequestError,
    QuotaError,
    TokenMismatchError,
)
from gpu_offload.infra.aws.image import Image, find_image
from gpu_offload.infra.aws.launch import LaunchRequest
from gpu_offload.infra.aws.public_address import public_cidr
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.security_group import Subnet
from gpu_offload.infra.instance.user_data import SSH_USER, user_data
from gpu_offload.infra.ssh.key import ClientKey, HostKey
from gpu_offload.orchestrator.backends.ec2_instances import Ec2Instances, region_of
from gpu_offload.orchestrator.backends.staging import Staging
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import RefusedError
from gpu_offload.orchestrator.run.record import AttemptRecord, HostRecord, RunRecord
from gpu_offload.orchestrator.settings.sections import Ec2Settings

SCHEDULE_SLACK_S = 120.0
"""How much later than the instance's own timer its schedule acts: it is for an instance whose timer did not."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The two SSH identities of an attempt; they exist in this process only."""

    host: HostKey
    client: ClientKey

    @classmethod
    def generate(cls) -> "Keys":
        """Make fresh ones."""
        return cls(HostKey.generate(), ClientKey.generate())


@dataclass
class Launcher:
    """Launches instances for one run. `renew` keeps the lease alive, and returns another driver that took it."""

    settings: Ec2Settings
    instances: Ec2Instances
    console: Console
    staging: Staging | None = None
    """None for a driver without the dataset at hand: then it must have been staged before."""
    renew: Callable[[], object] = field(default=lambda: None)
    ssh_user: str = SSH_USER
    keys: dict[int, Keys] = field(default_factory=dict)
    """By attempt."""
    _images: dict[str, Image] = field(default_factory=dict)
    _subnets: dict[str, dict[str, Subnet]] = field(default_factory=dict)
    _cidr: str = ""
    _staged: bool = False

    def launch(self, run: RunRecord, attempt: AttemptRecord) -> HostRecord | None:
        """Launch; None where the answer was lost and must be asked for again. Raises RefusedError, CloudError."""
        region = region_of(attempt.offer)
        if self.staging is not None and not self._staged:
            self.staging.stage(run)
            self._staged = True
            if self.renew() is not None:
                # Staging took longer than the lease lasts, and another driver has the run now: it launches.
                self.console.note("another driver has taken the run over")
                return None
        try:
            instance = self._launched(self.instances.client(region), run, attempt)
        except (QuotaError, DeniedError) as error:
            raise RefusedError(str(error), quota=True) from error
        except CloudError as error:
            if error.retry == "elsewhere" or isinstance(error, InvalidRequestError):
                raise RefusedError(str(error)) from error
            if error.retry == "same":
                self.console.warning(f"{error}; asking again under the same token")
                return None
            raise
        self.instances.add(region, instance)
        self.console.note(
            f"{instance.id} in {instance.zone}, {attempt.offer.instance_type} ({instance.market})"
        )
        self._schedule(run, attempt, instance.id, region)
        return self.host_record(instance, region)

    def host_record(self, instance: Instance, region: str) -> HostRecord:
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

    def _launched(self, ec2: Ec2, run: RunRecord, attempt: AttemptRecord) -> Instance:
        try:
            return ec2.launch(self._request(ec2, run, attempt))
        except TokenMismatchError:
            mine = [
                i
                for i in ec2.find(run.id)
                if i.attempt == attempt.number and not i.ended and self.instances.is_ours(i.store)
            ]
            if not mine:
                raise
            return mine[0]

    def _request(self, ec2: Ec2, run: RunRecord, attempt: AttemptRecord) -> LaunchRequest:
        offer, expires = attempt.offer, datetime.fromtimestamp(int(attempt.expires_at), UTC)
        keys = self.keys.setdefault(attempt.number, Keys.generate())
        mark = self.instances.mark
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
            # Equal for every repetition: EC2 refuses a used token with other parameters.
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
                run.id,
                attempt.number,
                instance_id,
                at,
                self.settings.schedule_role,
                store=self.instances.mark,
            )
        except CloudError as error:
            self.console.warning(f"no schedule terminates {instance_id}, the other layers do: {error}")
