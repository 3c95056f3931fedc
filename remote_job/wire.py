"""The one base of every JSON document that crosses a process or a machine."""

from pydantic import BaseModel, ConfigDict, ValidationError

SHOWN = 3
"""Faults of a document that a message names."""


class Wire(BaseModel):
    """An immutable document. Readers ignore fields that they do not know, which a newer version may have added.

    A change that older versions must not ignore gets another `format` number, which they refuse.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


def faults_text(error: ValidationError) -> str:
    """Say in a line what is wrong with a document: the first faults, each with its place."""
    faults = error.errors()[:SHOWN]
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in faults)
