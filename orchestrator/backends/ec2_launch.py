"""Launches the instance of an attempt, with everything that keeps it from leaking in one call."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gpu_offload.errors import OffloadError
from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.errors import (
    AccountError,
    CloudError,
    CredentialsError,
    DeniedError,
    MissingError,
    NoCapacityError,
    NoNetworkError,
    NotOfferedError,
    QuotaError,
    TokenMismatchError,
)
from gpu_offload.infra.aws.launch import LaunchRequest
from gpu_offload.infra.aws.public_address import public_cidr
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.spot_market import SpotMarket
from gpu_offload.infra.instance.user_data import SSH_USER, user_data
from gpu_offload.infra.ssh.key import ClientKey, HostKey
from gpu_offload.orchestrator.backends.ec2_instances import Ec2Instances, region_of
from gpu_offload.orchestrator.backends.ec2_regions import Ec2Regions
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import LaunchDeniedError, RefusedError
from gpu_offload.orchestrator.run.record import AttemptRecord, HostRecord, RunRecord, Scope
from gpu_offload.orchestrator.settings.machines import Ec2Settings

PROFILE_LIMIT_S = 30.0
"""How long an instance profile may be unknown to EC2: a new one takes seconds, a wrong name takes for ever."""

REGIONAL = ("InvalidAMI", "InvalidSubnet", "DefaultVpc", "VPCIdNotSpecified", "InvalidSnapshot", "OptIn")
"""Prefixes of the error codes that rule out one region only."""

POLICY_VOLUME_GIB = 100
"""The largest disk that the policies of `offload bootstrap` allow by default (`infra.account.site.Site`)."""

SCHEDULE_SLACK_S = 120.0
"""How much later than the instance's own timer its schedule acts: it is for an instance whose timer did not."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The two SSH identities of an attempt; they exist in this process only."""

    host: HostKey = field(default_factory=HostKey.generate)
    client: ClientKey = field(default_factory=ClientKey.generate)


@dataclass
class Launcher:
    """Launches instances for one run."""

    settings: Ec2Settings
    instances: Ec2Instances
    console: Console
    ssh_user: str = SSH_USER
    keys: dict[int, Keys] = field(default_factory=dict)
    """By attempt."""
    clock: Callable[[], float] = time.time
    regions: Ec2Regions = field(init=False)
    _cidr: str = ""
    _profile_unknown_since: float = 0.0

    def __post_init__(self) -> None:
        self.regions = Ec2Regions(self.settings)

    def launch(self, run: RunRecord, attempt: AttemptRecord) -> HostRecord | None:
        """Launch; None where the answer was lost and must be asked for again.

        Raises:
            RefusedError: no instance came of this offer.
            LaunchDeniedError: this role may not launch.
            CloudError: what is wrong has nothing to do with the run, such as bad credentials.
        """
        region = region_of(attempt.offer)
        try:
            instance = self._launched(self.instances.client(region), run, attempt)
        except CloudError as error:
            if not self._passes(error):
                raise self._refusal(error, attempt.offer) from error
            self.console.warning(f"{error}; asking again under the same token")
            return None
        self.instances.add(region, instance)
        self.console.note(
            f"{instance.id} in {instance.zone}, {attempt.offer.instance_type} ({instance.market})"
        )
        self.schedule(run, attempt, instance.id, region)
        return self.host_record(instance, region)

    def _passes(self, error: CloudError) -> bool:
        """Whether the same launch is worth another call. IAM needs seconds until EC2 knows a new profile."""
        if error.retry != "same":
            return False
        if error.code != "InvalidParameterValue":  # EC2's code for a profile that it does not know
            return True
        self._profile_unknown_since = self._profile_unknown_since or self.clock()
        return self.clock() - self._profile_unknown_since < PROFILE_LIMIT_S

    def _refusal(self, error: CloudError, offer: Offer) -> OffloadError:
        """Return what a launch that failed for good means for the run."""
        match error:
            case DeniedError():
                return LaunchDeniedError(
                    f"{error}.{self._large_disk(offer)} The run stays open: a driver with the launcher's role goes on with it "
                    "(`offload train`, or `offload tend` with that role)"
                )
            case QuotaError():
                return RefusedError(str(error), quota=True, limit_vcpus=self._limit(error, offer))
            case NoCapacityError() | NotOfferedError():
                lasting: Scope | None = "offer" if isinstance(error, NotOfferedError) else None
                return RefusedError(str(error), for_good=lasting)
            case TokenMismatchError():
                return RefusedError(str(error))
            case CredentialsError():
                return error
            case NoNetworkError():
                return RefusedError(str(error), for_good="offer")
            case _:
                regional = error.code.startswith(REGIONAL) or isinstance(error, (MissingError, AccountError))
                return RefusedError(str(error), for_good="region" if regional else "run")

    def _large_disk(self, offer: Offer) -> str:
        """Say that a disk may be larger than the role's policy allows: a denial does not say which condition failed."""
        size = self.regions.volume_gib(region_of(offer))
        allowed = max(POLICY_VOLUME_GIB, self.settings.volume_gib)
        if size <= POLICY_VOLUME_GIB:
            return ""
        if size <= allowed:
            return (
                f" Its disk has {size} GiB, and a stack that was deployed before ec2.volume-gib was {size} allows less: deploy "
                "it again."
            )
        return (
            f" The image needs a disk of {size} GiB, and the policy of `offload bootstrap` allows {allowed} GiB: set "
            f"ec2.volume-gib = {size} and deploy the stack again, or choose a smaller image."
        )

    def _limit(self, error: CloudError, offer: Offer) -> float | None:
        """Return the quota that refused an offer, in vCPUs: from EC2's message, or asked for; None where it is unknown."""
        if found := re.search(r"limit of (\d+)", str(error)):
            return float(found[1])
        quotas = SpotMarket(region_of(offer)).quotas()
        return quotas.spot_vcpus if offer.market == "spot" else quotas.on_demand_vcpus

    def host_record(self, instance: Instance, region: str) -> HostRecord:
        """Return what the journal keeps of an instance; the image's size counts where it was looked up."""
        return HostRecord(
            instance_id=instance.id,
            address=instance.public_ip,
            launched_at=instance.launch_time.timestamp(),
            market=instance.market,
            zone=instance.zone,
            region=region,
            volume_gib=self.regions.volume_gib(region),
        )

    def _launched(self, ec2: Ec2, run: RunRecord, attempt: AttemptRecord) -> Instance:
        try:
            return ec2.launch(self._request(ec2, run, attempt))
        except TokenMismatchError:
            # An earlier process launched it and lost the reply: its keys, and so its user data, were others.
            mine = [
                i
                for i in ec2.find(run.id)
                if i.attempt == attempt.number and not i.ended and self.instances.is_ours(i.store)
            ]
            if not mine:
                raise
            return mine[0]

    def _request(self, ec2: Ec2, run: RunRecord, attempt: AttemptRecord) -> LaunchRequest:
        # Nothing here depends on the clock: EC2 refuses a used token with other parameters.
        offer, expires = attempt.offer, datetime.fromtimestamp(int(attempt.expires_at), UTC)
        keys = self.keys.setdefault(attempt.number, Keys())
        mark = self.instances.mark
        image, subnet = self.regions.image(ec2.region), self.regions.subnet(ec2, offer)
        self._cidr = self._cidr or public_cidr(self.settings.ssh_cidr)
        last = datetime.fromtimestamp(int(run.deadline_at), UTC)
        group = ec2.create_security_group(
            run.id, self._cidr, self.settings.ssh_port, vpc=subnet.vpc, expires=last, store=mark
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
            user_data=user_data(
                deadline=attempt.expires_at,
                launched=attempt.created_at,
                host_key=keys.host,
                client_key=keys.client.public,
                ssh_user=self.ssh_user,
            ),
            volume_gib=self.regions.volume_gib(ec2.region),
            instance_profile=self.settings.instance_profile,
            max_price_usd=attempt.max_price_usd,
            store=mark,
        )

    def schedule(self, run: RunRecord, attempt: AttemptRecord, instance_id: str, region: str) -> None:
        """Create the schedule by which AWS terminates the instance, should everything else fail."""
        if (role := self.settings.schedule_role) is None:
            return
        at, mark = datetime.fromtimestamp(attempt.expires_at + SCHEDULE_SLACK_S, UTC), self.instances.mark
        try:
            Schedules(region).create(run.id, attempt.number, instance_id, at, role, store=mark)
        except CloudError as error:
            self.console.warning(f"no schedule terminates {instance_id}, the other layers do: {error}")
