"""The runner of a GitHub workflow: the files and log commands by which a step reports to it."""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SUMMARY_LIMIT = 1024 * 1024
"""Bytes of summary that a step has; GitHub drops all of a longer one.
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#adding-a-job-summary"""

SECRETS = (
    "ACTIONS_RUNTIME_TOKEN",
    "STORE_ACCESS_KEY_ID",
    "STORE_SECRET_ACCESS_KEY",
    "STORE_SESSION_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "GPU_OFFLOAD_INPUT_TOKEN",
    "HF_TOKEN",
)
"""Variables whose values must show in no log."""


def command(name: str, text: str = "", **properties: str) -> str:
    """Return a workflow command as a log line.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{name}{' ' + given if given else ''}::{_data(text)}"


def _data(text: str) -> str:
    """Escape a command's text: nothing in it can end the line and begin a command of its own."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


@dataclass(frozen=True, slots=True)
class Runner:
    """The files that the runner reads at the end of a step."""

    environment: Mapping[str, str]

    def outputs(self, values: Mapping[str, str]) -> None:
        """Give the step outputs; no value can contain another output."""
        lines = []
        for name, value in values.items():
            # Random, because a value with a known delimiter in it could begin another output.
            mark = f"end-{secrets.token_hex(16)}"
            lines.append(f"{name}<<{mark}\n{value}\n{mark}\n")
        self._append("GITHUB_OUTPUT", "".join(lines))

    def summary(self, markdown: str) -> None:
        """Add to the step's summary. Raises ValueError: it is too long, and GitHub would drop it silently."""
        if len(markdown.encode()) > SUMMARY_LIMIT:
            raise ValueError(f"a summary of {len(markdown.encode()):,} bytes is more than GitHub keeps")
        self._append("GITHUB_STEP_SUMMARY", markdown.rstrip("\n") + "\n\n")

    @property
    def has_summary(self) -> bool:
        """Whether this step has written a summary; each step has a file of its own."""
        path = self.environment.get("GITHUB_STEP_SUMMARY")
        return bool(path) and Path(str(path)).is_file() and Path(str(path)).stat().st_size > 0

    def masks(self) -> Iterator[str]:
        """Yield the commands that keep secrets out of the log."""
        for name in SECRETS:
            if value := self.environment.get(name):
                yield command("add-mask", value)

    def _append(self, variable: str, text: str) -> None:
        if path := self.environment.get(variable):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(text)


def on_runner() -> bool:
    """Whether this process runs in a workflow."""
    return bool(os.environ.get("GITHUB_ACTIONS"))
