"""Client tokens of launches: an equal request returns the same instances, another one is refused."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.ec2.exceptions import EC2ClientError

REMEMBERED_S = 3600.0
"""For how long a ClientToken is remembered after its instance was launched."""


@dataclass(slots=True)
class _Launch:
    """A launch that had a ClientToken."""

    fingerprint: str
    reservation: Any
    at: float


class LaunchTokens:
    """Launches by region and token, remembered for a while. `now` is the cloud's time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._launches: dict[tuple[str, str], _Launch] = {}

    def known(self, region: str, form: dict[str, Any]) -> Any:
        """Return the reservation of an equal launch, None for a new one. Raises EC2ClientError for an unequal one."""
        known = self._launches.get((region, form.get("ClientToken", "")))
        if known is None or self._now() - known.at >= REMEMBERED_S:
            return None
        if known.fingerprint != _fingerprint(form):
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        return known.reservation

    def remember(self, region: str, form: dict[str, Any], reservation: Any) -> None:
        """Remember a launch, where it has a token."""
        if token := form.get("ClientToken"):
            self._launches[region, token] = _Launch(_fingerprint(form), reservation, self._now())

    def forget_old(self) -> None:
        """Forget launches whose time is over."""
        now = self._now()
        self._launches = {key: one for key, one in self._launches.items() if now - one.at < REMEMBERED_S}


def _fingerprint(form: dict[str, Any]) -> str:
    """Return a digest of a launch's parameters, in any order, without the token and the dry run."""
    kept = {key: value for key, value in form.items() if key not in {"ClientToken", "DryRun", "Version"}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
