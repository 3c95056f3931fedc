"""The roles of an `offload bootstrap` stack: the simulated cloud allows each what its shipped policies allow."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from gpu_offload.infra.account.policies import policies
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.simulator.authorization import Authorization
from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.iam import Request, allowed

KINDS = ("launcher", "janitor", "publisher", "trainer", "scheduler")
FREE = ("sts",)
"""Services whose calls need no permission of our policies."""


class StackRoles:
    """The policies of one stack in one account."""

    def __init__(self, site: Site, account: str) -> None:
        self.site = replace(site, account=account, partition="aws")
        self._authorization = Authorization(account)

    def denied(self, role: str, call: Call) -> Request | None:
        """Return what a role, by its ARN, is denied of a call; None where it is allowed all of it.

        A role that is none of the stack's may do everything.
        """
        kind = next((each for each in KINDS if role == self.site.role(each)), None)
        if kind is None or call.service in FREE:
            return None
        found = _documents(self.site)
        documents = found["bucket"], found[kind]
        return next((r for r in self._authorization.requests(call) if not allowed(documents, r)), None)

    def trusts(self) -> dict[str, dict[str, Any]]:
        """Return the trust policy of each role, by the role's name."""
        found = _documents(self.site)
        return {f"{self.site.name}-{kind}": found[f"{kind}-trust"] for kind in KINDS}


@cache
def _documents(site: Site) -> Mapping[str, dict[str, Any]]:
    return {each.name: each.json() for each in policies(site)}
