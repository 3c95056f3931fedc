"""A training by Ultralytics: isolated, resumed where there is something to resume, and summed up."""

import contextlib
import gc
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.remote_job import hyperparameters
from gpu_offload.remote_job.context import Bench
from gpu_offload.remote_job.files import result_files
from gpu_offload.remote_job.result import PREDICTIONS, Export, TrainingResult
from gpu_offload.remote_job.spec import SpecError
from gpu_offload.remote_job.speed import compiler, garbage, plan
from gpu_offload.remote_job.speed.capacity import capacity
from gpu_offload.remote_job.yolo import gpu_memory, isolation
from gpu_offload.remote_job.yolo.team import team

if TYPE_CHECKING:
    from gpu_offload.remote_job.yolo.exports import Exported
    from gpu_offload.remote_job.yolo.resume import Resumption
    from gpu_offload.remote_job.yolo.trainer import SteadyTrainer

TRAIN = "train"
"""The folder that Ultralytics writes to, below the work folder."""


def run(bench: Bench) -> TrainingResult:
    """Train, and stage the result's files.

    Raises:
        SpecError: Ultralytics refuses the value of a hyperparameter.
        GpuMemoryError: The training needs more memory than the GPU has.
        InterruptedTrainingError: It was stopped and can be resumed.
        UnreadableStateError: The checkpoint is not one of ours.
    """
    begun = time.perf_counter()
    isolation.isolate(bench.work / "config")
    shutil.rmtree(
        bench.work / TRAIN, ignore_errors=True
    )  # plots of an attempt before would be published, too
    with team(bench), contextlib.ExitStack() as stack:
        return _run(bench, begun, stack)


def _run(bench: Bench, begun: float, stack: contextlib.ExitStack) -> TrainingResult:
    compiles = bool(bench.spec.hyperparameters.get("compile"))
    with bench.interruption.at_once():
        with garbage.left_out("ultralytics"):
            stack.enter_context(compiler.left_out(compiles=compiles))
            from gpu_offload.remote_job.yolo import metrics, overrides, resume, trainer  # noqa: F401 - with Ultralytics

        imported = time.perf_counter() - begun
        bench.progress.stage("import", imported)
        faults = hyperparameters.value_faults(bench.spec.hyperparameters)
        if (fault := overrides.device_fault(bench.spec)) is not None:
            faults.append(fault)
        if faults:
            raise SpecError(faults)
    with isolation.offline():
        work = _trained(bench)
        bench.progress.stage("scan", work.clock.scan)
        bench.progress.stage("final", work.clock.final_validation)
        work.share_cores()
        draw_pictures(bench, work)
        work.share_cores()
        made, failed = _exports(bench, work.best)
        work.drawing.finish()
        work.share_cores()
        files = {
            "model.pt": work.best,
            **{one.path.name: one.path for one in made},
            **{path.name: path for path in metrics.extras(work.save_dir)},
        }
        model, *others = result_files.stage(files, bench.output / "result")
        result = metrics.result(
            work, model, imported=imported, total=bench.seconds_before + time.perf_counter() - begun
        )
        return result.model_copy(
            update={
                "exports": tuple(
                    Export(format=one.format, file=file, agreement=one.agreement, images=one.images)
                    for one, file in zip(made, others, strict=False)
                ),
                "failed_exports": failed,
                "extras": tuple(others[len(made) :]),
            }
        )


def _trained(bench: Bench) -> "SteadyTrainer":
    """Train; where memory no longer suffices after whole epochs, go on after the last one.

    In the first epoch from there Ultralytics halves the batch if memory does not suffice again.
    """
    import torch

    from gpu_offload.remote_job.yolo import resume

    before: float | None = None
    while True:
        with bench.interruption.at_once():
            found = resume.resumption(bench)
            # The seconds of this process are counted by its own clock.
            before = bench.seconds_before = bench.seconds_before if before is None else before
            work = build(bench, found)
            bench.progress.stage("build", work.clock.build)
        try:
            _train(work)
        except gpu_memory.GpuMemoryError as error:
            newest = bench.checkpoints.load()
            kept = newest.manifest.epochs_completed if newest is not None else 0
            if work.world_size > 1 or work.ours.finishing or kept <= work.resuming.epochs_completed:
                raise
            print(f"{error}; the training goes on after epoch {kept}")  # noqa: T201 - to the log
        else:
            return work
        del work, found
        gc.collect()
        torch.cuda.empty_cache()


def _train(work: "SteadyTrainer") -> None:
    try:
        work.train()
    except RuntimeError as error:
        if (why := gpu_memory.said(error)) is None:
            raise
        raise gpu_memory.explained(str(work.device), work.batch_size, work.args.imgsz, why) from error
    finally:
        # An interruption leaves workers behind, which would live as long as this process.
        for loader in (getattr(work, name, None) for name in ("train_loader", "test_loader")):
            if loader is not None:
                loader.close()


def _exports(bench: Bench, model: Path) -> "tuple[list[Exported], dict[str, str]]":
    """Write the formats that were asked for; return why others failed."""
    if not bench.spec.exports:
        return [], {}
    from gpu_offload.remote_job.yolo import exports

    begun = time.perf_counter()
    with bench.interruption.at_once():
        made, failed = exports.export(
            model,
            bench.spec.exports,
            read_tree(bench.data.tree),
            image_size=bench.spec.image_size,
            folder=bench.work / "exports",
        )
    bench.progress.stage("export", time.perf_counter() - begun)
    for name, why in failed.items():
        print(f"no export to {name}: {why}")  # noqa: T201 - to the log
    return made, failed


def draw_pictures(bench: Bench, work: "SteadyTrainer") -> None:
    """Draw predictions among the result's files; a picture is no reason for a trained model to be lost."""
    from gpu_offload.remote_job.yolo import pictures

    begun = time.perf_counter()
    try:
        pictures.draw(
            work.best,
            bench.data.tree,
            work.save_dir / PREDICTIONS,
            image_size=bench.spec.image_size,
            device=work.device,
        )
    except Exception as error:  # noqa: BLE001 - Ultralytics and Pillow raise anything
        print(f"no picture of predictions: {type(error).__name__}: {error}")  # noqa: T201 - to the log
    bench.progress.stage("pictures", time.perf_counter() - begun)


def build(bench: Bench, resumption: "Resumption | None", *, inner: tuple[type, ...] = ()) -> "SteadyTrainer":
    """Build the trainer for a spec; `inner` are mixed in right before Ultralytics' own."""
    from gpu_offload.remote_job.yolo import overrides, trainer

    spec = bench.spec
    settings = overrides.overrides(
        spec,
        data=bench.data.argument,
        model=spec.model,
        weights=bench.weights,
        folder=bench.work / TRAIN,
        batch=resumption.state["batch_size"] if resumption else None,
    )
    here = capacity()
    # Each rank of a team has its share of the machine.
    here = replace(here, cores=max(1, here.cores // spec.gpus), memory_bytes=here.memory_bytes // spec.gpus)
    return trainer.trainer_class(spec.task, *inner)(
        bench,
        settings,
        speed=plan.plan(here, spec.speed, begun=resumption.state["speed"] if resumption else None),
        capacity=here,
        resumption=resumption,
    )
