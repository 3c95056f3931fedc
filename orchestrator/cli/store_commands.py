"""Commands about the contents of the store: usage, prune, site."""

from pathlib import Path

import click

from gpu_offload.orchestrator.cli.options import Answer, SettingsOptions, answers, writing


@click.command()
@answers
@click.option("--users", type=click.IntRange(0), default=100, help="Applications that start once a day.")
@click.option("--updates", type=click.IntRange(0), default=4, help="New models a month that they download.")
@click.option(
    "--tier",
    type=click.Choice(["s3-old", "s3", "r2", "releases", "folder"]),
    help="The free tier to compare with; by default that of the store's provider.",
)
def usage(given: SettingsOptions, users: int, updates: int, tier: str | None) -> Answer:
    """Show the contents of the store, and how many applications its free tier, if it has one, can serve."""
    from gpu_offload.infra.store.clock import clock_of
    from gpu_offload.orchestrator.cleanup.usage import TIERS, growth_of, tier_of
    from gpu_offload.orchestrator.cleanup.usage import usage as used
    from gpu_offload.orchestrator.registry.index import versions

    settings, store = given.settings, given.store
    free = TIERS[tier] if tier else tier_of(settings.store_url, settings.store.endpoint_url)
    entries = versions(store)
    # An application downloads the newest version that may be used.
    model = next((entry.size for entry in reversed(entries) if entry.is_usable), 0)
    growth = growth_of(entries, clock_of(store)())
    return used(store.list(""), free, model, users, updates, growth)


@click.command()
@answers
@click.option("--keep", type=click.IntRange(1), default=5, help="Number of newest versions to keep.")
@click.option("--days", type=click.FloatRange(0), default=30.0, help="Keep everything younger than this.")
@click.option(
    "--below", type=click.FloatRange(0), metavar="GB", help="Delete only until the store is below this size."
)
@click.option("--delete", is_flag=True, help="Delete; without this, only show what would be deleted.")
def prune(given: SettingsOptions, keep: int, days: float, below: float | None, *, delete: bool) -> Answer:
    """Delete versions, checkpoints and staged datasets that neither an alias nor an open run needs."""
    from gpu_offload.orchestrator.cleanup.prune import prune as act
    from gpu_offload.orchestrator.cleanup.retention import Retention

    policy = Retention(keep=keep, days=days, below=None if below is None else round(below * 10**9))
    return act(given.store, policy, delete=delete)


@click.command()
@answers
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--private", is_flag=True, help="Leave out the picture, which shows images of the dataset.")
def site(given: SettingsOptions, folder: Path | None, *, private: bool) -> Answer:
    """Write a page of the model and a feed of its versions to FOLDER, or to `site/` in the store."""
    from gpu_offload.orchestrator.site.write import write_site

    store, settings = given.store, given.settings
    with writing(folder or settings.root):
        return write_site(store, settings, folder, is_private=private)


COMMANDS = (usage, prune, site)
