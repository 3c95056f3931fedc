"""The repository and commit that this code was built from, and addresses of its documentation there."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ORIGIN = Path(__file__).with_name("origin.json")
"""Written into a wheel when it is built, see setup.py; a checkout has none."""


@dataclass(frozen=True, slots=True)
class BuildOrigin:
    """A commit of a repository at GitHub."""

    repository: str
    commit: str


@cache
def origin(path: Path = ORIGIN) -> BuildOrigin | None:
    """Return what the build wrote into the wheel; None in a checkout, or after a build of uncommitted code."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return BuildOrigin(str(found["repository"]), str(found["commit"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def documentation(page: str, path: Path = ORIGIN) -> str:
    """Return where to read a page such as `gpu.md`: a link to the built commit, else its path in the repository."""
    known = origin(path)
    return (
        f"https://github.com/{known.repository}/blob/{known.commit}/docs/{page}" if known else f"docs/{page}"
    )
