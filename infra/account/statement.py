"""Policies as statements that say why they are there: who may do what, of all that our roles can."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

VERSION = "2012-10-17"

Conditions = Mapping[str, Mapping[str, str | tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy, with the reason for it and AWS's or GitHub's own words on it."""

    sid: str
    reason: str
    link: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ()
    """Empty in a trust policy: there it is the role that has it."""
    conditions: Conditions = field(default_factory=dict)
    effect: Literal["Allow", "Deny"] = "Allow"
    principal: Any = None

    def json(self) -> dict[str, Any]:
        """Return the statement as IAM wants it; the reason stays here, because IAM has no place for it."""
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
        """Return the document as IAM wants it."""
        return {"Version": VERSION, "Statement": [statement.json() for statement in self.statements]}


def _one_or_many(values: tuple[str, ...]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)
