"""One step of a workflow: its inputs, event, runner, console and settings."""

from dataclasses import dataclass
from typing import Literal

from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import WorkflowInputs
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.settings.load import Settings


@dataclass
class Step:
    """What every command of the action works with."""

    inputs: WorkflowInputs
    event: WorkflowEvent
    runner: Runner
    console: GitHubConsole
    settings: Settings


def flag(value: bool) -> Literal["true", "false"]:
    """Write a truth value as GitHub's expressions compare it."""
    return "true" if value else "false"
