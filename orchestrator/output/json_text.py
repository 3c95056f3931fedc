"""JSON as commands print it."""

import json
import math
from typing import Any


def json_text(value: Any) -> str:
    """Write a JSON object, safe in a workflow's log (no `##[name]`); a number without a JSON form is null."""
    try:
        # Most objects are finite and need no copy.
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=1, allow_nan=False)
    return text.replace("##[", "#\\u0023[")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
