"""EC2's behaviour on top of moto: late visibility, capacity, idempotent launches, states that change over time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from moto import settings
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends

from gpu_offload.infra.simulator.account import add_image
from gpu_offload.infra.simulator.admission import Admission, NewProfiles, decoded_user_data
from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.compute import Compute
from gpu_offload.infra.simulator.launch_tokens import LaunchTokens
from gpu_offload.infra.simulator.rented import USER, Rented


def _books(account: str, region: str) -> Any:
    """Return what moto keeps of a region, without the 1,300 images that it would read for every new one."""
    usual = settings.ec2_load_default_amis
    settings.ec2_load_default_amis = lambda: False
    try:
        return ec2_backends[account][region]
    finally:
        settings.ec2_load_default_amis = usual


class MotoEc2:
    """Replaces what moto's EC2 does with instances, region by region, with what `Compute` does."""

    def __init__(
        self, compute: Compute, now: Callable[[], float], free_spot: Callable[[str], int | None]
    ) -> None:
        self._compute = compute
        self._free_spot = free_spot
        self._capacity = dict(compute.behaviour.capacity)
        self._now = now
        self._tokens = LaunchTokens(now)
        self._local = threading.local()
        self._new_profiles = NewProfiles(compute.account, compute.behaviour)
        self._backends: dict[str, Any] = {}
        self._originals: dict[str, dict[str, Any]] = {}
        compute.on_terminated = self._terminated
        compute.on_vanished = self._vanished

    def region(self, name: str) -> Any:
        """Return the backend of a region, with our methods in place from the first use on."""
        with self._compute.lock:
            if name not in self._backends:
                backend = _books(self._compute.account, name)
                self._backends[name] = backend
                replaced: dict[str, Callable[..., Any]] = {
                    "run_instances": self._run_instances,
                    "terminate_instances": self._terminate_instances,
                    "reboot_instances": self._reboot_instances,
                    "all_reservations": self._all_reservations,
                    "delete_security_group": self._delete_security_group,
                    "associate_iam_instance_profile": self._associate_profile,
                }
                self._originals[name] = {key: getattr(backend, key) for key in replaced}
                for key, method in replaced.items():
                    setattr(backend, key, partial(method, name))
                add_image(self._compute.account, name, backend)
            return self._backends[name]

    @contextmanager
    def during(self, call: Call) -> Iterator[None]:
        """Handle one EC2 call at a time, and remember which."""
        with self._compute.lock:
            self._local.call = call
            try:
                yield
            finally:
                self._local.call = None

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """See everything, as the cloud does and no caller can."""
        before = getattr(self._local, "inside", False)
        self._local.inside = True
        try:
            yield
        finally:
            self._local.inside = before

    def zone_of(self, call: Call) -> str | None:
        """Where a launch asks to be, by name or by subnet."""
        form = call.parameters
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId")
        if subnet:
            try:
                return str(self.region(call.region).get_subnet(subnet).availability_zone)
            except EC2ClientError:
                return None
        return call.zone

    def _run_instances(self, region: str, image_id: str, count: int, *rest: Any, **options: Any) -> Any:
        call: Call = self._local.call
        form = call.parameters
        # First: EC2 answers a repeated launch even where it would now refuse a new one.
        if known := self._tokens.known(region, form):
            return known
        user_data = decoded_user_data(form)
        if image_id not in self.region(region).amis:
            raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        self._new_profiles.check(call)
        behaviour = replace(self._compute.behaviour, capacity=self._capacity)
        admission = Admission(
            behaviour, self._compute.market, self._compute.rented.values(), self._now(), self._free_spot
        )
        zone = admission.zone(call, self.zone_of(call), count)
        if not form.get("SubnetId") and not options.get("nics"):
            options["placement"] = zone
        original = self._originals[region]["run_instances"]
        with self._inside():
            reservation = original(image_id, count, *rest, **options)
        for instance in reservation.instances:
            self._compute.rent(region, call, instance, user_data)
        self._tokens.remember(region, form, reservation)
        return reservation

    def _associate_profile(self, region: str, *args: Any, **options: Any) -> Any:
        """Associate a launch's profile once: moto repeats it with a repeated launch, which it then refuses."""
        known = self._backends[region].iam_instance_profile_associations
        instance_id = options.get("instance_id") or (args[0] if args else "")
        if self._local.call.operation == "RunInstances" and instance_id in known:
            return known[instance_id]
        return self._originals[region]["associate_iam_instance_profile"](*args, **options)

    def _all_reservations(self, region: str, filters: Any = None) -> list[Any]:
        original = self._originals[region]["all_reservations"]
        found: list[Any] = original(filters)
        if getattr(self._local, "inside", False):
            return found
        call = getattr(self._local, "call", None)
        for reservation in found:
            reservation.instances = [one for one in reservation.instances if self._seen(one.id, call)]
        return [reservation for reservation in found if reservation.instances]

    def _seen(self, instance_id: str, call: object) -> bool:
        one = self._compute.rented.get(instance_id)
        if one is None or one.born_in is call:
            return True
        # moto asks several times during one call, which has to get the same answer.
        if call is not None and one.missed_by is call:
            return False
        if time.monotonic() < one.visible_at:
            return False
        if one.unseen > 0:
            one.unseen -= 1
            one.missed_by = call
            return False
        return True

    def _terminate_instances(self, region: str, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        if not instance_ids:
            raise EC2ClientError("MissingParameter", "The request must contain the parameter instancesSet")
        changed = []
        for instance in self.region(region).get_multi_instances_by_id(instance_ids):
            before = instance.instance_state
            self._compute.end(instance.id, *USER)
            changed.append((instance, before))
        return changed

    def _reboot_instances(self, region: str, instance_ids: list[str]) -> list[Any]:
        instances: list[Any] = self.region(region).get_multi_instances_by_id(instance_ids)
        for instance in instances:
            self._compute.reboot(self._compute.rented[instance.id])
        return instances

    def _delete_security_group(
        self, region: str, name: str | None = None, group_id: str | None = None
    ) -> Any:
        for one in self._compute.rented.values():
            groups = one.instance.security_groups
            if (
                one.region == region
                and one.state != "terminated"
                and any(group.id == group_id or (name and group.name == name) for group in groups)
            ):
                raise EC2ClientError(
                    "DependencyViolation", f"resource {group_id or name} has a dependent object"
                )
        return self._originals[region]["delete_security_group"](name=name, group_id=group_id)

    def set_capacity(self, pattern: str, machines: int | None) -> None:
        """Let zones and types (`us-east-1a:g4dn.*`) have so many machines for us from now on; None for plenty."""
        with self._compute.lock:
            rest = {key: value for key, value in self._capacity.items() if key != pattern}
            # In front: the first pattern that matches counts.
            self._capacity = rest if machines is None else {pattern: machines, **rest}

    def volumes(self) -> tuple[str, ...]:
        """Return the volumes that exist."""
        with self._compute.lock:
            return tuple(
                volume.id for backend in self._backends.values() for volume in backend.volumes.values()
            )

    def security_groups(self) -> tuple[str, ...]:
        """Return the security groups that were created."""
        with self._compute.lock:
            return tuple(
                group.id
                for backend in self._backends.values()
                for groups in backend.groups.values()
                for group in groups.values()
                if group.name != "default"
            )

    def forget_tokens(self) -> None:
        """Forget launches whose ClientToken EC2 remembers no longer."""
        with self._compute.lock:
            self._tokens.forget_old()

    def _terminated(self, one: Rented) -> None:
        with self._inside():
            one.instance.terminate()

    def _vanished(self, one: Rented) -> None:
        reservations = self.region(one.region).reservations
        for key, reservation in list(reservations.items()):
            if one.instance in reservation.instances:
                reservations.pop(key)
        # Its ClientToken is still known: see `_tokens`.
