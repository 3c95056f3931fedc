"""The kinds of training that we know."""

from enum import StrEnum


class Task(StrEnum):
    """What a model learns; the names are Ultralytics'."""

    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    CLASSIFY = "classify"
