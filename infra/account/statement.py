"""Policy statements with the reason for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

VERSION = "2012-10-17"

Conditions = Mapping[str, Mapping[str, str | tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy, with its reason and a link to AWS's or GitHub's documentation."""

    sid: str
    reason: str
    link: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ()
    """Empty in a trust policy, whose resource is its role."""
    conditions: Conditions = field(default_factory=dict)
    effect: Literal["Allow", "Deny"] = "Allow"
    principal: Any = None

    def json(self) -> dict[str, Any]:
        """Return the statement in IAM's form, which has no field for the reason."""
        found: dict[str, Any] = {"Sid": self.sid, "Effect": self.effect}
        if self.principal is not None:
            found["Principal"] = self.principal
        found["Action"] = _one_or_many(self.actions)
        if self.resources:
            found["Resource"] = _one_or_many(self.resources)
        if self.conditions:
            found["Condition"] = {
                operator: {
                    key: value if isinstance(value, str) else _one_or_many(value)
                    for key, value in keys.items()
                }
                for operator, keys in self.conditions.items()
            }
        return found


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy: what it is attached to, in words, and its statements."""

    name: str
    about: str
    statements: tuple[Statement, ...]

    def json(self) -> dict[str, Any]:
        """Return the document in IAM's form."""
        return {"Version": VERSION, "Statement": [statement.json() for statement in self.statements]}


def _one_or_many(values: tuple[str, ...]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)
