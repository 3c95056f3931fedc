"""A refused value with its remedy."""

from pydantic_core import PydanticCustomError


def wrong(message: str, remedy: str) -> PydanticCustomError:
    """Return a validator's error: the fault of the value, and what to write instead."""
    # Passed as context, not as the template: pydantic would fill in braces in the text.
    return PydanticCustomError("setting", "{text}", {"text": message, "remedy": remedy})
