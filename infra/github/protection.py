"""How an environment of a repository is protected: who decides whether its job, which spends money, starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from gpu_offload.infra.github.repository import described


@dataclass(frozen=True, slots=True)
class Protection:
    """An environment's rules. https://docs.github.com/en/rest/deployments/environments#get-an-environment"""

    exists: bool
    reviewers: int = 0
    """People and teams; one of them must approve a job before it starts."""
    limits_branches: bool = False
    """Whether only some branches may use it."""


def protection_of(repository: str, name: str, variables: Mapping[str, str]) -> Protection | None:
    """Return how an environment of ORG/REPO is protected; None where GitHub does not say (private repositories)."""
    found = described(f"repos/{repository}/environments/{quote(name, safe='')}", variables)
    if found is None:
        return None
    if not found:
        # GitHub answers 404 for what is not there and for what a stranger may not see.
        return Protection(exists=False) if described(f"repos/{repository}", variables) else None
    rules = [rule for rule in found.get("protection_rules") or [] if isinstance(rule, dict)]
    reviewers = [
        each
        for rule in rules
        if rule.get("type") == "required_reviewers"
        for each in rule.get("reviewers") or []
    ]
    return Protection(
        exists=True,
        reviewers=len(reviewers),
        limits_branches=isinstance(found.get("deployment_branch_policy"), dict),
    )
