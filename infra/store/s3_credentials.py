"""Credentials of S3 stores, inside and outside of AWS."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpu_offload.infra.store.errors import StoreCredentialsError

if TYPE_CHECKING:
    import boto3

STORE_KEYS = ("STORE_ACCESS_KEY_ID", "STORE_SECRET_ACCESS_KEY", "STORE_SESSION_TOKEN")
"""Variables with the keys of a store outside AWS; the last is not always there."""


def is_elsewhere(endpoint_url: str | None) -> bool:
    """Whether an S3 endpoint is outside AWS, where AWS roles are unknown."""
    host = urlsplit(endpoint_url or "").hostname
    return host is not None and not host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def store_keys(endpoint_url: str | None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables with a store's own keys; none for a store of AWS's, and where they are not set.

    Raises:
        StoreCredentialsError: There is a key's id without the key, or the other way round.
    """
    environ = os.environ if environ is None else environ
    found = {name: environ[name] for name in STORE_KEYS if environ.get(name)}
    if not found or not is_elsewhere(endpoint_url):
        return {}
    if missing := [name for name in STORE_KEYS[:2] if name not in found]:
        raise StoreCredentialsError(
            f"{missing[0]} is not set: set {' and '.join(STORE_KEYS[:2])} to the keys of the store"
        )
    return found


def open_store_session(
    endpoint_url: str | None, region: str | None = None, *, environ: Mapping[str, str] | None = None
) -> "boto3.Session":
    """Return the session to a store: with its own keys where it has some, else `open_session`.

    EC2 wants AWS's credentials and a store elsewhere its own; one process may need both.
    """
    import boto3

    from gpu_offload.infra.aws.credentials import open_session

    keys = store_keys(endpoint_url, environ)
    if not keys:
        return open_session(region, environ=environ)
    key_id, key, token = (keys.get(name) for name in STORE_KEYS)
    return boto3.Session(
        aws_access_key_id=key_id, aws_secret_access_key=key, aws_session_token=token, region_name=region
    )
