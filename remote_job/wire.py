"""The one base of every JSON document that crosses a process or a machine."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """An immutable document; an unknown field is an error, because it means another version wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
