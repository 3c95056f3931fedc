"""The files below a dataset that are not trained on, counted by the reason."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from gpu_offload.dataset.finding import SHOWN_NAMES, printable, some


class Reason(StrEnum):
    """Why a file or folder is not trained on."""

    HIDDEN = "hidden"
    CACHE = "cache of a training tool"
    TOOL = "folder of a tool or an operating system"
    FORMAT = "format that is not read"
    OTHER = "neither picture nor label"
    ORPHAN = "label without a picture"
    UNNAMED = "not named by the dataset's description"
    OUTSIDE = "outside images/ in a repository"
    NOTE = "text about the dataset"
    REPEATED = "repeated line of an image list"
    CROWD = "region marked as a crowd"
    MASK = "picture of masks"
    PACKED = "archive or table that is not unpacked"


@dataclass
class Census:
    """How many files are left out for each reason, with the first names."""

    counts: dict[Reason, int] = field(default_factory=dict)
    examples: dict[Reason, list[str]] = field(default_factory=dict)

    def count(self, reason: Reason, name: str, number: int = 1) -> None:
        """Count a file; a folder's name ends in a slash and counts once."""
        self.counts[reason] = self.counts.get(reason, 0) + number
        examples = self.examples.setdefault(reason, [])
        if len(examples) <= SHOWN_NAMES:
            examples.append(name)

    def lines(self) -> Iterator[str]:
        """Yield a line for each reason."""
        for reason in Reason:
            if reason in self.counts:
                yield f"{self.counts[reason]} x {reason}: {printable(some(self.examples[reason]))}"
