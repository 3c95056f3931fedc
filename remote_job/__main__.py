"""`python -m gpu_offload.remote_job SPEC.json`: run the training that the document describes.

Standard output carries one ProgressEvent of JSON a line, and nothing else; the log for people goes to
`<output>/log.txt` and standard error. Exit codes: 0 done, 75 interrupted and resumable, 1 failed, 2 faulty spec,
78 denied by the store.

With `-` for SPEC.json the spec's path comes as a JSON string on a line of standard input; PyTorch is imported meanwhile.

Where the training must not reach the store, three processes share the work: `--fetch INPUT SPEC.json` first, then
`--mirror INPUT --until FILE SPEC.json` beside `--inputs INPUT INPUT/spec.json`.
"""

import argparse
import atexit
import json
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gpu_offload.remote_job import allocator

if __name__ == "__main__" and not allocator.unwanted(sys.argv[1:]):
    # The C library reads its settings when a process starts: before anything else is imported.
    allocator.restart()

from pydantic import ValidationError

from gpu_offload.errors import EXIT_FAILED, EXIT_RESUMABLE, EXIT_USAGE, OffloadError
from gpu_offload.infra.store.errors import StoreDeniedError, StoreMissingError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job import standby, uploader
from gpu_offload.remote_job.files.checkpoint import CheckpointMismatchError
from gpu_offload.remote_job.interruption import InterruptedTrainingError, Interruption
from gpu_offload.remote_job.mirror import spot_notice
from gpu_offload.remote_job.mirror.inputs import InputFolder
from gpu_offload.remote_job.mirror.trouble import DENIED_S, RefusedByStoreError
from gpu_offload.remote_job.spec import LATER, SpecError, TrainingSpec
from gpu_offload.remote_job.train import train

EXIT_DENIED = 78
"""The store denies what the training needs or writes (`EX_CONFIG` of sysexits.h): another machine would meet the same."""

DENIED = (RefusedByStoreError, StoreDeniedError, StoreMissingError)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    # Libraries and the user's code print to standard output, which the caller reads as JSON: they get standard error.
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as output:
        os.dup2(2, 1)
        return _guarded(lambda: _run(options, lambda line: print(line, file=output)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_offload.remote_job", description=__doc__)
    parser.add_argument("spec", type=Path, nargs="?", help="the TrainingSpec, a JSON document, or -")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="measure a few steps and print a Calibration instead of training",
    )
    parser.add_argument(
        "--device-check", action="store_true", help="run an operation on the GPU and print what the device is"
    )
    apart = parser.add_mutually_exclusive_group()
    apart.add_argument(
        "--fetch",
        metavar="INPUT",
        type=Path,
        help="download dataset, weights and checkpoint into this folder, verified, and write its spec.json",
    )
    apart.add_argument(
        "--inputs",
        metavar="INPUT",
        type=Path,
        help="train from what --fetch downloaded to this folder, without a store",
    )
    apart.add_argument(
        "--mirror",
        metavar="INPUT",
        type=Path,
        help="upload what a training with these inputs writes, and stop it when a later attempt starts",
    )
    parser.add_argument(
        "--until", metavar="FILE", type=Path, help="with --mirror: send the rest and end once it is there"
    )
    parser.add_argument(
        "--rented",
        action="store_true",
        help=f"stop when the store has denied what is written for {DENIED_S:.0f} s: the machine costs money",
    )
    parser.add_argument(
        "--parent-stdin", action="store_true", help="stop when standard input ends: the parent is gone"
    )
    parser.add_argument(
        "--spot-notice",
        metavar="URL",
        nargs="?",
        const=spot_notice.ENDPOINT,
        help=f"stop when the instance metadata service announces a reclaim ({spot_notice.ENDPOINT})",
    )
    return parser


def _run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    if options.device_check:
        from gpu_offload.remote_job import machine

        facts = machine.device_check()
        say(json.dumps(facts))
        return 0 if facts["ok"] else EXIT_FAILED
    if options.spec is None:
        raise SpecError(["give the path of a TrainingSpec"])
    path, waited = standby.spec_path() if options.spec == LATER else (options.spec, 0.0)
    spec = read_spec(path)
    if bool(options.mirror) != bool(options.until):
        raise SpecError(["--mirror and --until belong together"])
    if options.inputs and spec.store:
        raise SpecError(["store: a training with --inputs has none"])
    store = (
        open_store(spec.store.url, endpoint_url=spec.store.endpoint_url, region=spec.store.region)
        if spec.store
        else None
    )
    if options.calibrate:
        from gpu_offload.remote_job.calibration.calibrate import calibrate

        say(calibrate(spec, store=store).model_dump_json())
    elif options.mirror:
        _mirror(options, spec, _needed(store))
    else:
        _train(options, spec, store, say, waited)
    return 0


def _mirror(options: argparse.Namespace, spec: TrainingSpec, store: ObjectStore) -> None:
    inputs = InputFolder(options.mirror)
    if options.spot_notice:
        spot_notice.watch(options.spot_notice, inputs.ask_to_stop)
    uploader.mirror(spec, store, inputs, until=options.until, denied_s=_denied_s(options))


def _train(
    options: argparse.Namespace,
    spec: TrainingSpec,
    store: ObjectStore | None,
    say: Callable[[str], None],
    waited: float,
) -> None:
    """Train, or fetch what a training needs; a signal or a notice stops either."""
    interruption = Interruption()
    if options.parent_stdin:
        interruption.watch_parent()
    if options.spot_notice:
        spot_notice.watch(options.spot_notice, interruption.request)
    if options.fetch:
        inputs = InputFolder(options.fetch)
        denied_s = _denied_s(options)
        uploader.fetch(spec, _needed(store), inputs, emit=say, interruption=interruption, denied_s=denied_s)
    else:
        taken = InputFolder(options.inputs) if options.inputs else None
        train(spec, store=store, inputs=taken, emit=say, interruption=interruption, waited=waited)


def _denied_s(options: argparse.Namespace) -> float:
    return DENIED_S if options.rented else math.inf


def _needed(store: ObjectStore | None) -> ObjectStore:
    if store is None:
        raise SpecError(["store: is needed to fetch inputs or to send what a training writes"])
    return store


def _guarded(run: Callable[[], int]) -> int:
    """Turn exceptions into exit codes; tracebacks are in the log."""
    try:
        return run()
    except SpecError as error:
        complain("this cannot be trained:", *error.faults)
        return EXIT_USAGE
    except CheckpointMismatchError as error:
        complain(str(error))
        return EXIT_USAGE
    except InterruptedTrainingError as stopped:
        complain(f"interrupted: {stopped}; start it again to resume")
        return EXIT_RESUMABLE
    except OffloadError as error:
        complain(f"failed: {error}")
        return EXIT_DENIED if isinstance(error, DENIED) else EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the border of the process
        complain(f"failed: {type(error).__name__}: {error}")
        return EXIT_FAILED


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
    """Write what went wrong to standard error."""
    sys.stderr.write("\n  ".join(lines) + "\n")


def leave(code: int) -> NoReturn:
    """End the process as an interpreter does, but leave its memory to the kernel: with torch, freeing it takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads that are no daemons
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
