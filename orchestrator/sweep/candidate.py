"""The best model of a sweep becomes `candidate`: promotion to `stable` stays a decision of its own."""

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.metrics import label
from gpu_offload.orchestrator.registry import alias as aliases
from gpu_offload.orchestrator.registry.manifest import CANDIDATE, STABLE
from gpu_offload.orchestrator.sweep.content import SweepReport
from gpu_offload.orchestrator.sweep.space import values_text


def propose_best(store: ObjectStore, report: SweepReport) -> str | None:
    """Let `candidate` mean the best trial's model; return it, None if there is none or it is stable."""
    best = report.best
    if best is None or best.best is None or best.score is None:
        return None
    stable = aliases.alias_of(store, STABLE)
    if stable is not None and stable.version == best.best:
        return None
    score, metric = best.score, report.record.metric or ""
    interval = "" if score.low is None else f" ({score.low:.4g} to {score.high:.4g})"
    aliases.move(
        store,
        CANDIDATE,
        best.best,
        cause="publish",
        why=f"the best of {report.count('complete')} trials of {report.record.id}: {label(metric)} "
        f"{score.mean:.4g}{interval} with {values_text(best.values)}",
        evidence={
            "metric": metric,
            "new": score.mean,
            "low": score.low,
            "high": score.high,
            "trainings": len(best.scores),
            "equals": list(report.equals),
            "method": "sweep",
        },
    )
    return best.best
