"""A refused value with its remedy."""

from pydantic_core import PydanticCustomError


def wrong(message: str, remedy: str) -> PydanticCustomError:
    """Return the error by which a validator refuses a value: what it is, and what to write instead."""
    # The texts are no templates: pydantic fills in what stands in braces.
    return PydanticCustomError("setting", "{text}", {"text": message, "remedy": remedy})
