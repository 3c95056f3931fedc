"""The one base of every JSON document that crosses a process or a machine."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """An immutable document. Readers ignore fields that they do not know, which a newer version may have added.

    A change that older versions must not ignore gets another `format` number, which they refuse.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
