"""Turns what the Hugging Face Hub's client raises into our errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,  # of the HTTP library that this version of the client uses
    OIDCError,
    RepositoryNotFoundError,
)

from gpu_offload.infra.store.errors import (
    StoreDeniedError,
    StoreError,
    StoreMissingError,
    StoreUnreachableError,
)

MOVED = {409, 412}
"""Statuses of a commit whose parent is not the newest any more."""

UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What its client raises at an answer of an unforeseen form, such as a proxy's page with status 200."""

EXCHANGE = "/oauth/token"
"""Where the Hub exchanges a workflow's identity for a token: https://huggingface.co/docs/hub/trusted-publishers"""


class MovedError(StoreError):
    """Another commit came first."""


@contextmanager
def hub_errors(url: str, key: str, settings: str) -> Iterator[None]:
    """Turn an error into a StoreError; `settings` is the address of the repository's settings.

    Raises MovedError where another commit came first.
    """
    where = f"{url}/{key}"
    try:
        yield
    except RepositoryNotFoundError as error:
        raise StoreMissingError(
            f"{url}: there is no such repository, or this token may not see it: make it on the Hub, and set HF_TOKEN"
        ) from error
    except OIDCError as error:
        raise StoreDeniedError(f"{url}: {error}") from error
    except HfHubHTTPError as error:
        raise _of_status(error, url, where, settings) from error
    except HTTPError as error:
        raise StoreUnreachableError(f"{where}: {error or type(error).__name__}; check the network") from error
    except UNREADABLE as error:
        raise StoreUnreachableError(
            f"{where}: an answer of the Hub cannot be read ({type(error).__name__}: {error}); run again in a minute"
        ) from error


def _of_status(error: HfHubHTTPError, url: str, where: str, settings: str) -> StoreError:
    status = error.response.status_code
    if status >= 500 or status == 429:
        return StoreUnreachableError(f"{where}: the Hub answers {status}; run again in a minute")
    if error.response.url.path == EXCHANGE:
        repository, branch = (os.environ.get(f"GITHUB_{name}", "...") for name in ("REPOSITORY", "REF_NAME"))
        return StoreDeniedError(
            f"{url}: the Hub gives this workflow no token (status {status}): under Trusted Publishers in {settings} "
            f"add GitHub Actions with repository = {repository} and branch = {branch}; or set HF_TOKEN"
        )
    if status in MOVED:
        return MovedError(f"{where}: another commit came first")
    if status in {401, 403}:
        return StoreDeniedError(f"{where}: the Hub answers {status}: set HF_TOKEN to one that may write")
    return StoreError(f"{where}: the Hub answers {status}: {error}")
