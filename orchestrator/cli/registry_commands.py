"""Commands about published versions: models, promote, yank, rollback."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from gpu_offload.orchestrator.cli.options import SettingsOptions, json_option, settings_options, show_answer

if TYPE_CHECKING:
    from gpu_offload.infra.store.protocol import ObjectStore

why_option = click.option("--why", required=True, metavar="TEXT", help="The reason, for the history.")


store_option = click.option(
    "--store",
    "source",
    metavar="URL",
    help="A store in place of the configuration's: a release of GitHub's, with GITHUB_TOKEN.",
)


def _store(given: SettingsOptions, source: str | None = None) -> "ObjectStore":
    from gpu_offload.orchestrator.registry.stores import existing_store_of, store_to_change

    return existing_store_of(given.settings) if source is None else store_to_change(source)


@click.group(invoke_without_command=True)
@settings_options
@json_option
@click.pass_context
def models(context: click.Context, given: SettingsOptions, *, as_json: bool) -> None:
    """List the published versions, newest first, and what the aliases mean."""
    if context.invoked_subcommand is None:
        from gpu_offload.orchestrator.registry.listing import listing

        show_answer(listing(_store(given)), as_json=as_json)


@models.command()
@settings_options
@json_option
@click.argument("version", default="stable")
def show(given: SettingsOptions, version: str, *, as_json: bool) -> None:
    """Show everything about VERSION (a number, its digits, an alias; by default stable).

    Data, commit, settings, metrics, cost, and when aliases moved to it.
    """
    from gpu_offload.orchestrator.registry.listing import provenance
    from gpu_offload.orchestrator.registry.stores import existing_store_of, public_address

    settings = given.settings
    store = existing_store_of(settings)
    found = provenance(store, version, lambda key: public_address(settings, store, key))
    show_answer(found, as_json=as_json)


@models.command()
@settings_options
@json_option
@click.argument("old")
@click.argument("new")
def diff(given: SettingsOptions, old: str, new: str, *, as_json: bool) -> None:
    """Compare two versions: data added and removed, settings, metrics, by class too."""
    from gpu_offload.orchestrator.registry.difference import difference
    from gpu_offload.orchestrator.registry.stores import existing_store_of

    settings = given.settings
    show_answer(
        difference(existing_store_of(settings), old, new, dataset=settings.dataset_path), as_json=as_json
    )


@models.command()
@settings_options
@json_option
@click.argument("alias", default="stable")
@click.option(
    "--at",
    metavar="TIME",
    help="Only what it meant then: 2026-03-03 (the end of that day, UTC), or with a time.",
)
def history(given: SettingsOptions, alias: str, at: str | None, *, as_json: bool) -> None:
    """Show what ALIAS (stable by default) meant, since when, by whom and why."""
    from gpu_offload.orchestrator.registry import listing

    time = moment(at) if at else None
    show_answer(listing.history(_store(given), alias, time), as_json=as_json)


def moment(text: str) -> float:
    """Read a day, or a day and a time, in UTC unless it says otherwise; a day alone means its end."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--at {text}: write 2026-03-03, or 2026-03-03T14:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    if len(text.strip()) <= len("2026-03-03"):
        found += timedelta(days=1, microseconds=-1)
    return found.timestamp()


@click.command()
@settings_options
@json_option
@store_option
@click.argument("version")
@click.option("--why", default="by hand", metavar="TEXT", help="The reason, for the history.")
@click.option(
    "--rollout",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    metavar="PERCENT",
    help="Only for this share of installations; the others stay with the version before. Again with more, later.",
)
@click.option("--minimum", metavar="VERSION", help="Installations must not use a lower version any more.")
def promote(
    given: SettingsOptions,
    version: str,
    why: str,
    rollout: float,
    minimum: str | None,
    source: str | None,
    *,
    as_json: bool,
) -> None:
    """Let `stable` mean VERSION, a candidate for example."""
    from gpu_offload.orchestrator.registry.promote import promote as act

    store = _store(given, source)
    show_answer(act(store, version, why=why, rollout=rollout / 100, minimum=minimum), as_json=as_json)


@click.command()
@settings_options
@json_option
@store_option
@click.argument("version")
@why_option
@click.option("--undo", is_flag=True, help="It may be used after all; aliases stay where they are.")
def yank(
    given: SettingsOptions, version: str, why: str, source: str | None, *, undo: bool, as_json: bool
) -> None:
    """Withdraw VERSION: applications leave it, and aliases go to the version before. Its files stay."""
    from gpu_offload.orchestrator.registry.promote import yank as act

    show_answer(act(_store(given, source), version, why=why, undo=undo), as_json=as_json)


@click.command()
@settings_options
@json_option
@store_option
@click.option("--to", metavar="VERSION", help="The version to go back to; by default the one before.")
@why_option
def rollback(given: SettingsOptions, to: str | None, why: str, source: str | None, *, as_json: bool) -> None:
    """Withdraw what `stable` means, and let it mean the version before.

    A training that began before is published as a candidate.
    """
    from gpu_offload.orchestrator.registry.promote import rollback as act

    show_answer(act(_store(given, source), to, why=why), as_json=as_json)


COMMANDS = (models, promote, yank, rollback)
