"""The action's entry point: run the command that the step's inputs name, and report to the runner.

Inputs come in variables and never in a script's text, so that nothing written by others becomes code.
"""

import os
import sys
from typing import TYPE_CHECKING

from gpu_offload.errors import EXIT_RESUMABLE, OffloadError
from gpu_offload.orchestrator.github.cleanup_step import stop, tend
from gpu_offload.orchestrator.github.console import GitHubConsole
from gpu_offload.orchestrator.github.event import Event
from gpu_offload.orchestrator.github.inputs import Inputs, InputsError
from gpu_offload.orchestrator.github.keep_step import keep, pack
from gpu_offload.orchestrator.github.plan_step import plan
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.github.small_summaries import trouble_summary
from gpu_offload.orchestrator.github.step import Step, UntrustedEventError
from gpu_offload.orchestrator.github.train_step import train
from gpu_offload.orchestrator.settings.load import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMMANDS: "Mapping[str, Callable[[Step], int]]" = {
    "plan": plan,
    "train": train,
    "pack": pack,
    "stop": stop,
    "tend": tend,
}


def run(step: Step) -> int:
    """Run the command that the inputs name; return the exit code.

    Raises:
        UntrustedEventError: the command spends or publishes, and anybody can cause this event.
    """
    command = step.inputs.command
    if command != "plan" and not step.event.is_trusted:
        raise UntrustedEventError(
            f"'{command}' does not run on {step.event.name or 'an unknown event'}: it would give credentials or a place in the registry "
            "to code that is not merged. Start it by a push to the default branch, a schedule or by hand; "
            "'plan' runs on every event"
        )
    return COMMANDS[command](step)


def main() -> int:
    """Run the step that the environment describes; return its exit code. Every failure becomes an annotation."""
    console = GitHubConsole(sys.stdout)
    runner = Runner(os.environ)
    for mask in runner.masks():
        sys.stdout.write(f"{mask}\n")
    sys.stdout.flush()
    try:
        inputs = Inputs.of(os.environ)
        if inputs.command == "keep":
            return keep(inputs, Event.of(os.environ), runner, console)
        if inputs.role:
            os.environ["AWS_ROLE_ARN"] = inputs.role
        settings = load_settings(
            inputs.directory.resolve(),
            file=inputs.config,
            overrides=inputs.settings,
            environment=os.environ,
        )
        return run(Step(inputs, Event.of(os.environ), runner, console, settings))
    except (InputsError, UntrustedEventError) as error:
        console.error(str(error))
        runner.summary(trouble_summary(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        console.error("interrupted before anything was started")
        return EXIT_RESUMABLE
    except OffloadError as error:
        console.error(str(error))
        return error.exit_code
    finally:
        console.close()


if __name__ == "__main__":
    sys.exit(main())
