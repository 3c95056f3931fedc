"""EC2 made honest: moto keeps the books, this says when an instance is seen, what it runs on and how it ends."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends

from gpu_offload.infra.aws.instance_state import ENDED
from gpu_offload.infra.simulator.admission import Admission, decoded_user_data
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.host import Hardware, Machine
from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.images import add_image
from gpu_offload.infra.simulator.metadata import metadata_document
from gpu_offload.infra.simulator.rented import (
    ITSELF,
    RECLAIMED,
    RUN_TAG,
    USER,
    HonestInstance,
    Rented,
)
from gpu_offload.infra.simulator.timers import Timers


@dataclass(slots=True)
class _Launch:
    """What a ClientToken stands for."""

    fingerprint: str
    reservation: Any
    at: float


class Compute:
    """The instances of one account, over all regions."""

    def __init__(
        self,
        account: str,
        behaviour: Behaviour,
        timers: Timers,
        identities: Identities,
        *,
        now: Callable[[], float],
        say: Callable[[str, str, str], None],
        build: Callable[[Hardware, Callable[[str], None]], Machine],
        address: Callable[[], str],
        folder: Path,
        hardware: Callable[[], dict[str, Any]],
    ) -> None:
        self.account = account
        self.behaviour = behaviour
        self.capacity = dict(behaviour.capacity)
        self.lock = threading.RLock()
        self.rented: dict[str, Rented] = {}
        self.on_launch: Callable[[Rented], None] = lambda _: None
        self.on_running: Callable[[Rented], None] = lambda _: None
        self._timers = timers
        self._identities = identities
        self._now = now
        self._say = say
        self._build = build
        self._address = address
        self._folder = folder
        self._hardware = hardware
        self._tokens: dict[tuple[str, str], _Launch] = {}
        self._local = threading.local()
        self._backends: dict[str, Any] = {}
        self._originals: dict[str, dict[str, Any]] = {}

    # ---------------------------------------------------------------- what moto calls

    def region(self, name: str) -> Any:
        """Return the backend of a region, made honest when it is first used."""
        with self.lock:
            if name not in self._backends:
                backend = ec2_backends[self.account][name]
                self._backends[name] = backend
                replaced = {
                    "run_instances": self._run_instances,
                    "terminate_instances": self._terminate_instances,
                    "stop_instances": self._stop_instances,
                    "start_instances": self._start_instances,
                    "reboot_instances": self._reboot_instances,
                    "all_reservations": self._all_reservations,
                    "delete_security_group": self._delete_security_group,
                    "associate_iam_instance_profile": self._associate_profile,
                }
                self._originals[name] = {key: getattr(backend, key) for key in replaced}
                for key, method in replaced.items():
                    setattr(backend, key, _bound(method, name))
                add_image(self.account, name, backend)
            return self._backends[name]

    @contextmanager
    def during(self, call: Call) -> Iterator[None]:
        """Handle a call of EC2's: one at a time, and knowing which."""
        with self.lock:
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
        fingerprint = _fingerprint(form)
        token = form.get("ClientToken")
        known = self._tokens.get((region, token)) if token else None
        if known and self._now() - known.at < self.behaviour.token_seconds:
            if known.fingerprint != fingerprint:
                raise EC2ClientError(
                    "IdempotentParameterMismatch",
                    "Arguments on this idempotent request are inconsistent with arguments used in previous "
                    "request(s).",
                )
            return known.reservation
        user_data = decoded_user_data(form)
        if image_id not in self.region(region).amis:
            raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        behaviour = replace(self.behaviour, capacity=self.capacity)
        admission = Admission(behaviour, self.rented.values(), self._now())
        zone = admission.zone(call, self.zone_of(call), count)
        if not form.get("SubnetId") and not options.get("nics"):
            options["placement"] = zone
        original = self._originals[region]["run_instances"]
        with self._inside():
            reservation = original(image_id, count, *rest, **options)
        for instance in reservation.instances:
            self._rent(region, call, instance, user_data)
        if token:
            self._tokens[region, token] = _Launch(fingerprint, reservation, self._now())
        return reservation

    def _associate_profile(self, region: str, *args: Any, **options: Any) -> Any:
        """Associate a launch's profile once: moto does it again when the launch is repeated, and refuses itself."""
        known = self._backends[region].iam_instance_profile_associations
        instance_id = options.get("instance_id") or (args[0] if args else "")
        if self._local.call.operation == "RunInstances" and instance_id in known:
            return known[instance_id]
        return self._originals[region]["associate_iam_instance_profile"](*args, **options)

    def _rent(self, region: str, call: Call, instance: Any, user_data: bytes) -> None:
        """Give a new instance its address, its host and its future."""
        instance.__class__ = HonestInstance
        if instance.lifecycle == "spot":
            digest = hashlib.sha256(instance.id.encode()).hexdigest()
            instance.spot_instance_request_id = f"sir-{digest[:8]}"
        nic = instance.nics[0]
        address = self._address()
        if nic.public_ip is not None:
            nic.public_ip = address
        hardware = Hardware(
            instance_id=instance.id,
            instance_type=instance.instance_type,
            address=address,
            user_data=user_data,
            folder=self._folder / instance.id,
            grace=self.behaviour.grace_seconds,
            **self._hardware(),
        )
        host = self._build(hardware, lambda why: self._went_down(instance.id, why))
        profile = (
            call.parameters.get("IamInstanceProfile.Name")
            or call.parameters.get("IamInstanceProfile.Arn", "").rpartition("/")[2]
        )
        one = Rented(
            instance=instance,
            region=region,
            launched=time.time(),
            user_data=user_data,
            born_in=call,
            host=host,
            role=profile or None,
            unseen=self.behaviour.lag_calls,
            visible_at=time.monotonic() + self.behaviour.lag_seconds,
        )
        self.rented[instance.id] = one
        one.become("pending")
        self._say("state", one.id, f"pending: {instance.instance_type} in {instance.placement.zone}")
        self._timers.after(0.0, lambda: self._switch_on(one))
        self._timers.after(self.behaviour.boot_seconds, lambda: self._now_running(one))
        self.on_launch(one)

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
        one = self.rented.get(instance_id)
        if one is None or one.born_in is call:
            return True
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
            self.end(instance.id, *USER)
            changed.append((instance, before))
        return changed

    def _stop_instances(self, region: str, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        changed = []
        for instance in self.region(region).get_multi_instances_by_id(instance_ids):
            one = self.rented[instance.id]
            if one.spot:
                raise EC2ClientError(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{one.id}' because it is associated with a one-time Spot "
                    "Instance request.",
                )
            before = instance.instance_state
            self._stop(one, *USER)
            changed.append((instance, before))
        return changed

    def _start_instances(self, region: str, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        changed = []
        for instance in self.region(region).get_multi_instances_by_id(instance_ids):
            one = self.rented[instance.id]
            if one.state != "stopped":
                raise EC2ClientError(
                    "IncorrectInstanceState",
                    f"The instance '{one.id}' is not in a state from which it can be started.",
                )
            before = instance.instance_state
            one.become("pending")
            self._timers.after(0.0, lambda one=one: self._switch_on(one))  # type: ignore[misc]
            self._timers.after(self.behaviour.boot_seconds, lambda one=one: self._now_running(one))  # type: ignore[misc]
            changed.append((instance, before))
        return changed

    def _reboot_instances(self, region: str, instance_ids: list[str]) -> list[Any]:
        instances: list[Any] = self.region(region).get_multi_instances_by_id(instance_ids)
        for instance in instances:
            one = self.rented[instance.id]
            self._timers.after(0.0, lambda one=one: self._power_cycle(one))  # type: ignore[misc]
        return instances

    def _delete_security_group(
        self, region: str, name: str | None = None, group_id: str | None = None
    ) -> Any:
        for one in self.rented.values():
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

    # ---------------------------------------------------------------- what happens to instances

    def end(self, instance_id: str, code: str, message: str) -> None:
        """Terminate: shutting down now, terminated after a while, forgotten later."""
        with self.lock:
            one = self.rented.get(instance_id)
            if one is None or one.state in ENDED:
                return
            one.become("shutting-down", code, message)
        self._say("state", one.id, f"shutting-down: {code}")
        self._timers.after(0.0, one.host.power_button)
        self._timers.after(self.behaviour.shutdown_seconds, lambda: self._terminated(one, code, message))

    def end_by_schedule(self, region: str, instance_ids: Iterable[str]) -> None:
        """Terminate for the scheduler, which repeats a failed call until it works."""
        for instance_id in instance_ids:
            one = self.rented.get(instance_id)
            if one is not None and one.region == region:
                self.end(instance_id, *USER)

    def reclaim(self, instance_id: str, notice: float) -> None:
        """AWS takes a spot instance back, after so many seconds of notice."""
        with self.lock:
            one = self.rented[instance_id]
            if not one.spot:
                self._say("fault", one.id, "on demand: AWS does not reclaim it")
                return
            if notice > 0:
                one.rebalance_at = time.time()
                one.reclaim_at = time.time() + notice
        self.refresh_metadata(one)
        self._say("fault", one.id, f"reclaimed with {notice:g} s of notice")
        if notice > 0:
            self._timers.after(notice, lambda: self.end(instance_id, *RECLAIMED))
        else:
            one.host.kill()
            self.end(instance_id, *RECLAIMED)

    def impair(self, instance_id: str) -> None:
        """The status checks fail from now on; the state stays `running`, and so does the bill."""
        with self.lock:
            self.rented[instance_id].instance.impaired = True

    def refresh_metadata(self, one: Rented) -> None:
        """Let the metadata service say what is so now, with fresh credentials where they near their end."""
        seconds = self.behaviour.credential_seconds
        if one.role and one.credentials_end - time.time() < min(300.0, seconds / 2):
            one.credentials = self._identities.issue(one.id, one.tags.get(RUN_TAG), seconds)
            one.credentials_end = time.time() + seconds
        one.host.set_metadata(metadata_document(one.facts(self.account)))

    def renew_credentials(self) -> None:
        """Let every role have new credentials now."""
        with self.lock:
            living = [one for one in self.rented.values() if one.state not in ENDED]
        for one in living:
            one.credentials_end = 0.0
            self.refresh_metadata(one)

    def tick(self) -> None:
        """What needs doing from time to time: credentials that near their end, launches to forget."""
        with self.lock:
            living = [one for one in self.rented.values() if one.state in {"pending", "running"}]
            now, limit = self._now(), self.behaviour.token_seconds
            self._tokens = {key: one for key, one in self._tokens.items() if now - one.at < limit}
        for one in living:
            if one.role and one.credentials_end - time.time() < min(
                300.0, self.behaviour.credential_seconds / 2
            ):
                self.refresh_metadata(one)

    def console(self, instance_id: str) -> str:
        """What the instance has printed while booting, and until its end."""
        one = self.rented[instance_id]
        return one.host.console() or one.console

    def find(self, instance_id: str) -> Rented:
        """An instance by id. Raises KeyError."""
        return self.rented[instance_id]

    def living(self) -> tuple[Rented, ...]:
        """Instances that are neither terminated nor on the way there."""
        with self.lock:
            return tuple(one for one in self.rented.values() if one.state not in ENDED)

    def volumes(self) -> tuple[str, ...]:
        """Volumes that somebody pays for."""
        with self.lock:
            return tuple(
                volume.id for backend in self._backends.values() for volume in backend.volumes.values()
            )

    def security_groups(self) -> tuple[str, ...]:
        """Security groups that somebody made."""
        with self.lock:
            return tuple(
                group.id
                for backend in self._backends.values()
                for groups in backend.groups.values()
                for group in groups.values()
                if group.name != "default"
            )

    def settled(self) -> bool:
        """Whether nothing is on its way to another state."""
        with self.lock:
            return not any(one.state in {"shutting-down", "stopping"} for one in self.rented.values())

    def close(self) -> None:
        """Take the power from every host, and forget everything."""
        for one in list(self.rented.values()):
            one.host.close()

    def _switch_on(self, one: Rented) -> None:
        with self.lock:
            if one.state in ENDED:
                return
        self.refresh_metadata(one)
        one.host.start(metadata_document(one.facts(self.account)))
        self._say("host", one.id, f"boots at {one.host.hardware.address}")

    def _power_cycle(self, one: Rented) -> None:
        one.host.kill()
        self._switch_on(one)

    def _now_running(self, one: Rented) -> None:
        with self.lock:
            if one.state != "pending":
                return
            one.become("running")
        self._say("state", one.id, "running")
        self.on_running(one)

    def _stop(self, one: Rented, code: str, message: str) -> None:
        with self.lock:
            if one.state not in {"pending", "running"}:
                return
            one.become("stopping", code, message)
        self._say("state", one.id, f"stopping: {code}")
        self._timers.after(0.0, one.host.power_button)

        def stopped() -> None:
            one.host.kill()
            with self.lock:
                if one.state == "stopping":
                    one.become("stopped", code, message)

        self._timers.after(self.behaviour.shutdown_seconds, stopped)

    def _terminated(self, one: Rented, code: str, message: str) -> None:
        one.console = one.host.console()
        one.host.close()
        with self.lock, self._inside():
            one.instance.terminate()
            one.become("terminated", code, message)
        self._say("state", one.id, "terminated")
        self._timers.after(self.behaviour.vanish_seconds, lambda: self._vanish(one))

    def _vanish(self, one: Rented) -> None:
        with self.lock:
            reservations = self.region(one.region).reservations
            for key, reservation in list(reservations.items()):
                if one.instance in reservation.instances:
                    reservations.pop(key)
            # Its ClientToken is still known: see `_tokens`.
            self.rented.pop(one.id, None)

    def _went_down(self, instance_id: str, why: str) -> None:
        """The host ended by itself."""
        one = self.rented.get(instance_id)
        if one is None or one.state in {*ENDED, "stopping", "stopped"}:
            return
        self._say("host", one.id, f"went down: {why or 'crash'}")
        if why == "reboot":
            self._timers.after(0.0, lambda: self._switch_on(one))
        elif why:
            if one.spot or one.instance.instance_initiated_shutdown_behavior == "terminate":
                self.end(instance_id, *ITSELF)
            else:
                self._stop(one, *ITSELF)
        else:
            self.impair(instance_id)


def _bound(method: Any, region: str) -> Callable[..., Any]:
    return lambda *args, **options: method(region, *args, **options)


def _fingerprint(form: dict[str, Any]) -> str:
    """What a launch asks for, whatever the order; the token itself and a dry run do not count."""
    kept = {key: value for key, value in form.items() if key not in {"ClientToken", "DryRun", "Version"}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
