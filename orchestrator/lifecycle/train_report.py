"""The result of `offload train`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.metrics import score_text
from gpu_offload.orchestrator.output.units import human_cost, human_duration
from gpu_offload.orchestrator.registry.semver import version_text
from gpu_offload.orchestrator.run.lease import holder_text


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What `offload train` did. `seconds` and `cost_usd` are the run's, over all its attempts."""

    status: Literal["trained", "already_trained", "detached", "moves"]
    """`moves`: its checkpoint is in the store, and a later job goes on with it on an instance."""
    version: str
    run: str
    training_key: str
    sha256: str
    metrics: Mapping[str, float]
    seconds: float
    estimate: Interval | None
    """By the plan."""
    cost_usd: float
    where: str = "cpu"
    model_url: str | None = None
    stable_moved: bool = False
    semver: str | None = None
    candidate: str | None = None
    """Why it did not become `stable`; None if it did, or was before."""
    file: str = "model.pt"
    """The name of the model's file, which its own training code may choose."""
    followed: str | None = None
    """The other driver that trained and published it while this command followed; None if there was none."""
    revised: Interval | None = None
    """The estimate after the training's first steps; None where there is none."""

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return asdict(self)


def trained_text(report: TrainReport) -> str:
    """Return the result of `offload train` for a terminal or a log."""
    if report.status == "detached":
        return (
            f"run {report.run} trains by itself; `offload attach {report.run}`, the same command again, or the next "
            "`offload tend` collects and publishes it"
        )
    if report.status == "moves":
        return f"run {report.run} moves to an instance: the job that rents goes on from its checkpoint"
    name = version_text(report.version, report.semver)
    score = score_text(report.metrics)
    if report.status == "already_trained":
        if report.followed is not None:
            begin = f"published by {holder_text(report.followed)}, whose run this command followed"
        else:
            begin = "already trained"
        moved = "; stable points at it again" if report.stable_moved else ""
        held = f"; it is not stable: {report.candidate}" if report.candidate else ""
        return f"{begin}: version {name}{moved}{held}\n{score}".rstrip()
    where = {"cpu": "this CPU", "ray": "the Ray cluster"}.get(report.where, report.where)
    # Why was said when it was published.
    held = ", a candidate" if report.candidate else ""
    took = f"{human_duration(report.seconds)}, {human_cost(report.cost_usd, report.where)}{_expected(report)}"
    lines = (
        f"published version {name}{held}",
        score,
        f"trained on {where} in {took}",
        f"sha256 {report.sha256}",
    )
    return "\n".join(line for line in lines if line)


def _expected(report: TrainReport) -> str:
    """Return what the run was expected to take: by its plan, and after its first steps."""
    if report.estimate is None:
        return ""
    plan = f"; the plan said {human_duration(report.estimate.likely)}"
    if report.revised is None:
        return plan
    return f"{plan}, the first steps {human_duration(report.revised.likely)}"
