"""Faults of a configuration, and the errors that list them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import PydanticCustomError

from gpu_offload.errors import UsageError
from gpu_offload.orchestrator.settings.file import FILE_NAME, PYPROJECT, TABLE


def wrong(message: str, remedy: str) -> PydanticCustomError:
    """Return a validator's error: the fault of the value, and what to write instead."""
    # Passed as context, not as the template: pydantic would fill in braces in the text.
    return PydanticCustomError("setting", "{text}", {"text": message, "remedy": remedy})


MAX_SHOWN = 100
"""Faults that an error's text lists."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the configuration."""

    where: str
    """`offload.toml:7`, `--set training.epochs` or `OFFLOAD_TRAINING_EPOCHS`."""
    message: str
    remedy: str
    path: tuple[str | int, ...] = ()
    """The setting, where it is one."""

    def __str__(self) -> str:
        # `--set store.url` has said which setting it is.
        repeated = f"{self.where.removeprefix('--set ')}: " if self.where.startswith("--set ") else ""
        return f"{self.where}: {self.message.removeprefix(repeated)}; {self.remedy}"


class SettingsError(UsageError):
    """The configuration cannot be used; `faults` has every fault, in reading order."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        head = f"the configuration has {count} fault{'s' if count > 1 else ''}:"
        more = [f"  and {count - MAX_SHOWN} more"] if count > MAX_SHOWN else []
        super().__init__("\n".join([head, *(f"  {fault}" for fault in self.faults[:MAX_SHOWN]), *more]))
        self.remedy = "; ".join(dict.fromkeys(fault.remedy for fault in self.faults[:MAX_SHOWN]))


class NoConfigurationError(SettingsError):
    """There is no configuration file, and nothing else says where the dataset is."""

    def __init__(self, start: Path, fault: Fault) -> None:
        super().__init__([fault])
        self.remedy = "run `offload init` in the folder of your project, or -C FOLDER"
        self.args = (
            f"there is no {FILE_NAME}, and no [{'.'.join(TABLE)}] in a {PYPROJECT}, in {start} or above it: {self.remedy}",
        )
