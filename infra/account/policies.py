"""Every IAM policy of a stack."""

import json
import textwrap
from collections.abc import Iterable

from gpu_offload.infra.account.bucket import janitor_store, launcher_store, publisher_store, trainer_store
from gpu_offload.infra.account.bucket_policy import bucket_statements
from gpu_offload.infra.account.cleanup import janitor_compute, scheduler_compute
from gpu_offload.infra.account.launch import launcher_compute
from gpu_offload.infra.account.site import Site
from gpu_offload.infra.account.statement import Policy
from gpu_offload.infra.account.trust import (
    own_role,
    trust_branch,
    trust_environment,
    trust_instance,
    trust_scheduler,
)


def policies(site: Site, *, plain_public: bool = False) -> tuple[Policy, ...]:
    """Return every policy of a stack, in reading order; `plain_public` makes the whole bucket public."""
    return (
        Policy("launcher-trust", "who may become the launcher", trust_environment(site)),
        Policy(
            "launcher",
            "launches instances and drives them; behind an environment",
            (*launcher_compute(site), *launcher_store(site), own_role(site, "launcher")),
        ),
        Policy("janitor-trust", "who may become the janitor", trust_branch(site, "janitor")),
        Policy(
            "janitor",
            "finds and terminates tagged resources; never behind an approval",
            (*janitor_compute(site), *janitor_store(site), own_role(site, "janitor")),
        ),
        Policy("publisher-trust", "who may become the publisher", trust_branch(site, "publisher")),
        Policy(
            "publisher",
            "trains on the runner and publishes; launches nothing",
            (*publisher_store(site), own_role(site, "publisher")),
        ),
        Policy("trainer-trust", "who may become the trainer", trust_instance()),
        Policy("trainer", "the instance itself", trainer_store(site)),
        Policy("scheduler-trust", "who may become the scheduler", trust_scheduler(site)),
        Policy("scheduler", "terminates an instance at its deadline", scheduler_compute(site)),
        Policy("bucket", "attached to the bucket", bucket_statements(site, plain_public=plain_public)),
    )


def explained(found: Iterable[Policy]) -> str:
    """Return policies as text for a reader: each statement after its reason and link."""
    lines: list[str] = []
    for each in found:
        lines += [f"## {each.name}: {each.about}", ""]
        for statement in each.statements:
            lines += textwrap.wrap(statement.reason, 100, initial_indent="# ", subsequent_indent="# ")
            lines += [f"# {statement.link}", json.dumps(statement.json(), indent=1), ""]
    return "\n".join(lines)
