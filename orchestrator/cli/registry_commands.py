"""Commands about published versions: models, promote, yank, rollback."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from gpu_offload.orchestrator.cli.command_group import CommandGroup
from gpu_offload.orchestrator.cli.options import Answer, SettingsOptions, answers

if TYPE_CHECKING:
    from gpu_offload.infra.store.protocol import ObjectStore

why_option = click.option("--why", required=True, metavar="TEXT", help="The reason, for the history.")


store_option = click.option(
    "--store",
    "source",
    metavar="URL",
    help="A store in place of the configuration's: a release of GitHub's, with GITHUB_TOKEN.",
)


def _store(given: SettingsOptions, source: str | None) -> "ObjectStore":
    from gpu_offload.orchestrator.registry.stores import store_to_change

    return given.store if source is None else store_to_change(source)


@click.group(cls=CommandGroup, invoke_without_command=True)
@answers
@click.pass_context
def models(context: click.Context, given: SettingsOptions) -> Answer | None:
    """List the published versions, newest first, and the versions that aliases point at."""
    from gpu_offload.orchestrator.registry.listing import listing

    return listing(given.store) if context.invoked_subcommand is None else None


@models.command()
@answers
@click.argument("version", default="stable")
def show(given: SettingsOptions, version: str) -> Answer:
    """Show everything about VERSION (a number, its digits, an alias; by default stable).

    Data, commit, settings, metrics, cost, and when aliases moved to it.
    """
    from gpu_offload.orchestrator.registry.listing import provenance
    from gpu_offload.orchestrator.registry.stores import public_address

    settings, store = given.settings, given.store
    return provenance(store, version, lambda key: public_address(settings, store, key))


@models.command()
@answers
@click.argument("old")
@click.argument("new")
def diff(given: SettingsOptions, old: str, new: str) -> Answer:
    """Compare two versions: data added and removed, settings, metrics, by class too."""
    from gpu_offload.orchestrator.registry.difference import difference

    return difference(given.store, old, new, dataset=given.settings.dataset_path)


@models.command()
@answers
@click.argument("alias", default="stable")
@click.option(
    "--at",
    metavar="TIME",
    help="Only the version at that time: 2026-03-03 (the end of that day, UTC), or with a time.",
)
def history(given: SettingsOptions, alias: str, at: str | None) -> Answer:
    """Show the versions that ALIAS (by default stable) pointed at, each with its time, author and reason."""
    from gpu_offload.orchestrator.registry import listing

    time = moment(at) if at else None
    return listing.history(given.store, alias, time)


def moment(text: str) -> float:
    """Read a day, or a day and a time, in UTC unless it says otherwise; a day alone means its end."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--at {text}: write 2026-03-03, or 2026-03-03T14:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    # Shorter still is a day in ISO's basic form, 20260303.
    if len(text) <= len("2026-03-03"):
        found += timedelta(days=1, microseconds=-1)
    return found.timestamp()


@click.command()
@answers
@store_option
@click.argument("version")
@click.option("--why", default="by hand", metavar="TEXT", help="The reason, for the history.")
@click.option(
    "--rollout",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    metavar="PERCENT",
    help="Only for this share of installations; the others keep the version before. Repeat it later with a larger share.",
)
@click.option("--minimum", metavar="VERSION", help="The lowest version that installations may still use.")
def promote(
    given: SettingsOptions, version: str, why: str, rollout: float, minimum: str | None, source: str | None
) -> Answer:
    """Point `stable` at VERSION, such as a candidate."""
    from gpu_offload.orchestrator.registry.promote import promote as act

    return act(_store(given, source), version, why=why, rollout=rollout / 100, minimum=minimum)


@click.command()
@answers
@store_option
@click.argument("version")
@why_option
@click.option("--undo", is_flag=True, help="Allow VERSION again; no alias moves.")
def yank(given: SettingsOptions, version: str, why: str, source: str | None, *, undo: bool) -> Answer:
    """Withdraw VERSION: its aliases return to the version before, and applications follow. Its files stay."""
    from gpu_offload.orchestrator.registry.promote import yank as act

    return act(_store(given, source), version, why=why, undo=undo)


@click.command()
@answers
@store_option
@click.option("--to", metavar="VERSION", help="The version to go back to; by default the one before.")
@why_option
def rollback(given: SettingsOptions, to: str | None, why: str, source: str | None) -> Answer:
    """Withdraw the stable version, and point `stable` at the version before.

    A training that began before the rollback is published as a candidate.
    """
    from gpu_offload.orchestrator.registry.promote import rollback as act

    return act(_store(given, source), to, why=why)


COMMANDS = (models, promote, yank, rollback)
