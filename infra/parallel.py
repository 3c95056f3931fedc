"""One request for each of many items, a few at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 10
"""As many as botocore keeps connections open."""

FEW = 4
"""Up to this number, requests are sent one after the other: threads would gain nothing."""


def each(act: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the result of `act` for each item, in their order. After the first error, which is raised, none is begun."""
    items = list(items)
    if len(items) <= FEW:
        return [act(item) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(act, items))
