"""HTTP for the few requests that no SDK makes: https only, safe redirects, bounded replies and times."""

import errno
import functools
import ipaddress
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any
from urllib.parse import urlsplit

from gpu_offload.client.model_client import Connector
from gpu_offload.errors import OffloadError

TIMEOUT_S = 30.0
"""Seconds that a server may take to connect, and then be silent in all, or slower than `SLOWEST`."""

SLOWEST = 10_000
"""Bytes a second."""

DOCUMENT = 16 << 20
"""Bytes that a document (JSON, an address) may have."""

CHUNK = 1 << 20
SAID = 500
"""Bytes of an error's body that its message quotes."""

BROKEN = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError)
NO_WAY = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET}
"""Errors of a connection whose network went away, for which Python has no class of their own."""


class HttpError(OffloadError):
    """The request failed; the text says for which address and why."""

    is_passing: bool = False
    """Whether the same request may succeed a little later."""


class UnsafeAddressError(HttpError):
    """Others on the network could read or change what is sent to this address."""


class StatusError(HttpError):
    """The server answered with an error, or with a redirect where none is followed."""

    def __init__(self, url: str, status: int, reason: str, said: str) -> None:
        self.status = status
        self.said = said
        self.is_passing = status in {408, 429} or status >= 500
        super().__init__(f"{shown(url)}: the server answers {status} {reason}".rstrip())


class NoAnswerError(HttpError):
    """The server could not be reached, or the connection broke."""

    is_passing = True

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(f"{shown(url)}: no answer ({reason})")


class TooLargeError(HttpError):
    """The reply is larger than what was asked for can be."""


def shown(url: str) -> str:
    """Return an address for a message: without a password, and without its query, which may hold a signature or a token."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])


@functools.cache
def user_agent() -> str:
    """Name this program. Many servers refuse urllib's own name, for example behind Cloudflare."""
    try:
        return f"gpu-offload/{version('gpu-offload')}"
    except PackageNotFoundError:
        return "gpu-offload"


def check_address(url: str) -> str:
    """Return the address if it is https, or this machine's own. Raises UnsafeAddressError."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # brackets that do not close
        raise UnsafeAddressError(f"{shown(url)}: not an https address ({error})") from None
    if parts.username is not None:
        raise UnsafeAddressError(f"{shown(url)}: write it without a user name and a password")
    if not parts.hostname or not (
        parts.scheme == "https" or (parts.scheme == "http" and _is_local(parts.hostname))
    ):
        raise UnsafeAddressError(f"{shown(url)}: not an https address")
    return url


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    secret: Mapping[str, str] | None = None,
    body: Any = None,
    timeout: float = TIMEOUT_S,
    redirects: bool = True,
    metadata: bool = False,
) -> Iterator[HTTPResponse]:
    """Send a request and yield the reply, to be read inside the block.

    Args:
        url: where; https, or http on this machine.
        method: GET, HEAD, POST ...
        headers: sent also to where the server redirects.
        secret: headers that only this address gets.
        body: bytes or a file.
        timeout: seconds to connect, and seconds in all that the server may be silent or slower than `SLOWEST`.
        redirects: whether to follow them; never from https to http.
        metadata: the address is the instance's metadata service, which has no https and no proxy before it.

    Raises:
        UnsafeAddressError: the address, or one it redirects to, is not https.
        StatusError: the status is not 2xx.
        NoAnswerError: the server could not be reached, or the connection broke.
    """
    if not metadata:
        check_address(url)
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)  # noqa: S310 - checked
    request.add_header("User-Agent", user_agent())
    # urllib repeats ordinary headers at the address that it is redirected to.
    for name, value in (secret or {}).items():
        request.add_unredirected_header(name, value)
    # An empty ProxyHandler: a proxy would ask the metadata service for its own machine's.
    handlers = [Redirects(follow=redirects), *([urllib.request.ProxyHandler({})] if metadata else [])]
    try:
        with _opened(request, handlers, timeout) as reply:
            yield reply
    except urllib.error.HTTPError as error:
        said = b""
        with suppress(OSError, HTTPException, ValueError), error:  # closed after a circle of redirects
            said = error.read(SAID)
        raise StatusError(url, error.code, str(error.reason), said.decode("utf-8", "replace")) from None
    except (*BROKEN, OSError) as error:
        # Other errors are those of a disk that the block writes to.
        if not isinstance(error, BROKEN) and error.errno not in NO_WAY:
            raise
        raise NoAnswerError(url, getattr(error, "reason", None) or error or type(error).__name__) from error


def _opened(
    request: urllib.request.Request, handlers: list[urllib.request.BaseHandler], timeout: float
) -> HTTPResponse:
    try:
        opener = Connector(timeout, SLOWEST).opener(*handlers)
        reply: HTTPResponse = opener.open(request, timeout=timeout)
    except ValueError as error:  # a redirect to what is no address, a header that cannot be read
        raise NoAnswerError(request.full_url, error) from error
    return reply


def length_of(reply: HTTPResponse) -> int | None:
    """Return the length that a reply announces; None where it does not. Raises NoAnswerError if it is no number."""
    announced = reply.headers.get("Content-Length")
    if announced is None:
        return None
    announced = announced.strip()
    # Not by int() alone, which takes signs, underscores and other scripts' digits, and refuses very long numbers.
    if not (announced.isascii() and announced.isdigit() and len(announced) <= 18):
        raise NoAnswerError(reply.url, "its Content-Length is not a number of bytes")
    return int(announced)


def chunks(reply: HTTPResponse, limit: int | None = None) -> Iterator[bytes]:
    """Yield a reply's content.

    Raises:
        TooLargeError: it has more than `limit` bytes.
        NoAnswerError: the connection ended before the announced length, of which http.client says nothing.
    """
    announced = length_of(reply)
    length = 0
    while chunk := reply.read1(CHUNK):  # which gives the server more time, as `Connector` says
        length += len(chunk)
        if limit is not None and length > limit:
            raise TooLargeError(f"{shown(reply.url)}: is larger than {limit:,} bytes")
        yield chunk
    if announced is not None and length != announced:
        raise NoAnswerError(reply.url, f"the connection ended after {length:,} of {announced} bytes")


def read(reply: HTTPResponse, limit: int = DOCUMENT) -> bytes:
    """Return a reply's whole content. Raises as `chunks`."""
    return b"".join(chunks(reply, limit))


class Redirects(urllib.request.HTTPRedirectHandler):
    """Looks at a redirect before it is followed."""

    def __init__(self, *, follow: bool) -> None:
        self._follow = follow

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request that follows the redirect; None to take the redirect as an error."""
        if not self._follow:
            return None  # urllib then raises the status as an error
        # `check_address` allows http on this machine, where an address of the internet must not lead.
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            fp.close()
            raise UnsafeAddressError(
                f"{shown(req.full_url)}: redirects to {shown(newurl)}, which is not https"
            )
        check_address(newurl)
        fp.close()  # else urllib reads the redirect's body to its end, however long it is
        return super().redirect_request(req, fp, code, msg, headers, newurl)
