"""Subnets and security groups."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet. `public`: instances get a public address in it by default."""

    id: str
    vpc: str
    zone: str
    public: bool


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """The security group of a run. It must not exist after `expires`."""

    id: str
    run: str
    expires: datetime | None
    store: str | None = None
