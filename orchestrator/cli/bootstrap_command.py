"""`offload bootstrap`: what an AWS account needs."""

import os
from typing import TYPE_CHECKING, Any

import click

from gpu_offload.orchestrator.cli.options import (
    SettingsOptions,
    console_of,
    environment_option,
    json_option,
    print_json,
    repository_option,
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
@repository_option
@click.option(
    "--owner-id", type=click.IntRange(1), help="GitHub's numeric id of ORG. Default: read from GitHub."
)
@click.option(
    "--repository-id", type=click.IntRange(1), help="GitHub's numeric id of REPO. Default: read from GitHub."
)
@click.option(
    "--classic-subject",
    is_flag=True,
    help="Trust only the subject without ids, for repositories created before 15 July 2026 and never renamed.",
)
@click.option("--branch", default="main", show_default=True, help="The default branch.")
@environment_option
@click.option("--vpc", help="Allow launches only in this VPC, such as vpc-0123456789abcdef0.")
@click.option(
    "--job-workflow-ref",
    metavar="ORG/REPO/.github/workflows/FILE@REF",
    help="Give roles only to jobs of this workflow file. Default: any workflow of the repository.",
)
@click.option(
    "--bucket", help="The bucket. Default: that of store.url, or a name made from the repository's."
)
@click.option(
    "--name", default="gpu-offload", show_default=True, help="Name of the stack and prefix of the role names."
)
@click.option(
    "--region",
    help="Region of stack and bucket. Default: store.region of a bucket in AWS, or the first of ec2.regions.",
)
@click.option(
    "--alert-email", default="", help="Address for the alert that the month's costs approach the budget."
)
@click.option(
    "--monthly-budget-usd",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Budget of the alert, in USD per month.",
)
@click.option(
    "--plain-public", is_flag=True, help="Make everything in the bucket public, not only published models."
)
@click.option(
    "--separate-publisher",
    is_flag=True,
    help="Let only the publisher role publish, not the launcher and the janitor.",
)
@click.option("--print", "only_print", is_flag=True, help="Print the CloudFormation template.")
@click.option("--show-policies", is_flag=True, help="Print each policy statement with its reason and a link.")
@click.option("--deploy", "do_deploy", is_flag=True, help="Create or update the stack after confirmation.")
@click.option("--yes", is_flag=True, help="With --deploy: do not ask for confirmation.")
def bootstrap(
    given: SettingsOptions,
    repository: str | None,
    owner_id: int | None,
    repository_id: int | None,
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
    **fields: Any,
) -> None:
    """Show or create what an AWS account needs: roles, bucket and budget alarm.

    Without --deploy, AWS is not called and nothing is created.
    """
    from gpu_offload.infra.account.site import SiteError
    from gpu_offload.infra.github.repository import repository_of
    from gpu_offload.infra.store.s3_credentials import is_elsewhere
    from gpu_offload.orchestrator.account.bootstrap import Bootstrap
    from gpu_offload.orchestrator.account.site_settings import site_of

    if sum((only_print, show_policies, do_deploy)) > 1:
        raise click.UsageError("choose one of --print, --show-policies and --deploy")
    if yes and not do_deploy:
        raise click.UsageError("--yes belongs to --deploy; without it nothing is created")
    settings = _settings_if_any(given)
    repository = repository or repository_of(given.directory, os.environ)
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
            drivers_publish=not separate_publisher,
            # The other options are fields of the stack, by their names.
            **fields,
        )
    except SiteError as error:
        raise click.UsageError(
            "\n  ".join(["these values are not allowed in a policy:", *error.faults])
        ) from None
    # R2 calls its region "auto": a store outside AWS says nothing about where a stack can be.
    in_aws = settings is not None and not is_elsewhere(settings.store.endpoint_url)
    found = Bootstrap(
        site,
        region or (settings.store.region if settings and in_aws else None) or site.regions[0],
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
        try:
            return yes or click.confirm(f"{what} the stack {change.stack} in {found.region}?", err=True)
        except click.Abort as error:
            # Click aborts at the end of the input as it does at Ctrl-C.
            if isinstance(error.__context__, EOFError):
                raise click.UsageError("there is no input to confirm with: give --yes") from error
            raise

    outputs = deploy(found, console, ask)
    if outputs is None:
        raise click.ClickException("not confirmed: nothing was created or changed")
    if as_json:
        print_json(found.json(outputs))
    else:
        click.echo("\n".join(found.afterwards(outputs)))


def _settings_if_any(given: SettingsOptions) -> "Settings | None":
    from gpu_offload.orchestrator.settings.load import SettingsError

    try:
        return given.settings
    except SettingsError as error:
        # Without any file only the dataset is missing, and a stack needs none.
        if (
            given.config
            or given.sets
            or [fault for fault in error.faults if "dataset.path" not in str(fault)]
        ):
            raise
        return None


COMMANDS = (bootstrap,)
