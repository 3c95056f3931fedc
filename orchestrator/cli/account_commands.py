"""Commands about the account: bootstrap, doctor."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_offload.orchestrator.cli.options import (
    console_of,
    json_option,
    print_json,
    settings_of,
    settings_options,
    verbose_option,
)

if TYPE_CHECKING:
    from gpu_offload.infra.account.stack import ChangeSet
    from gpu_offload.orchestrator.account.bootstrap import Bootstrap
    from gpu_offload.orchestrator.output.console import Console
    from gpu_offload.orchestrator.settings.load import Settings


@click.command()
@settings_options
@json_option
@verbose_option
@click.option("--repository", metavar="ORG/REPO", help="By default the remote origin's.")
@click.option(
    "--owner-id", type=click.IntRange(1), help="GitHub's number of ORG; by default asked of GitHub."
)
@click.option("--repository-id", type=click.IntRange(1), help="GitHub's number of REPO; the same.")
@click.option(
    "--classic-subject",
    is_flag=True,
    help="Trust the subject without numbers only: for a repository of before 15 July 2026, never renamed since.",
)
@click.option("--branch", default="main", show_default=True, help="The default branch.")
@click.option(
    "--environment", default="gpu", show_default=True, help="The GitHub environment that guards spending."
)
@click.option("--vpc", help="The only network that launches may be in, such as vpc-0123456789abcdef0.")
@click.option(
    "--job-workflow-ref",
    metavar="ORG/REPO/.github/workflows/FILE@REF",
    help="The only workflow file whose jobs get a role; by default any of the repository's.",
)
@click.option("--bucket", help="By default the one of store.url, or one named after the repository.")
@click.option(
    "--name", default="gpu-offload", show_default=True, help="Of the stack; role names begin with it."
)
@click.option(
    "--region", help="The stack's and the bucket's; by default store.region, or the first of ec2.regions."
)
@click.option("--alert-email", default="", help="Who is told when the month's costs near the budget.")
@click.option("--monthly-budget-usd", type=click.IntRange(1), default=10, show_default=True)
@click.option("--plain-public", is_flag=True, help="The article's bucket policy: everything in it is public.")
@click.option("--separate-publisher", is_flag=True, help="Neither launcher nor janitor may publish.")
@click.option("--print", "only_print", is_flag=True, help="Print the CloudFormation template.")
@click.option("--show-policies", is_flag=True, help="Print each statement of each policy, why, and a link.")
@click.option("--deploy", "do_deploy", is_flag=True, help="Make or update the stack, after a question.")
@click.option("--yes", is_flag=True, help="With --deploy: do not ask.")
def bootstrap(
    directory: Path,
    config: Path | None,
    sets: tuple[str, ...],
    repository: str | None,
    owner_id: int | None,
    repository_id: int | None,
    branch: str,
    environment: str,
    vpc: str | None,
    job_workflow_ref: str | None,
    bucket: str | None,
    name: str,
    region: str | None,
    alert_email: str,
    monthly_budget_usd: int,
    *,
    as_json: bool,
    verbose: bool,
    classic_subject: bool,
    plain_public: bool,
    separate_publisher: bool,
    only_print: bool,
    show_policies: bool,
    do_deploy: bool,
    yes: bool,
) -> None:
    """Show or create what an AWS account needs: roles, bucket and budget alarm.

    Without --deploy nothing is asked of AWS and nothing is made.
    """
    from gpu_offload.infra.account.site import SiteError
    from gpu_offload.infra.github.repository import repository_of
    from gpu_offload.orchestrator.account.bootstrap import Bootstrap
    from gpu_offload.orchestrator.account.site_settings import site_of

    if sum((only_print, show_policies, do_deploy)) > 1:
        raise click.UsageError("choose one of --print, --show-policies and --deploy")
    settings = _settings_if_any(directory, config, sets)
    repository = repository or repository_of(directory, os.environ)
    if repository is None:
        raise click.UsageError(
            "which repository? Give --repository ORG/REPO (there is no remote origin at GitHub)"
        )
    numbers = _numbers(repository, owner_id, repository_id, classic=classic_subject, needed=do_deploy)
    try:
        site = site_of(
            settings,
            repository,
            numbers=numbers,
            bucket=bucket,
            branch=branch,
            environment=environment,
            name=name,
            vpc=vpc,
            job_workflow_ref=job_workflow_ref,
            drivers_publish=not separate_publisher,
        )
    except SiteError as error:
        raise click.UsageError(
            "\n  ".join(["these values are not allowed in a policy:", *error.faults])
        ) from None
    found = Bootstrap(
        site,
        region or (settings.store.region if settings else None) or site.regions[0],
        plain_public=plain_public,
        alert_email=alert_email,
        monthly_budget_usd=monthly_budget_usd,
    )
    if do_deploy:
        _deploy(found, console_of(verbose=verbose), yes=yes, as_json=as_json)
    elif as_json:
        print_json(found.json())
    elif only_print:
        print_json(found.template)
    else:
        click.echo(found.policies_text() if show_policies else found.text())


@click.command()
@settings_options
@json_option
@click.option("--repository", metavar="ORG/REPO", help="By default the remote origin's.")
@click.option("--role", "roles", multiple=True, metavar="ARN", help="Roles whose trust is looked at.")
@click.option(
    "--environment", default="gpu", show_default=True, help="GitHub's, that spending money is behind."
)
@click.option(
    "--no-probe", is_flag=True, help="Write nothing: no test object, no security group for dry runs."
)
def doctor(
    directory: Path,
    config: Path | None,
    sets: tuple[str, ...],
    repository: str | None,
    roles: tuple[str, ...],
    environment: str,
    *,
    as_json: bool,
    no_probe: bool,
) -> None:
    """Check everything that a run needs, each with its remedy. Exit code 1 if something is missing.

    What is written for a test (an object, a security group) is removed at once, and costs nothing.
    """
    from gpu_offload.orchestrator.account.doctor import examine
    from gpu_offload.orchestrator.output.table import terminal_width

    report = examine(
        directory.resolve(),
        lambda: settings_of(directory, config, sets),
        environment=os.environ,
        repository=repository,
        roles=roles,
        deployment=environment,
        probe=not no_probe,
    )
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if as_json:
        print_json(report.json())
    else:
        click.echo(report.text(colour=colour, width=terminal_width()))
    sys.exit(0 if report.ok else 1)


def _numbers(
    repository: str, owner_id: int | None, repository_id: int | None, *, classic: bool, needed: bool
) -> tuple[int, int] | None:
    """Return GitHub's numbers of owner and repository: as given, or from GitHub; None for the classic subject."""
    from gpu_offload.infra.github.repository import numbers_of

    if (owner_id is None) != (repository_id is None):
        raise click.UsageError("--owner-id and --repository-id belong together")
    if owner_id and repository_id:
        if classic:
            raise click.UsageError("--classic-subject leaves out the numbers; do not give them")
        return owner_id, repository_id
    if classic:
        return None
    found = numbers_of(repository, os.environ)
    if found is None and needed:
        raise click.UsageError(
            f"GitHub does not show the numbers of {repository}: give --owner-id and --repository-id as printed by "
            f"`gh api repos/{repository} --jq '.owner.id, .id'`, or --classic-subject"
        )
    return found


def _deploy(found: "Bootstrap", console: "Console", *, yes: bool, as_json: bool) -> None:
    from gpu_offload.orchestrator.account.bootstrap import deploy

    def ask(change: "ChangeSet") -> bool:
        for each in change.changes:
            click.echo(f"  {each}", err=True)
        what = "create" if change.new else "update"
        return yes or click.confirm(f"{what} the stack {change.stack} in {found.region}?", err=True)

    outputs = deploy(found, console, ask)
    if outputs is None:
        click.echo("nothing was made", err=True)
        sys.exit(1)
    if as_json:
        print_json(found.json(outputs))
    else:
        click.echo("\n".join(found.afterwards(outputs)))


def _settings_if_any(directory: Path, config: Path | None, sets: tuple[str, ...]) -> "Settings | None":
    """Load the settings; None where there is no configuration yet."""
    from gpu_offload.orchestrator.settings.load import SettingsError

    try:
        return settings_of(directory, config, sets)
    except SettingsError as error:
        # Without any file only the dataset is missing, and a stack needs none.
        if config or sets or [fault for fault in error.faults if "dataset.path" not in str(fault)]:
            raise
        return None


COMMANDS = (bootstrap, doctor)
