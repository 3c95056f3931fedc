"""Doctor's checks of one region: network, permissions, quotas."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from gpu_offload.orchestrator.account.checklist import Check
from gpu_offload.orchestrator.settings.load import Settings


def check_region(name: str, settings: Settings, *, probe: bool) -> Iterator[Check]:
    """Yield the checks of one region."""
    from gpu_offload.infra.aws.credentials import open_session
    from gpu_offload.infra.aws.ec2 import Ec2
    from gpu_offload.infra.aws.errors import CloudError
    from gpu_offload.infra.aws.image import find_image
    from gpu_offload.infra.aws.spot_market import SpotMarket

    # A session per thread: boto3 sessions are not thread-safe.
    session = open_session(name)
    yield from _quotas(name, SpotMarket(name, session=session), settings)
    ec2 = Ec2(name, session=session)
    image = subnet = None
    try:
        image = find_image(name, settings.ec2.image, session=session)
        yield Check(f"{name}: image", "green", f"{image.id}, {image.name}, of {image.owner}")
    except CloudError as error:
        yield failed(f"{name}: image", error)
    try:
        subnets = ec2.subnets()
        subnet = next(iter(subnets.values()), None)
        yield _network(name, tuple(subnets), settings)
        yield from _terminating(name, ec2, _mark(settings))
    except CloudError as error:
        yield failed(f"{name}: network", error)
    if not probe:
        yield Check(f"{name}: launching", "grey", "not tried: forbidden to, or by a role that rents nothing")
    elif image is not None and subnet is not None:
        yield _launching(name, ec2, image, subnet, settings)


def _network(name: str, zones: Sequence[str], settings: Settings) -> Check:
    if zones:
        return Check(f"{name}: network", "green", f"default subnets in {', '.join(zones)}")
    if settings.ec2.subnet is not None:
        return Check(f"{name}: network", "grey", f"no default subnet; {settings.ec2.subnet} is used")
    remedy = f"aws ec2 create-default-vpc --region {name}, or set ec2.subnet"
    return Check(f"{name}: network", "red", "there is no default subnet", remedy)


def _mark(settings: Settings) -> str:
    """Return the mark of the store, without which the launcher's role launches nothing and terminates nothing."""
    from gpu_offload.infra.aws.tags import store_mark

    return store_mark(settings.store_url, settings.store.endpoint_url)


def _terminating(name: str, ec2: Any, mark: str) -> Iterator[Check]:
    """Check terminating by a dry run; EC2 needs an existing instance for it, one of ours."""
    from gpu_offload.infra.aws.errors import CloudError

    ours = [found for found in ec2.find() if not found.ended and found.store in {None, mark}]
    if not ours:
        return
    try:
        ec2.check_termination(ours[0].id)
        yield Check(f"{name}: terminating", "green", f"we may ({len(ours)} of ours are alive there)")
    except CloudError as error:
        yield failed(f"{name}: terminating", error)


def _launching(name: str, ec2: Any, image: Any, subnet: Any, settings: Settings) -> Check:
    from gpu_offload.infra.aws.dry_run import try_launch
    from gpu_offload.infra.aws.errors import CloudError

    title, kind = f"{name}: launching", settings.ec2.types[0]
    market: Literal["spot", "on-demand"] = "on-demand" if settings.ec2.market == "on-demand" else "spot"
    try:
        try_launch(
            ec2,
            image,
            subnet,
            instance_type=kind,
            market=market,
            volume_gib=settings.ec2.volume_gib,
            instance_profile=settings.ec2.instance_profile,
            store=_mark(settings),
        )
    except CloudError as error:
        found = failed(title, error)
        return found if error.retry == "never" else replace(found, state="yellow")
    return Check(title, "green", f"we may launch {kind} ({market}); dry run, nothing was launched")


def _quotas(name: str, market: Any, settings: Settings) -> Iterator[Check]:
    from gpu_offload.infra.aws.errors import QuotaError
    from gpu_offload.infra.aws.spot_market import is_counted

    if not any(map(is_counted, settings.ec2.types)):
        return
    quotas = market.quotas()
    for label, value, used in (
        ("spot", quotas.spot_vcpus, settings.ec2.market != "on-demand"),
        ("on-demand", quotas.on_demand_vcpus, settings.ec2.market == "on-demand"),
    ):
        if not used:
            continue
        title = f"{name}: quota of {label} GPU vCPUs"
        if value is None:
            yield Check(
                title,
                "yellow",
                f"unknown: {quotas.reason}",
                "a new account's is 0; " + QuotaError.default_remedy.partition(";")[0],
            )
        # The smallest types with a GPU have 4 vCPUs.
        elif value < 4:
            yield Check(
                title, "red", f"{value:.0f}: not even the smallest instance starts", QuotaError.default_remedy
            )
        else:
            yield Check(title, "green", f"{value:.0f}")


def failed(name: str, error: Any) -> Check:
    """Return the line for a CloudError, its remedy apart from its message."""
    return Check(name, "red", str(error).removesuffix(f": {error.remedy}"), error.remedy)
