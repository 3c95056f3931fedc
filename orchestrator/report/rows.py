"""Tables of a report, as rows of cells that every rendering shows; the headings first."""

from collections.abc import Mapping
from decimal import Decimal

from gpu_offload.orchestrator.cost.bill import CPU_LABEL
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.metrics import class_table, metric_table
from gpu_offload.orchestrator.output.units import human_duration, human_money, utc
from gpu_offload.orchestrator.report.content import Report

PATIENCE = 0.2
"""Share of the epochs since the lowest validation loss after which a rise counts as over-fitting."""

LEAST = 3
"""Epochs since then at least."""

RISE = 1.05
"""How much above its lowest the validation loss must end; less is the noise of a small validation split."""


def overfitting(curves: Mapping[str, tuple[float, ...]]) -> str | None:
    """Return what the losses (by name, a value an epoch) say about over-fitting, in a clause; None if nothing.

    Losses of both training and validation are summed: Ultralytics' `train/box_loss` and `val/box_loss`, or one's own.
    """
    names = [name.removeprefix("train/") for name in curves if name.startswith("train/") and "loss" in name]
    pairs = [(curves[f"train/{name}"], curves[f"val/{name}"]) for name in names if f"val/{name}" in curves]
    if not pairs:
        return None
    epochs = min(len(values) for pair in pairs for values in pair)
    own = [sum(train[epoch] for train, _ in pairs) for epoch in range(epochs)]
    held_out = [sum(val[epoch] for _, val in pairs) for epoch in range(epochs)]
    best = min(range(epochs), key=held_out.__getitem__, default=0)
    since = epochs - 1 - best
    if since < max(LEAST, epochs * PATIENCE):
        return None
    if held_out[best] <= 0 or held_out[-1] < RISE * held_out[best] or own[-1] >= own[best]:
        return None
    rise = held_out[-1] / held_out[best] - 1
    return (
        f"over-fitting: the validation loss was lowest in epoch {best + 1} of {epochs} and has risen by {rise:.0%} since, "
        "while the training loss fell; fewer epochs, or more images, may do better. The best epoch is what is published"
    )


SHOWN_CANDIDATES = 8
SMALL_USD = Decimal("0.001")
"""Lines of a bill below it are shown as one."""

Rows = list[tuple[str, ...]]
"""A table: the headings first."""


def where_rows(report: Report) -> Rows:
    """What was offered, the best first: offer, likely, at most, USD/h, basis."""
    rows: Rows = [("offer", "likely", "at most", "USD/h", "price from")]
    rows += [
        (
            c.offer.name,
            human_duration(c.seconds.likely),
            human_duration(c.seconds.high),
            f"{c.offer.usd_per_hour:.4f}" if c.offer.usd_per_hour else c.offer.unpriced,
            c.offer.price_basis,
        )
        for c in report.run.candidates[:SHOWN_CANDIDATES]
    ]
    return rows


def expected_time(estimate: Interval) -> str:
    """Return what a run is expected to take, with its interval."""
    low, likely, high = map(human_duration, (estimate.low, estimate.likely, estimate.high))
    return f"{likely} ({low} to {high})"


def is_inside(report: Report) -> bool:
    """Whether a run's time is inside its estimate; a miss that the shown times do not show is none."""
    estimate = report.run.estimate
    shown = {human_duration(estimate.low), human_duration(estimate.high)}
    return estimate.low <= report.seconds <= estimate.high or human_duration(report.seconds) in shown


def estimate_rows(report: Report) -> Rows:
    """The estimate and the actual time."""
    estimate = report.run.estimate
    rows: Rows = [("", "expected", "actual", "")]
    verdict = "not over yet"
    if report.outcome is not None:
        ratio = f"{report.seconds / estimate.likely:.2f} of the likely time" if estimate.likely else ""
        side = "inside" if is_inside(report) else "outside"
        verdict = ", ".join(x for x in (ratio, f"{side} the interval") if x)
    rows.append(("the whole run", expected_time(estimate), human_duration(report.seconds), verdict))
    if (expected := report.run.installation) is not None:
        took = human_duration(report.installing)
        rows.append(("installing", expected_time(expected), took, "part of the run"))
    if report.result is not None:
        took = human_duration(report.result.timings.total)
        rows.append(("the training alone", "", took, "the last attempt's process"))
    cpu = report.run.cpu_estimate
    if cpu is not None and report.run.candidates and report.run.candidates[0].offer.where != "cpu":
        rows.append(("the free CPU instead", expected_time(cpu), "", "not tried"))
    return rows


def cost_rows(report: Report) -> Rows:
    """The bill; lines under a tenth of a cent are one row, and the last row is the exact sum of those above it."""
    rows: Rows = [("item", "USD", "quantity", "unit", "USD a unit", "")]
    small = [line for line in report.bill.lines if line.usd < SMALL_USD]
    # One small line says more than a row that stands for it.
    folded = small if len(small) > 1 else []
    rows += [
        (line.label, f"{line.usd:.6f}", f"{line.quantity:.6g}", line.unit, f"{line.unit_price}", line.note)
        for line in report.bill.lines
        if line not in folded
    ]
    if folded:
        total = sum((line.usd for line in folded), Decimal(0))
        rows.append((f"{len(folded)} items under a tenth of a cent", f"{total:.6f}", "", "", "", ""))
    rows.append(("total", f"{report.bill.total:.6f}", "", "", "", ""))
    return rows


def alternative_rows(report: Report) -> Rows:
    """The cost of the same training elsewhere."""
    total = report.bill.total
    rows: Rows = [("instead", "USD", "difference", "")]
    rows += [
        (
            a.label,
            f"{a.usd:.6f}",
            f"{'+' if a.usd >= total else '-'}{human_money(abs(a.usd - total))}",
            a.note,
        )
        for a in report.bill.alternatives
        # Where it ran is no alternative to where it ran.
        if not (a.label == CPU_LABEL and report.is_on_cpu)
    ]
    return rows


def attempt_rows(report: Report) -> Rows:
    """Every attempt, refusals included, with its reason."""
    rows: Rows = [("no.", "offer", "instance", "opened (UTC)", "lasted", "epochs", "end", "why")]
    for a in report.attempts:
        end = a.end
        lasted = (min(end.at, report.until) if end else report.now) - a.record.created_at
        rows.append(
            (
                str(a.record.number),
                a.record.offer.name,
                a.host.instance_id if a.host else "none",
                utc(a.record.created_at, "%H:%M:%S"),
                human_duration(max(0.0, lasted)),
                f"{a.heartbeat.epochs_completed}/{a.heartbeat.epochs}" if a.heartbeat else "0",
                end.reason if end else "open",
                (end.message if end else "") or (a.heartbeat.message or "" if a.heartbeat else ""),
            )
        )
    return rows


def metric_rows(report: Report) -> Rows:
    """The model's final metrics."""
    return metric_table(report.metrics)


def class_rows(report: Report) -> Rows:
    """The metrics of each class."""
    return class_table(dict(sorted(report.result.per_class.items())) if report.result else {})


def fact_rows(report: Report) -> Rows:
    """The facts of the run."""
    device = next((a.heartbeat.device for a in reversed(report.attempts) if a.heartbeat), None)
    facts = {
        "status": report.status
        + (f": {report.outcome.message}" if report.outcome and report.outcome.message else ""),
        "version": report.run.version,
        "training key": report.run.training_key,
        "dataset": report.run.fingerprint,
        "model": f"{report.run.spec.base_model}, {report.run.spec.epochs} epochs, {report.run.spec.image_size} px",
        "start": report.run.origin.note if report.run.origin else "",
        "fit": overfitting(report.curves) or "",
        "device": device or "",
        "begun": utc(report.run.created_at, "%Y-%m-%d %H:%M:%S UTC"),
        "commit": report.run.commit or "",
        "repository": report.run.repository or "",
    }
    return [("", ""), *((name, value) for name, value in facts.items() if value)]
