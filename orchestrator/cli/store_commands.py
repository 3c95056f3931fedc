"""Commands about what the store holds: usage, prune, site."""

import time
from pathlib import Path

import click

from gpu_offload.orchestrator.cli.options import SettingsOptions, json_option, settings_options, show_answer


@click.command()
@settings_options
@json_option
@click.option("--users", type=click.IntRange(0), default=100, help="Applications that start once a day.")
@click.option("--updates", type=click.IntRange(0), default=4, help="New models a month that they download.")
@click.option(
    "--tier",
    type=click.Choice(["s3-old", "s3", "r2", "releases", "folder"]),
    help="The free tier to hold it against; by default that of the store's address.",
)
def usage(given: SettingsOptions, users: int, updates: int, tier: str | None, *, as_json: bool) -> None:
    """Show what the store holds, and how many applications its free tier, if it has one, carries."""
    from gpu_offload.orchestrator.cleanup.usage import TIERS, growth_of, tier_of
    from gpu_offload.orchestrator.cleanup.usage import usage as used
    from gpu_offload.orchestrator.registry.index import versions
    from gpu_offload.orchestrator.registry.stores import existing_store_of

    settings = given.settings
    store = existing_store_of(settings)
    free = TIERS[tier] if tier else tier_of(settings.store_url, settings.store.endpoint_url)
    entries = versions(store)
    model = next((entry.size for entry in reversed(entries)), 0)
    growth = growth_of(entries, time.time())
    show_answer(used(store.list(""), free, model, users, updates, growth), as_json=as_json)


@click.command()
@settings_options
@json_option
@click.option("--keep", type=click.IntRange(1), default=5, help="Newest versions that stay.")
@click.option("--days", type=click.FloatRange(0), default=30.0, help="What is younger stays.")
@click.option(
    "--below", type=click.FloatRange(0), metavar="GB", help="Delete only as much as brings the store below."
)
@click.option("--delete", is_flag=True, help="Do it; without this it only says what it would delete.")
def prune(
    given: SettingsOptions, keep: int, days: float, below: float | None, *, delete: bool, as_json: bool
) -> None:
    """Delete versions, checkpoints and staged datasets that neither an alias nor an open run needs."""
    from gpu_offload.orchestrator.cleanup.prune import prune as act
    from gpu_offload.orchestrator.cleanup.retention import Retention
    from gpu_offload.orchestrator.registry.stores import existing_store_of

    policy = Retention(keep=keep, days=days, below=None if below is None else round(below * 10**9))
    store = existing_store_of(given.settings)
    show_answer(act(store, policy, delete=delete), as_json=as_json)


@click.command()
@settings_options
@json_option
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--private", is_flag=True, help="Leave out the picture, which shows images of the dataset.")
def site(given: SettingsOptions, folder: Path | None, *, private: bool, as_json: bool) -> None:
    """Write a page of the model and a feed of its versions to FOLDER, or to `site/` in the store."""
    from gpu_offload.orchestrator.registry.stores import existing_store_of
    from gpu_offload.orchestrator.site.write import write_site

    settings = given.settings
    store = existing_store_of(settings)
    show_answer(write_site(store, settings, folder, is_private=private), as_json=as_json)


COMMANDS = (usage, prune, site)
