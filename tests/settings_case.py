"""Settings written as the `offload.toml` that says the same."""

from gpu_offload.orchestrator.settings.scaffold import toml_value
from gpu_offload.orchestrator.settings.sections import Section, Sections


def settings_toml(settings):
    """Write every setting that has a value, defaults included."""
    return "\n".join(
        line for name in Sections.model_fields for line in (f"[{name}]", *_lines(getattr(settings, name)), "")
    )


def _lines(section, prefix=""):
    plain = section.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name, info in type(section).model_fields.items():
        key, value = info.alias or name, getattr(section, name)
        if isinstance(value, Section):
            yield from _lines(value, f"{prefix}{key}.")
        elif key in plain:
            yield f"{prefix}{key} = {toml_value(plain[key])}"
