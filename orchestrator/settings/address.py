"""Addresses and paths in settings."""

import ipaddress
import re
from urllib.parse import urlsplit

from gpu_offload.infra.http import UnsafeAddressError, check_address
from gpu_offload.orchestrator.settings.fault import wrong


def check_path(value: str) -> str:
    """Validate a path in the repository."""
    if value.startswith("~"):
        raise wrong(f"{value!r}: `~` is not expanded", "write the folder relative to the configuration file")
    if "\\" in value:
        raise wrong(f"{value!r} contains a backslash", "separate folders by `/`")
    return value


def check_http_url(value: str) -> str:
    """Validate a web address."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise wrong(f"{value!r} is not a web address", "write https://HOST or https://HOST:PORT/PATH")
    if parts.username is not None or parts.password is not None:
        raise wrong("the address contains a user name or password", "give credentials in the environment")
    if parts.query or parts.fragment:
        raise wrong("the address contains `?` or `#`", "write it up to there")
    try:
        check_address(value)
    except UnsafeAddressError:
        # The store would refuse it too, but a public address is first used when the model is trained.
        raise wrong(
            f"{value!r} is not https: others on the network could change models", "write https://HOST"
        ) from None
    return value.rstrip("/")


_FILES_PATTERN = r"sftp://(?:[^\s@:/?#]+@)?[^\s@:/?#]+(?::\d{1,5})?/[^\s?#]+|fsspec\+[a-z0-9]+://[^\s?#]+|hf://[\w.-]+/[\w.-]+"
STORE_PATTERN = rf"file:.+|s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9](?:/.*)?|{_FILES_PATTERN}"


def check_store_url(value: str) -> str:
    """Validate the URL of a store."""
    if value.startswith("file:"):
        path = value.removeprefix("file:")
        # file://HOST/PATH is on another machine.
        if not path or (path.startswith("//") and not path.startswith("///")):
            raise wrong(f"{value!r} names no folder", "write file:FOLDER or file:/ABSOLUTE/FOLDER")
        return "file:" + check_path("/" + path.lstrip("/") if path.startswith("/") else path)
    # Before the pattern, whose message would repeat the password.
    if re.match(r"[a-z0-9+]+://[^/]*:[^/]*@", value):
        raise wrong("the store's address contains a password", "give SSH a key instead")
    if re.fullmatch(STORE_PATTERN, value, re.ASCII) is None:
        raise wrong(
            f"{value!r} is no store",
            "write file:FOLDER, s3://BUCKET/PREFIX, sftp://USER@HOST/PATH or hf://OWNER/REPOSITORY",
        )
    if not value.startswith("s3:"):
        return value.rstrip("/")
    prefix = value.removeprefix("s3://").partition("/")[2].rstrip("/")
    if prefix and not all(part not in {"", ".", ".."} for part in prefix.split("/")):
        raise wrong(f"the prefix {prefix!r} has an empty, `.` or `..` part", "write s3://BUCKET/PREFIX")
    if re.search(r"[\s?#\\]", prefix):
        raise wrong(
            f"the prefix {prefix!r} has a character that breaks addresses", "use letters, digits, - _ . /"
        )
    return value.rstrip("/")


def check_cidr(value: str) -> str:
    """Validate a range of IP addresses."""
    try:
        network = ipaddress.ip_network(value, strict=True)
    except ValueError as error:
        raise wrong(f"{value!r} is no address range: {error}", "write for example 203.0.113.7/32") from None
    if network.prefixlen == 0:
        raise wrong("the whole internet could reach the instance", "write your own address with /32")
    return value
