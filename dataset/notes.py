"""Texts that are in a dataset for people, and no labels."""

from typing import Final

CLASSES_FILE: Final = "classes.txt"
"""Class names, one a line, as LabelImg and Label Studio leave them."""

_NOTES: Final = frozenset(
    {CLASSES_FILE, "readme.txt", "license.txt", "licence.txt", "readme.dataset.txt", "readme.roboflow.txt"}
)


def is_note(name: str) -> bool:
    """Whether a text at the top of a dataset is there for people, or names the classes."""
    return name.lower() in _NOTES
