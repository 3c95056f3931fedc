"""Settings written as the `offload.toml` that says the same."""

import pytest

from gpu_offload.orchestrator.settings.load import SettingsError, load_settings
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


def load(tmp_path, text=None, *sets, name="offload.toml", **environment):
    if text is not None:
        (tmp_path / name).write_text(text)
    return load_settings(tmp_path, overrides=sets, environment=environment)


def faults(tmp_path, text=None, *sets, **environment):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, *sets, **environment)
    assert all(fault.remedy for fault in caught.value.faults)
    return {fault.where: f"{fault.message}; {fault.remedy}" for fault in caught.value.faults}


MINIMUM = '[dataset]\npath = "raw"\n'
