"""A run's report, and the same with hostile text in every field."""

from run_case import T0, result_of, run_of, seen_attempt

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.report.content import Report
from gpu_offload.orchestrator.run.accounting import Accounting
from gpu_offload.orchestrator.run.record import AttemptEnd, Outcome
from gpu_offload.orchestrator.run.run_documents import RunDocuments
from gpu_offload.orchestrator.settings.sections import StoreSettings
from gpu_offload.remote_job.result import Heartbeat, ProgressEvent, Timings

EVIL = "<script>alert(1)</script><img src=x onerror=y>|`${{ secrets.X }}`](javascript:z)\x1b[2J\u202e"


def result(**changes):
    values = {
        "attempt": 2, "metrics": {"map50": 0.5}, "timings": Timings(total=120.0),
        "curves": {"metrics/mAP50(B)": (0.1, 0.3, 0.5), "train/box_loss": (3.0, 2.0, 1.0)},
    }  # fmt: skip
    return result_of(**(values | changes))


def events(start):
    times = [("start", None), ("batch", 1), ("epoch", 1), ("epoch", 2), ("epoch", 3)]
    return tuple(
        ProgressEvent(
            event=kind,
            time=start + 60 * i,
            epoch=epoch,
            epochs=3,
            metrics={"m": 0.1 * i} if kind == "epoch" else None,
        )
        for i, (kind, epoch) in enumerate(times)
    )


def report_in(tmp_path):
    run = run_of(now=T0, cpu_estimate=Interval(100, 200, 300))
    attempts = (
        seen_attempt(1, T0, T0 + 5, "refused", with_host=False),
        seen_attempt(2, T0 + 10, T0 + 610),
    )
    store = open_store(f"file:{tmp_path}")
    store.put("runs/abc-1/result/result.json", result().model_dump_json(by_alias=True).encode())
    bill = Accounting(store, StoreSettings()).bill(run, RunDocuments(attempts, result=result()), now=T0 + 700)
    return Report(
        run=run, now=T0 + 700, bill=bill, attempts=attempts, result=result(), events={2: events(T0 + 60)},
        outcome=Outcome(status="published", at=T0 + 620, version=run.version),
    )  # fmt: skip


def evil(report):
    """The same report, with mischief wherever a training, a branch or a cloud could have written."""
    run = report.run.model_copy(update={"why": EVIL, "commit": EVIL, "repository": EVIL})
    end = AttemptEnd(number=2, reason="died", at=T0 + 610, message=EVIL)
    beat = Heartbeat(
        run="abc-1", attempt=2, time=T0, pid=1, host=EVIL, boot_id="b", epochs_completed=1, epochs=3,
        state="training", message=EVIL, device=EVIL,
    )  # fmt: skip
    second = report.attempts[1].__class__(report.attempts[1].record, report.attempts[1].host, beat, end)
    return Report(
        run=run, now=report.now, bill=report.bill, attempts=(report.attempts[0], second), events=report.events,
        result=result(metrics={EVIL: 1.0}, per_class={EVIL: {EVIL: 1.0}}, curves={EVIL: (1.0, 2.0)}),
        outcome=Outcome(status="failed", at=T0 + 620, message=EVIL),
    )  # fmt: skip
