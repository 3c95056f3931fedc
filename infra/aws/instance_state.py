"""EC2's states of an instance."""

from typing import Literal

InstanceState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]

UP = frozenset({"pending", "running"})
"""The instance runs or starts."""

ENDED = frozenset({"shutting-down", "terminated"})
"""The instance costs nothing any more and cannot come back."""
