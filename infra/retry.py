"""Retries with exponential backoff and jitter, by stamina."""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import stamina

# stamina logs a warning for each retry, which Python prints where an application has set up no logging.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def contended(
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool], tries: int
) -> "Iterator[stamina.Attempt]":
    """Yield attempts of a conditional write that other writers win. The last error is raised as it is.

    The waits are mostly random, so that writers that collided do not collide again.
    """
    import stamina

    return iter(
        stamina.retry_context(
            on,
            attempts=tries,
            timeout=None,
            wait_initial=0.01,
            wait_exp_base=1.2,
            wait_max=2.0,
            wait_jitter=0.25,
        )
    )


def attempts(
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool],
    *,
    first: float,
    longest: float = 60.0,
    tries: int | None = 5,
    within: float | None = None,
) -> "Iterator[stamina.Attempt]":
    """Yield attempts; write `with attempt:` around the call. The last error is raised as it is.

    The waits double. A random part, up to half of the first one, keeps callers from colliding again.

    Args:
        on: errors, or a test for errors, that are worth another attempt.
        first: seconds before the second attempt.
        longest: seconds that no wait exceeds.
        tries: attempts at most; None for as many as there is time for.
        within: seconds after which no further attempt begins; 0 for one attempt.
    """
    import stamina

    # stamina takes a time-out of 0 for none at all.
    tries = 1 if within == 0 else tries
    return iter(
        stamina.retry_context(
            on,
            attempts=tries,
            timeout=within or None,
            wait_initial=first,
            wait_max=longest,
            wait_jitter=first / 2,
        )
    )
