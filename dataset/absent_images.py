"""Images that annotations describe and that are not there."""

from dataclasses import dataclass, field
from typing import Final

from gpu_offload.dataset.conversion import Conversion, Location
from gpu_offload.dataset.finding import SHOWN_NAMES, counted, some

MAX_ABSENT: Final = 100_000
"""Images that a file describes and that are not there, after which the rest of it is not read."""


@dataclass
class AbsentImages:
    """Those of one file."""

    number: int = 0
    examples: list[str] = field(default_factory=list)
    """Some of them, one more than is shown."""
    line: int | None = None
    """Where the first one is described."""

    def add(self, written: str, line: int) -> None:
        """Count an image."""
        self.number += 1
        self.line = self.line or line
        if len(self.examples) <= SHOWN_NAMES:
            self.examples.append(written[:200])

    @property
    def is_full(self) -> bool:
        """Whether there are so many that the rest of the file is not read."""
        return self.number > MAX_ABSENT

    def report(self, file: str, conversion: Conversion, remedy: str) -> None:
        """Report all of them as one fault."""
        if self.number:
            number = f"more than {MAX_ABSENT} images" if self.is_full else counted(self.number, "image")
            verb = "is" if self.number == 1 else "are"
            message = f"describes {number} that {verb} not there ({some(self.examples)}); {remedy}"
            conversion.fail(Location(file, self.line), message, "missing-path")
