"""Changes the environment variables of this process for a while."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


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
