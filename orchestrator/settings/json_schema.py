"""The JSON schema of `offload.toml`, for editors: type and bounds of each value. `offload schema` prints it."""

import json
from typing import Any

from gpu_offload.orchestrator.settings.hyperparameters import model
from gpu_offload.orchestrator.settings.overrides import SETTINGS
from gpu_offload.orchestrator.settings.sections import Sections


def schema() -> dict[str, Any]:
    """Return the schema, a JSON Schema of draft 2020-12 without references."""
    raw = Sections.model_json_schema(by_alias=True)
    plain: dict[str, Any] = _plain(raw, raw.pop("$defs"))
    defaults = Sections.model_validate({"dataset": {"path": "."}}).model_dump(mode="json", by_alias=True)
    for path, kind in SETTINGS.items():
        node, value = plain, defaults
        for part in path:
            node, value = node["properties"][part], value[part]
        if kind != "section" and value is not None and path != ("dataset", "path"):
            node["default"] = value  # As a file writes it: pydantic formats durations differently.
    own = model().model_json_schema()["properties"].items()
    table = {
        name: {key: v for key, v in node.items() if key not in {"default", "title"}} for name, node in own
    }
    # Code of the user's own has hyperparameters of its own.
    plain["properties"]["training"] |= {
        "if": {"not": {"required": ["entrypoint"]}},
        "then": {"properties": {"hyperparameters": {"properties": table, "additionalProperties": False}}},
    }
    plain["properties"]["$schema"] = {"type": "string", "description": "Address of this schema, for editors."}
    # A file needs no section: the environment and the command line may give the path.
    plain.pop("required")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "offload.toml",
        **plain,
        "description": "Configuration of gpu-offload; in pyproject.toml the same stands below [tool.offload].",
    }


def schema_text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _plain(node: Any, definitions: dict[str, Any]) -> Any:
    """Write references out, and drop what TOML does not have (null) or readers do not need (titles)."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if reference := node.pop("$ref", None):
        node = definitions[reference.rpartition("/")[2]] | node
    if choices := node.pop("anyOf", None):
        # Of `X | None` only X is left, because TOML has no null.
        (only,) = (choice for choice in choices if choice != {"type": "null"})
        return _plain(only | {key: value for key, value in node.items() if value is not None}, definitions)
    if "properties" in node:
        node.pop("default", None)  # a section's is that of its settings
    if isinstance(node.get("title"), str):
        del node["title"]
    if isinstance(description := node.get("description"), str):
        node["description"] = " ".join(description.split())
    return {key: _plain(value, definitions) for key, value in node.items() if key != "$defs"}


if __name__ == "__main__":
    import sys

    sys.stdout.write(schema_text())
