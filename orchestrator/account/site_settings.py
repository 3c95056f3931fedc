"""The stack's parameters, derived from the settings."""

import re
from typing import Any

from gpu_offload.infra.account.site import ACCOUNT, Site
from gpu_offload.orchestrator.settings.load import Settings

MARKETS = {"spot": ("spot",), "on-demand": ("on-demand",), "spot-then-on-demand": ("spot", "on-demand")}

VOLUME_GIB = 100


def site_of(
    settings: Settings | None,
    repository: str,
    *,
    numbers: tuple[int, int] | None,
    bucket: str | None = None,
    **fields: Any,
) -> Site:
    """Return a stack's parameters: its roles allow exactly what the settings (None: the defaults) can ask for.

    `numbers` are GitHub's ids of owner and repository; `bucket` defaults to that of `store.url`, or one named after the
    repository. Raises SiteError: something cannot be in a policy.
    """
    limits: dict[str, Any] = {}
    prefix = ""
    if settings is not None:
        if settings.store.url.startswith("s3://"):
            configured, _, folder = settings.store.url.removeprefix("s3://").partition("/")
            if bucket in {None, configured}:
                bucket, prefix = configured, f"{folder.strip('/')}/".lstrip("/")
        image = settings.ec2.image
        limits = {
            "endpoint_url": settings.store.endpoint_url,
            "regions": tuple(settings.ec2.regions),
            "instance_types": tuple(settings.ec2.types),
            "markets": MARKETS[settings.ec2.market],
            "subnets": (settings.ec2.subnet,) if settings.ec2.subnet else (),
            # Some room, so that a larger ec2.volume-gib needs no new deployment.
            "max_volume_gib": max(VOLUME_GIB, settings.ec2.volume_gib),
            "image_owners": ("amazon",)
            if not image or image.startswith("/aws/service/")
            else ("amazon", ACCOUNT),
        }
    return Site(
        repository,
        bucket or bucket_name(repository),
        owner_id=numbers[0] if numbers else None,
        repository_id=numbers[1] if numbers else None,
        prefix=prefix,
        **limits,
        **fields,
    )


def bucket_name(repository: str) -> str:
    """Return a name for the bucket, made from the repository's: bucket names are global."""
    text = re.sub(r"[^a-z0-9]+", "-", f"{repository}-models".lower()).strip("-")
    # S3 allows 63 characters; the end is what differs between the repositories of one owner.
    return text[-63:].strip("-")
