"""Names of schedules: by them alone a policy can tell one store's from another's, because schedules bear no tags."""

import hashlib
import re

PREFIX = "gpu-offload-"
NAME = re.compile(r"gpu-offload-(?P<run>.+)-a(?P<attempt>\d+)")
MAX_NAME = 64


def schedule_prefix(store: str) -> str:
    """Return what the names of a store's schedules begin with; `store` is its mark, or empty."""
    return f"{PREFIX}{store}-" if store else PREFIX


def schedule_name(run: str, attempt: int, store: str = "") -> str:
    """Return the name of an attempt's schedule; a run whose name does not fit is named by its hash."""
    prefix = schedule_prefix(store)
    name = f"{prefix}{run}-a{attempt}"
    if len(name) <= MAX_NAME and re.fullmatch(r"[0-9A-Za-z._-]+", run):
        return name
    return f"{prefix}{hashlib.sha256(run.encode()).hexdigest()[:24]}-a{attempt}"
