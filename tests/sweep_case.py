"""Reports of sweeps, and a project whose trainings take milliseconds."""

from gpu_offload.dataset.synthetic import generate
from gpu_offload.orchestrator.sweep.content import SweepReport, TrialReport
from gpu_offload.orchestrator.sweep.record import SweepRecord, TrainingRef
from gpu_offload.orchestrator.sweep.statistics import score_of

KINDS = ("<script>alert(1)</script>", "plain")


REF = TrainingRef(seed=0, fold=None, training_key="0" * 64, version="0" * 16)


def record_of(**changes):
    record = SweepRecord(
        id="sweep-0123456789ab", space={"kind": KINDS, "lr0": "0.1..0.9"}, seeds=3, folds=1, metric="accuracy",
        goal="maximize", epochs=9, created_at=1000.0, opened_at=1000.0, trials=4, budget_usd=1.0, deadline_s=60.0,
    )  # fmt: skip
    return record.model_copy(update=changes)


def report_of(*trials):
    return SweepReport(record_of(), trials)


def trial_row(number, mean, *, spread=0.0, kind="plain"):
    """A trial with three trainings about a mean; without one, a trial that failed."""
    scores = {} if mean is None else {(0, None): mean - spread, (1, None): mean, (2, None): mean + spread}
    return TrialReport(
        number=number, values={"kind": kind, "lr0": 0.5}, state="complete" if scores else "failed",
        scores=scores, score=score_of(list(scores.values())) if scores else None, value=mean, best=f"v{number}",
        trainings=3, epochs=27, of=27, seconds=30.0, cost_usd=0.01,
    )  # fmt: skip


TRAINING = '''
"""The first training that begins is the good one. The others do not end by themselves: they have to be pruned."""

import os
import time
from pathlib import Path

from gpu_offload.remote_job.entrypoint import Trained

HERE = Path(FOLDER)


def main(context):
    try:
        with (HERE / "first").open("x") as file:
            file.write(context.spec.training_key)
    except OSError:  # it is there, or this is an instance
        pass
    first = not (HERE / "first").exists() or (HERE / "first").read_text() == context.spec.training_key
    model = context.output / "model.txt"
    for epoch in range(context.epochs_completed + 1, context.spec.epochs + 1):
        while epoch == HELD and not (first and (HERE / "gate").exists()):
            if context.interrupted():
                return None
            time.sleep(0.02)
        time.sleep(PACE)
        score = (0.5 if first else 0.1) + epoch / 100
        with (HERE / "epochs.txt").open("a") as file:
            file.write(f"{context.spec.training_key} {epoch}\\n")
        model.write_text(str(epoch))
        context.epoch(epoch, metrics={"score": score})
        context.checkpoint(model, epochs_completed=epoch)
    return Trained(model, {"score": score})
'''


def sweep_project(folder, *, held=0, pace=0.0, epochs=4, sweep="", store="file:store"):
    """Make a project whose trainings wait before epoch `held` for the file `gate`, and then only the first."""
    generate(folder / "shapes", images=12, size=64)
    head = f"FOLDER, HELD, PACE = {str(folder)!r}, {held}, {pace}\n"
    (folder / "mine.py").write_text(head + TRAINING)
    (folder / "offload.toml").write_text(
        f"""
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
[training]
entrypoint = "mine:main"
epochs = {epochs}
license = "MIT"
[store]
url = "{store}"
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
[sweep]
lr = "log 1e-4..1e-1"
{sweep}
"""
    )
    return folder
