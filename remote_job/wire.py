"""The base of every JSON document that crosses a process or a machine."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gpu_offload.dataset.finding import printable

MOST = 10**9
"""Ceiling of counts and of seconds (30 years) that a training reports; more overflows what is computed from them."""

YEAR_9999 = 253_402_300_799.0
"""The last second that a calendar date can name, in Unix seconds."""

Count = Annotated[int, Field(ge=0, le=MOST)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
Seconds = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=YEAR_9999, allow_inf_nan=False)]
"""Unix seconds, of which a calendar date can be written."""

Text = Annotated[str, AfterValidator(lambda text: text.encode("utf-8", "backslashreplace").decode())]
"""Text of an exception, which may quote a file name that is not UTF-8: JSON cannot carry such a surrogate."""

_BOUNDS = {"greater_than_equal", "less_than_equal", "finite_number"}
"""Pydantic's names of the faults of a value that is out of its field's bounds."""

SHOWN = 3
"""Faults of a document that a message names."""

LONGEST = 200
"""Characters of a fault's text."""


class Wire(BaseModel):
    """An immutable document. Readers ignore fields that they do not know, which a newer version may have added.

    A change that older versions must not ignore gets another `format` number, which they refuse.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def measured(cls, **fields: Any) -> Self:
        """Return a document of values that were measured; those out of bounds are left out, so that a training goes on.

        Raises:
            ValidationError: a value has the wrong type, or a required one is out of bounds.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            faults = error.errors()
            if any(fault["type"] not in _BOUNDS for fault in faults):
                raise
            odd = {fault["loc"][0] for fault in faults}
            return cls(**{name: value for name, value in fields.items() if name not in odd})


def faults_text(error: ValidationError) -> str:
    """Say in a line what is wrong with a document: the first faults, each with its place."""
    faults = error.errors()[:SHOWN]
    texts = (f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in faults)
    # A key of the document is part of the place, and what it holds can be part of the message.
    return "; ".join(printable(text[:LONGEST]) for text in texts)
