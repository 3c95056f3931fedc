"""The base of all sections of `offload.toml`."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the configuration: immutable, and without unknown names."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        # Names in Python, aliases in a file, where `load` allows only these.
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )
