"""Names of schedules. Schedules have no tags, so a policy can distinguish stores only by the names."""

import hashlib
import re

PREFIX = "gpu-offload-"
NAME = re.compile(r"gpu-offload-(?P<run>.+)-a(?P<attempt>\d+)")
MAX_NAME = 64


def schedule_name(run: str, attempt: int, store: str = "") -> str:
    """Return the name of an attempt's schedule; a run whose name does not fit is named by its hash."""
    ending = f"-{store}-a{attempt}" if store else f"-a{attempt}"
    name = f"{PREFIX}{run}{ending}"
    if len(name) <= MAX_NAME and re.fullmatch(r"[0-9A-Za-z._-]+", run):
        return name
    return f"{PREFIX}{hashlib.sha256(run.encode()).hexdigest()[:24]}{ending}"


def schedule_pattern(store: str) -> str:
    """Return the pattern of the names of a store's schedules, with IAM's wildcard; `store` is its mark."""
    return f"{PREFIX}*-{store}-a*"
