"""IAM's evaluation of policies, with the operators that our policies use.

A call is denied unless a statement allows it, and a `Deny` overrides every `Allow`. Within one account a bucket's policy
allows as the role's own does. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpu_offload.infra.account.role_trust import listed


@dataclass(frozen=True, slots=True)
class Request:
    """An action on a resource. `context` holds condition keys; a list is a multi-valued key."""

    action: str
    resource: str = "*"
    context: Mapping[str, Any] = field(default_factory=dict)


def allowed(documents: Iterable[Mapping[str, Any]], request: Request, *, public: bool = False) -> bool:
    """Return whether the policies allow it. With `public`, only statements for the public count: the call is not signed."""
    verdicts = {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if (not public or statement.get("Principal") == "*") and _applies(statement, request)
    }
    return verdicts == {"Allow"}


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    context = {key.lower(): value for key, value in request.context.items()}
    if not any(like(pattern.lower(), request.action.lower()) for pattern in listed(statement["Action"])):
        return False
    resources = listed(statement.get("Resource", "*"))
    if not any(like(_filled(pattern, context), request.resource) for pattern in resources):
        return False
    return all(
        _holds(operator, key, wanted, context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, key: str, wanted: Any, context: Mapping[str, Any]) -> bool:
    """Return whether one key of one operator of a condition holds: any of the wanted values will do."""
    quantifier, _, operator = operator.rpartition(":")
    texts = [_filled(value, context) for value in listed(wanted)]
    present = key.lower() in context
    if operator == "Null":
        return present == (texts == ["false"])
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    # A key that is missing matches negated operators, `...IfExists` and `ForAllValues`, and nothing else.
    if not present:
        return if_exists or quantifier == "ForAllValues" or "Not" in operator
    values = [str(value) for value in listed(context[key.lower()])]
    hits = [any(OPERATORS[operator](value, each) for each in texts) for value in values]
    return all(hits) if quantifier == "ForAllValues" else any(hits)


def like(pattern: str, text: str) -> bool:
    """Return whether a text matches IAM's wildcards: `*` is anything, slashes included; `?` is one character."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _arn_like(text: str, pattern: str) -> bool:
    """Match like `like`, but a wildcard in one of an ARN's first five parts does not reach into the next."""
    texts, patterns = text.split(":", 5), pattern.split(":", 5)
    return len(texts) == len(patterns) and all(map(like, patterns, texts))


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringNotEquals": lambda value, wanted: value != wanted,
    "StringLike": lambda value, wanted: like(wanted, value),
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "NumericEquals": lambda value, wanted: float(value) == float(wanted),
    "NumericLessThanEquals": lambda value, wanted: float(value) <= float(wanted),
}


def _filled(text: str, context: Mapping[str, Any]) -> str:
    """Replace policy variables; one without a value makes the text match nothing."""
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(context.get(found[1].lower(), "\0")), text)
