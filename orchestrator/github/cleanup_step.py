"""`command: stop` and `tend`: end instances and runs that must not continue."""

from gpu_offload.errors import EXIT_FAILED, OffloadError
from gpu_offload.orchestrator.github.inputs import InputsError
from gpu_offload.orchestrator.github.small_summaries import clean_up_summary, tend_summary
from gpu_offload.orchestrator.github.step import Step
from gpu_offload.orchestrator.registry.attestation import checksums
from gpu_offload.orchestrator.registry.manifest import model_key
from gpu_offload.orchestrator.run.journal import Journal

CLEAN_UP = "the workflow's clean-up"
"""The reason in the journal where the step gives none."""


def stop(step: Step) -> int:
    """Terminate what a training has rented, found by its key and by tag, because the job that started it may be gone."""
    from gpu_offload.orchestrator.lifecycle.stop import stop_run
    from gpu_offload.orchestrator.registry import stores

    store = stores.store_of(step.settings)
    journal = Journal(store)
    if step.inputs.run:
        runs = [step.inputs.run]
    elif step.inputs.training_key:
        runs = [r.id for r in journal.runs_of(step.inputs.training_key) if r.is_rented]
    else:
        raise InputsError("'stop' needs the input run or training-key")
    ended: list[str] = []
    failed = False
    for run in runs:
        step.console.stage(f"looking for what run {run} has left")
        try:
            ended += stop_run(step.settings, store, run, step.console, reason=step.inputs.reason or CLEAN_UP)
        except OffloadError as error:  # the other runs' instances cost money, too
            step.console.error(str(error))
            failed = True
    if ended:
        step.runner.summary(clean_up_summary(len(runs), ended))
        step.console.warning(
            f"the clean-up terminated {', '.join(ended)}: the job was cancelled, or ended before it could"
        )
    elif not failed:
        step.console.text("nothing was left to terminate")
    return EXIT_FAILED if failed else 0


def tend(step: Step) -> int:
    """Continue every open run, and end what belongs to none; name the runs that need another role."""
    from gpu_offload.orchestrator.cleanup.tend import Tend
    from gpu_offload.orchestrator.registry import stores

    store = stores.store_of(step.settings)
    tended = Tend(step.settings, store, step.console, launched_later=step.inputs.launched_later).tend()
    manifests = [model_key(run.published, "manifest.json") for run in tended.runs if run.published]
    step.runner.outputs(
        {
            "denied": " ".join(tended.denied),
            "checksums": "".join(checksums(store.read(manifest)[0]) for manifest in manifests),
        }
    )
    step.console.text(tended.text())
    for failure in tended.failures:
        step.console.error(failure)
    step.runner.summary(tend_summary(tended.text(), tended.failures))
    return EXIT_FAILED if tended.failures else 0
