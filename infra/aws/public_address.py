"""This machine's public address, the only one that the run's security group admits."""

import ipaddress

from gpu_offload.infra import http
from gpu_offload.infra.aws.errors import EndpointError, InvalidRequestError

CHECK_URL = "https://checkip.amazonaws.com"
TIMEOUT_S = 10


def public_cidr(override: str | None = None, *, url: str = CHECK_URL) -> str:
    """Return this machine's public IPv4 address as `A.B.C.D/32`.

    Args:
        override: An address or a network to admit instead (behind a proxy or a NAT with several addresses).
        url: An https service that answers with the caller's address in plain text.

    Raises:
        EndpointError: The service did not answer, or not with an address.
        InvalidRequestError: The override is no IPv4 network, or would admit every address.
    """
    if override:
        try:
            network = ipaddress.IPv4Network(override, strict=False)
        except ValueError as error:
            raise InvalidRequestError(
                f"ssh address {override!r}: {error}", remedy="write A.B.C.D or A.B.C.D/N"
            ) from None
        if network.prefixlen < 8:
            raise InvalidRequestError(
                f"ssh address {override!r} would admit {network.num_addresses:,} addresses",
                remedy="write the runner's own address, A.B.C.D/32",
            )
        return str(network)
    remedy = "check the network, or set the address to admit (ec2.ssh-cidr)"
    try:
        with http.ask(url, timeout=TIMEOUT_S, redirects=False) as reply:
            text = http.read(reply, limit=100).decode("ascii", "replace").strip()
    except http.UnsafeAddressError as error:
        raise InvalidRequestError(str(error), remedy="use an https address") from error
    except http.HttpError as error:
        raise EndpointError(f"asking {url} for this machine's address: {error}", remedy=remedy) from error
    try:
        return f"{ipaddress.IPv4Address(text)}/32"
    except ValueError:
        raise EndpointError(f"{url} answered {text!r}, which is no IPv4 address", remedy=remedy) from None
