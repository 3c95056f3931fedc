"""`offload bootstrap`: creates everything that an account needs as one stack, after showing it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpu_offload.infra.account.policies import explained, policies
from gpu_offload.infra.account.site import ACCOUNT, PARTITION, Site
from gpu_offload.infra.account.stack import ChangeSet, Stacks
from gpu_offload.infra.account.template import template
from gpu_offload.infra.store.s3_credentials import is_elsewhere
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.table import terminal_width, wrapped

VARIABLES = {
    "OFFLOAD_LAUNCHER_ROLE": "LauncherRoleArn",
    "OFFLOAD_JANITOR_ROLE": "JanitorRoleArn",
    "OFFLOAD_PUBLISHER_ROLE": "PublisherRoleArn",
}
"""Repository variable -> output of the stack that it is set to."""


ABOUT = {
    "AWS::IAM::OIDCProvider": "Accepts GitHub's tokens, if the account does not yet.",
    "AWS::S3::Bucket": "Encrypted, versioned, kept when the stack goes. Old runs and versions expire.",
    "AWS::S3::BucketPolicy": "What the public may read. Models are written once.",
    "AWS::IAM::InstanceProfile": "Gives an instance its role.",
    "AWS::Budgets::Budget": "An e-mail when the month's costs near the budget. Only with --alert-email.",
}


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A stack to show or to create."""

    site: Site
    region: str
    plain_public: bool = False
    alert_email: str = ""
    monthly_budget_usd: int = 10

    @property
    def template(self) -> dict[str, Any]:
        """The CloudFormation template."""
        return template(self.site, plain_public=self.plain_public)

    def policies_text(self) -> str:
        """Return every statement of every policy after its reason and link."""
        return explained(policies(self.site, plain_public=self.plain_public))

    def parameters(self, *, has_provider: bool) -> dict[str, str]:
        """Return the template's parameters."""
        return {
            "CreateProvider": "false" if has_provider else "true",
            "AlertEmail": self.alert_email,
            "MonthlyBudgetUsd": str(self.monthly_budget_usd),
        }

    def outputs(self, made: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the stack's outputs: as `made`, or as expected, with ACCOUNT for the unknown account number."""
        site = self.site

        def known(arn: str) -> str:
            return arn.replace(ACCOUNT, "ACCOUNT").replace(PARTITION, "aws")

        return {
            "LauncherRoleArn": known(site.role("launcher")),
            "JanitorRoleArn": known(site.role("janitor")),
            "PublisherRoleArn": known(site.role("publisher")),
            "ScheduleRoleArn": known(site.role("scheduler")),
            "InstanceProfile": f"{site.name}-trainer",
            "StoreUrl": f"s3://{site.bucket}/{site.prefix}".rstrip("/"),
            **(made or {}),
        }

    def text(self) -> str:
        """Return the stack's description as text for people."""
        site = self.site
        lines = [
            f"would create the stack {site.name} in {self.region} for {site.repository}; this only prints.",
            "",
        ]
        for name, resource in self.template["Resources"].items():
            kind = resource["Type"]
            about = ABOUT.get(kind) or resource["Properties"].get("Description", "")
            first = f"  {kind.removeprefix('AWS::'):22} {name:16} "
            lines.append(wrapped(about, width=terminal_width(), indent=first, hanging=" " * len(first)))
        lines += ["", f"limits: {', '.join(site.instance_types)}; {' and '.join(site.markets)}"]
        lines.append(f"        in {', '.join(site.regions)}; disks to {site.max_volume_gib} GiB")
        lines.append(
            f"        images of {' and '.join(o.replace(ACCOUNT, 'this account') for o in site.image_owners)}"
        )
        lines += ["", "trusts:"]
        lines += [f"  launcher             {subject}" for subject in site.environment_subjects]
        lines += [f"  janitor, publisher   {subject}" for subject in site.branch_subjects]
        if site.owner_id is None:
            lines += [
                "",
                "warning: no role accepts a repository that was created, renamed or transferred",
                "since 15 July 2026 without GitHub's ids: give --owner-id and --repository-id, from",
                f"  gh api repos/{site.repository} --jq '.owner.id, .id'",
            ]
        if self.plain_public:
            lines += ["", "warning: --plain-public makes datasets, logs and checkpoints public, too."]
        lines += ["", "then:", *(f"  {line}" for line in self.afterwards())]
        lines += [
            "",
            "`--show-policies` shows each statement and why, `--print` the template, `--deploy` makes it.",
        ]
        return "\n".join(lines)

    def afterwards(self, outputs: Mapping[str, str] | None = None) -> list[str]:
        """Return the next steps once the stack exists, line by line."""
        found = self.outputs(outputs)
        site = self.site
        return [
            f"# in the repository's settings: an environment {site.environment!r} with required reviewers,",
            f"# limited to the branch {site.branch!r}; and the variables",
            *(
                f"gh variable set {name} --repo {site.repository} --body {found[key]}"
                for name, key in VARIABLES.items()
            ),
            f"gh variable set OFFLOAD_ENVIRONMENT --repo {site.repository} --body {site.environment}",
            "",
            "# in offload.toml",
            *self.toml(found).splitlines(),
            "",
            "# and then",
            "offload doctor",
        ]

    def toml(self, outputs: Mapping[str, str] | None = None) -> str:
        """Return the lines of `offload.toml` that use the stack; a store outside AWS stays as it is configured."""
        found = self.outputs(outputs)
        store = [
            "[store]",
            # A JSON string is a TOML string, too.
            f"url = {json.dumps(found['StoreUrl'])}",
            f"region = {json.dumps(self.region)}",
        ]
        return "\n".join(
            [
                *([] if is_elsewhere(self.site.endpoint_url) else store),
                "[ec2]",
                f"instance-profile = {json.dumps(found['InstanceProfile'])}",
                f"schedule-role = {json.dumps(found['ScheduleRoleArn'])}",
            ]
        )

    def json(self, outputs: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the documented JSON object."""
        site, found = asdict(self.site), self.outputs(outputs)
        return {
            "stack": self.site.name,
            "region": self.region,
            "deployed": outputs is not None,
            "site": {
                key: value for key, value in site.items() if key not in {"account", "partition", "name"}
            },
            "subjects": {
                "launcher": list(self.site.environment_subjects),
                "janitor": list(self.site.branch_subjects),
                "publisher": list(self.site.branch_subjects),
            },
            "template": self.template,
            "parameters": self.parameters(has_provider=False),
            "outputs": found,
            "variables": {name: found[key] for name, key in VARIABLES.items()},
            "toml": self.toml(outputs),
        }


def deploy(
    bootstrap: Bootstrap, console: Console, ask: Callable[[ChangeSet], bool], *, stacks: Stacks | None = None
) -> dict[str, str] | None:
    """Create or update the stack after `ask` approved the changes; return its outputs, None if it did not.

    Raises CloudError: AWS refused, or the stack failed.
    """
    stacks = stacks or Stacks(bootstrap.region)
    parameters = bootstrap.parameters(has_provider=stacks.has_provider())
    console.stage(f"preparing the stack {bootstrap.site.name} in {bootstrap.region}")
    change = stacks.prepare(bootstrap.site.name, bootstrap.template, parameters)
    if change is None:
        console.note("the stack is as it should be")
        return stacks.outputs(bootstrap.site.name)
    approved = False
    try:
        approved = ask(change)
    finally:
        if not approved:
            stacks.drop(change)
    if not approved:
        return None
    console.stage("making it; this takes a minute or two")
    return stacks.make(change, console.note)
