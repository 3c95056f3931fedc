"""The action's entry point: runs the command that the step's inputs name, and reports to the runner.

Inputs come in variables and never in a script's text, so that a text of others never becomes code.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.errors import EXIT_FAILED, EXIT_RESUMABLE, OffloadError, UsageError
from gpu_offload.errors.disk import disk_error
from gpu_offload.orchestrator.github.annotations import SHOWN, annotations_of
from gpu_offload.orchestrator.github.cleanup_step import stop, tend
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import WorkflowInputs
from gpu_offload.orchestrator.github.keep_step import keep, pack
from gpu_offload.orchestrator.github.plan_step import plan
from gpu_offload.orchestrator.github.rollback_step import find_revert, rollback, rollback_in_release
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.github.small_summaries import faults_summary, trouble_summary
from gpu_offload.orchestrator.github.step import Step
from gpu_offload.orchestrator.github.train_step import train
from gpu_offload.orchestrator.settings.load import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpu_offload.orchestrator.settings.fault import Fault

COMMANDS: "Mapping[str, Callable[[Step], int]]" = {
    "plan": plan,
    "train": train,
    "pack": pack,
    "find-revert": find_revert,
    "rollback": rollback,
    "stop": stop,
    "tend": tend,
}


def run(step: Step) -> int:
    """Run the command that the inputs name; return its exit code. Raises UsageError."""
    command = step.inputs.command
    if command != "plan" and not step.event.is_trusted:
        raise UsageError(
            f"'{command}' does not run on {step.event.name or 'an unknown event'}: it would give credentials or a place in the registry "
            "to code that is not merged. Start it by a push to the default branch, a schedule or by hand; "
            "'plan' runs on every event"
        )
    return COMMANDS[command](step)


def main() -> int:
    """Run the step that the environment describes; return its exit code. Every failure is annotated and summarised."""
    console = GitHubConsole(sys.stdout)
    runner = Runner(os.environ)
    for mask in runner.masks():
        sys.stdout.write(f"{mask}\n")
    sys.stdout.flush()
    inputs, settings = None, None
    try:
        inputs = WorkflowInputs.of(os.environ)
        event = WorkflowEvent.of(os.environ)
        if inputs.command == "keep":
            return keep(inputs, event, runner, console)
        if inputs.command == "rollback" and inputs.token:
            return rollback_in_release(inputs, event, runner, console)
        if inputs.role:
            os.environ["AWS_ROLE_ARN"] = inputs.role
        settings = _settings(inputs, console)
        return run(Step(inputs, event, runner, console, settings))
    except KeyboardInterrupt:
        console.error("interrupted before anything was started")
        return EXIT_RESUMABLE
    except OffloadError as error:
        directory = inputs.directory.resolve() if inputs else Path.cwd()
        report_error(error, settings, directory, runner, console)
        return error.exit_code
    except OSError as error:
        known = disk_error(error)
        if known is None:
            console.text(traceback.format_exc())
        console.error(str(known or error))
        return EXIT_FAILED
    except Exception:  # noqa: BLE001 - a traceback may quote untrusted text, so it is printed while commands are off
        console.text(traceback.format_exc())
        console.error("this is a fault of gpu-offload: the log has its traceback; please report it")
        return EXIT_FAILED
    finally:
        console.close()


def _settings(inputs: WorkflowInputs, console: GitHubConsole) -> Settings:
    left_out: list[Fault] = []
    # They begin no training, and a fault of the next one must not keep them from ending an instance.
    is_of_runs = inputs.command in {"stop", "tend"}
    settings = load_settings(
        inputs.directory.resolve(),
        file=inputs.config,
        overrides=inputs.settings,
        environment=os.environ,
        left_out=left_out if is_of_runs else None,
    )
    for fault in left_out:
        console.warning(str(fault))
    return settings


def report_error(
    error: OffloadError, settings: Settings | None, directory: Path, runner: Runner, console: GitHubConsole
) -> None:
    """Annotate an error's faults at their places, and summarise it unless the step has a summary already."""
    found = annotations_of(error, settings, directory)
    errors = [annotation for annotation in found if annotation.kind == "error"]
    for annotation in errors[:SHOWN]:
        console.annotate(annotation)
    if len(errors) > SHOWN:
        console.text(str(error))
    if not runner.has_summary:
        placed = isinstance(error, DatasetError | SettingsError)
        runner.summary(
            faults_summary(found, dataset=isinstance(error, DatasetError))
            if placed
            else trouble_summary(str(error))
        )


if __name__ == "__main__":
    sys.exit(main())
