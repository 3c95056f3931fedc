"""The event that started a workflow, and whether it may be trusted."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRUSTED_EVENTS = frozenset({"push", "workflow_dispatch", "schedule"})
"""Events that only a user with write access to the repository can cause, and whose code is the repository's own. On all
others, future ones included, nothing is spent or published."""


@dataclass(frozen=True, slots=True)
class WorkflowEvent:
    """What started the workflow. `payload` was written by others."""

    name: str
    repository: str = ""
    ref: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "WorkflowEvent":
        """Return the event that the runner's variables describe."""
        payload: Any = {}
        if path := environment.get("GITHUB_EVENT_PATH"):
            # An event without a payload is less known, never more trusted.
            with contextlib.suppress(OSError, ValueError):
                payload = json.loads(Path(path).read_text("utf-8"))
        return cls(
            name=environment.get("GITHUB_EVENT_NAME", ""),
            repository=environment.get("GITHUB_REPOSITORY", ""),
            ref=environment.get("GITHUB_REF", ""),
            payload=payload if isinstance(payload, dict) else {},
        )

    @property
    def is_trusted(self) -> bool:
        """Whether it is one of `TRUSTED_EVENTS`."""
        return self.name in TRUSTED_EVENTS

    @property
    def is_private(self) -> bool:
        """Whether only members see the repository and its releases."""
        repository = self.payload.get("repository")
        return isinstance(repository, dict) and repository.get("private") is True
