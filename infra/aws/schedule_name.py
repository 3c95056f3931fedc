"""Names of schedules. Schedules have no tags, so a policy can distinguish stores only by the names."""

import hashlib
import re

PREFIX = "gpu-offload-"
NAME = re.compile(r"gpu-offload-(?P<run>.+)-a(?P<attempt>\d+)")
MAX_NAME = 64


def schedule_name(run: str, attempt: int, store: str = "") -> str:
    """Return the name of an attempt's schedule; a run whose name does not fit is named by its hash."""
    ending = f"-{store}-a" if store else "-a"
    # The same for every attempt, or a search by the run would miss some: three digits always have room.
    if len(f"{PREFIX}{run}{ending}999") > MAX_NAME or not re.fullmatch(r"[0-9A-Za-z._-]+", run):
        run = hashlib.sha256(run.encode()).hexdigest()[:24]
    return f"{PREFIX}{run}{ending}{attempt}"


def schedule_pattern(store: str) -> str:
    """Return the pattern of the names of a store's schedules, with IAM's wildcard; `store` is its mark."""
    return f"{PREFIX}*-{store}-a*"
