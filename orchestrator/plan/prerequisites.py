"""What must be set before an instance is rented."""

import os
from collections.abc import Mapping

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.s3_credentials import STORE_KEYS, is_elsewhere, store_keys
from gpu_offload.orchestrator.settings.load import Settings

SIMULATOR = "GPU_OFFLOAD_SIMULATOR"
"""Set by the simulated cloud for what runs inside it, with the next two."""


class RentingError(OffloadError):
    """The configuration does not allow training on EC2; the text says what to set."""


def check_renting(settings: Settings, environment: Mapping[str, str] | None = None) -> None:
    """Say everything that keeps an instance from training, before anything is begun. Raises RentingError."""
    environment = os.environ if environment is None else environment
    faults = []
    if is_elsewhere(settings.store.endpoint_url) and not store_keys(settings.store.endpoint_url, environment):
        faults.append(
            f"store.endpoint-url is not AWS's, where an instance's role counts for nothing: set {STORE_KEYS[0]} and "
            f"{STORE_KEYS[1]} to keys for this bucket only (docs/gpu.md says where they go)"
        )
    if not environment.get(SIMULATOR):
        faults += _account_faults(settings)
    if faults:
        raise RentingError("cannot train on EC2:\n" + "\n".join(f"  - {fault}" for fault in faults))


def _account_faults(settings: Settings) -> list[str]:
    faults = []
    if settings.store_url.startswith("file:"):
        faults.append(
            "store.url is a folder, which an instance cannot reach; set it to s3://BUCKET (`offload bootstrap` makes one)"
        )
    if settings.ec2.instance_profile is None:
        faults.append(
            "ec2.instance-profile is not set: without it an instance can read no dataset and write no checkpoint; "
            "`offload bootstrap` makes one"
        )
    return faults


def may_rent(settings: Settings, environment: Mapping[str, str] | None = None) -> bool:
    """Whether `check_renting` has nothing to say."""
    try:
        check_renting(settings, environment)
    except RentingError:
        return False
    return True
