"""A store's usage against its free tier."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.cleanup.retention import DAY_S, GB
from gpu_offload.orchestrator.cost.prices import R2, S3, StorePrices
from gpu_offload.orchestrator.output.table import terminal_width, text_table, wrapped
from gpu_offload.orchestrator.output.units import human_bytes, human_cost
from gpu_offload.orchestrator.registry.manifest import IndexEntry

MONTH_DAYS = 30
NEARLY_FULL = 0.8
"""Share of a tier that triggers a warning."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A store's monthly free tier: storage, reading requests, bytes to the internet; None: no limit."""

    name: str
    storage: int | None = None
    gets: int | None = None
    egress: int | None = None
    prices: StorePrices | None = None
    """Of what is beyond it; None where they are not known, or nothing is charged."""


TIERS = {
    "s3-old": Tier("S3, accounts opened before 15 July 2025, first 12 months", 5 * GB, 20_000, 100 * GB, S3),
    "s3": Tier(
        "S3, accounts opened since 15 July 2025: credits for storage, 100 GB egress", None, None, 100 * GB, S3
    ),
    "r2": Tier("Cloudflare R2", 10 * GB, 10_000_000, None, R2),
    "releases": Tier("GitHub releases: 2 GiB a file, no limit on transfer"),
    "folder": Tier("a folder has no limit but its disk"),
}
"""https://aws.amazon.com/free, https://developers.cloudflare.com/r2/pricing,
https://docs.github.com/repositories/releasing-projects-on-github/about-releases."""

REQUESTS_A_DOWNLOAD = 2
"""The alias and the model; see `gpu_offload.client`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A store's content, and the traffic of `users` applications that each download `updates` models a month."""

    tier: Tier
    storage: int
    parts: dict[str, tuple[int, int]]
    """Objects and bytes by first part of the key."""
    model: int
    users: int
    updates: int
    growth: float = 0.0

    @property
    def cost_usd(self) -> float | None:
        """US dollars a month beyond the free tier, None where there are no prices. A limit that is not named is none."""
        prices, tier = self.tier.prices, self.tier
        if prices is None:
            return None
        storage, gets, egress = (
            Decimal(max(0, used - (free or 0)))
            for used, free in (
                (self.storage, tier.storage),
                (self.gets, tier.gets),
                (self.egress, tier.egress),
            )
        )
        return float(
            storage / GB * prices.storage_gb_month
            + gets / 1000 * prices.gets_1000
            + egress / GB * prices.egress_gb
        )

    @property
    def full_in_days(self) -> float | None:
        """Days until the free storage is full at this growth; None where it has no limit, or does not grow."""
        if self.tier.storage is None or self.growth <= 0:
            return None
        return max(0.0, (self.tier.storage - self.storage) / self.growth * MONTH_DAYS)

    @property
    def gets(self) -> int:
        """Requests a month: one check a day, and two for a download."""
        return self.users * (MONTH_DAYS + (REQUESTS_A_DOWNLOAD - 1) * self.updates)

    @property
    def egress(self) -> int:
        """Bytes a month."""
        return self.users * self.updates * self.model

    def rows(self) -> list[tuple[str, int, int | None]]:
        """Return what is used and what is free, by name."""
        tier = self.tier
        return [
            ("storage, bytes", self.storage, tier.storage),
            ("requests a month", self.gets, tier.gets),
            ("transfer a month, bytes", self.egress, tier.egress),
        ]

    @property
    def most_users(self) -> int | None:
        """How many applications the free tier carries at this rate; None: no limit."""
        one = replace(self, users=1)
        limits = ((self.tier.gets, one.gets), (self.tier.egress, one.egress))
        return min((free // each for free, each in limits if free is not None and each), default=None)

    def warnings(self) -> list[str]:
        """Return what is above four fifths of the tier."""
        return [
            f"{name}: {used / free:.0%} of what is free ({self.tier.name})"
            for name, used, free in self.rows()
            if free is not None and used >= NEARLY_FULL * free
        ]

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "tier": self.tier.name,
            "storage": self.storage,
            "parts": {name: {"objects": n, "bytes": size} for name, (n, size) in self.parts.items()},
            "model_bytes": self.model,
            "users": self.users,
            "updates_a_month": self.updates,
            "month": {name: {"used": used, "free": free} for name, used, free in self.rows()},
            "most_users": self.most_users,
            "cost_usd": self.cost_usd,
            "growth_bytes": round(self.growth),
            "full_in_days": self.full_in_days,
            "warnings": self.warnings(),
        }

    def text(self) -> str:
        """Return the usage as text."""
        held = [("in the store", "objects", "bytes")]
        held += [(name, f"{n:,}", human_bytes(size)) for name, (n, size) in sorted(self.parts.items())]
        month = [("a month", "used", "free")]
        for name, used, free in self.rows():
            show = human_bytes if "bytes" in name else "{:,}".format
            month.append(
                (name.removesuffix(", bytes"), show(used), "no limit" if free is None else show(free))
            )
        width = terminal_width()
        users = (
            f"{self.users:,} applications that look once a day and download {human_bytes(self.model)} "
            f"{self.updates} times a month"
        )
        lines = [text_table(held, width=width), ""]
        if any(free is not None for _, _, free in self.rows()):
            most = "any number of" if self.most_users is None else f"{self.most_users:,}"
            lines += [
                wrapped(f"{users}, against {self.tier.name}:", width=width),
                text_table(month, width=width),
                f"the free tier carries {most} applications at this rate",
            ]
            if (cost := self.cost_usd) is not None:
                lines.append(f"beyond it this costs {human_cost(cost)} a month, at list prices")
            if (days := self.full_in_days) is not None:
                lines.append(
                    f"the store grows by {human_bytes(round(self.growth))} a month: its storage is full in {days:,.0f} days"
                )
        else:
            text = wrapped(f"{users}; {self.tier.name}:", width=width)
            lines += [text, text_table([row[:2] for row in month], width=width)]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings())])


def growth_of(entries: Sequence[IndexEntry], now: float) -> float:
    """Return the bytes of models, exports included, that a month brought since the first version, or in the first month.

    What was deleted takes none.
    """
    if not entries:
        return 0.0
    months = max(1.0, (now - min(entry.created_at for entry in entries)) / (MONTH_DAYS * DAY_S))
    there = (entry for entry in entries if not entry.deleted)
    return sum(e.size + sum(file.size for file in e.exports.values()) for e in there) / months


def usage(
    objects: Iterable[ObjectInfo], tier: Tier, model: int, users: int, updates: int, growth: float = 0.0
) -> Usage:
    """Add up a store's listing."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for info in objects:
        part = info.key.partition("/")[0]
        count[part] += 1
        size[part] += info.size
    parts = {name: (count[name], size[name]) for name in count}
    return Usage(tier, sum(size.values()), parts, model, users, updates, growth)


def tier_of(store_url: str, endpoint_url: str | None) -> Tier:
    """Return the free tier of the store in use: by its address."""
    scheme = store_url.partition(":")[0]
    if scheme != "s3":
        return (
            TIERS["folder"] if scheme == "file" else Tier(f"the limits of a store by {scheme} are not known")
        )
    host = urlsplit(endpoint_url or "").hostname or ""
    if host.endswith(".r2.cloudflarestorage.com"):
        return TIERS["r2"]
    return (
        TIERS["s3"]
        if not host or host.endswith(".amazonaws.com")
        else Tier(f"the limits of {host} are not known")
    )
