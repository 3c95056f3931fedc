"""`python -m remote_job SPEC.json`: train what the document says.

Standard output carries one ProgressEvent of JSON a line, and nothing else; the human log goes to
`<output>/log.txt` and standard error. Exit codes: 0 done, 75 interrupted and resumable, 1 failed, 2 faulty spec.
"""

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from remote_job.checkpoint import CheckpointMismatchError
from remote_job.interruption import InterruptedTrainingError, Interruption
from remote_job.spec import EXIT_RESUMABLE, TrainingSpec
from remote_job.train import SpecError, train

EXIT_FAILED = 1
EXIT_FAULTY_SPEC = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m remote_job", description=__doc__)
    parser.add_argument("spec", type=Path, help="the TrainingSpec, a JSON document")
    parser.add_argument(
        "--parent-stdin", action="store_true", help="stop when standard input ends: the parent is gone"
    )
    options = parser.parse_args(arguments)
    # Only events may reach standard output; whatever prints to it by itself is sent to standard error.
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    interruption = Interruption()
    if options.parent_stdin:
        interruption.watch_parent()
    try:
        spec = read_spec(options.spec)
        train(spec, emit=lambda line: print(line, file=events), interruption=interruption)
    except SpecError as error:
        complain(f"{options.spec}: this cannot be trained:", *error.faults)
        return EXIT_FAULTY_SPEC
    except CheckpointMismatchError as error:
        complain(str(error))
        return EXIT_FAULTY_SPEC
    except InterruptedTrainingError as stopped:
        complain(f"interrupted: {stopped}; start it again to resume")
        return EXIT_RESUMABLE
    except Exception as error:  # noqa: BLE001 - the traceback is in the log; here the border of the process is
        complain(f"failed: {type(error).__name__}: {error}")
        return EXIT_FAILED
    return 0


def read_spec(path: Path) -> TrainingSpec:
    """Read a spec. Raises SpecError with every fault of the document."""
    try:
        return TrainingSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError([f"{path}: cannot be read ({error.strerror})"]) from error
    except ValidationError as error:
        raise SpecError(
            [f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}" for fault in error.errors()]
        ) from error


def complain(*lines: str) -> None:
    """Say what went wrong, on standard error."""
    sys.stderr.write("\n  ".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
