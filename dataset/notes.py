"""Texts in a dataset that are no labels."""

from typing import Final

CLASSES_FILE: Final = "classes.txt"
"""Class names, one a line, as LabelImg and Label Studio leave them."""

_NOTES: Final = frozenset(
    {CLASSES_FILE, "readme.txt", "license.txt", "licence.txt", "readme.dataset.txt", "readme.roboflow.txt"}
)


def is_note(name: str) -> bool:
    """Whether a text, given by its path in the dataset, is for people or names the classes."""
    # LabelImg writes its list of classes into the folder of the labels.
    return name.lower() in _NOTES or name.endswith(f"/{CLASSES_FILE}")
