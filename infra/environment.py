"""Environment variables: replaced for a while, and checked for half a pair of AWS keys."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def half_credential(variables: Mapping[str, str]) -> str | None:
    """Return a sentence about the missing half of a pair of AWS keys; None where both are set, or neither."""
    given = [name for name in AWS_KEYS if variables.get(name)]
    if len(given) != 1:
        return None
    (missing,) = set(AWS_KEYS) - set(given)
    return f"{given[0]} is set and {missing} is not: set both, or neither"


@contextmanager
def replaced_environment(variables: Mapping[str, str], hidden: Sequence[str]) -> Iterator[None]:
    """Set `variables` and remove `hidden` ones, for this process and its children; restore all of them at the end."""
    before = {name: os.environ.get(name) for name in (*variables, *hidden)}
    for name in hidden:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
