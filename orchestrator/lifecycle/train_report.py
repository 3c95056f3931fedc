"""The result of `offload train`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.output.metrics import score_text
from gpu_offload.orchestrator.output.units import human_duration, human_money
from gpu_offload.orchestrator.run.lease import holder_text


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What `offload train` did. `seconds` is wall time of this command, `cost_usd` what the run cost."""

    status: Literal["trained", "already_trained", "detached"]
    version: str
    run: str
    training_key: str
    sha256: str
    metrics: Mapping[str, float]
    seconds: float
    estimate: Interval | None
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

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return asdict(self) | {"estimate": asdict(self.estimate) if self.estimate else None}


def trained_text(report: TrainReport) -> str:
    """Return the result of `offload train` for a terminal or a log."""
    if report.status == "detached":
        return (
            f"run {report.run} trains by itself; `offload attach {report.run}`, the same command again, or the next "
            "`offload tend` collects and publishes it"
        )
    score = score_text(report.metrics)
    if report.status == "already_trained":
        if report.followed is not None:
            begin = f"published by {holder_text(report.followed)}, whose run this command followed"
        else:
            begin = "already trained"
        moved = "; stable points at it again" if report.stable_moved else ""
        held = f"; it is not stable: {report.candidate}" if report.candidate else ""
        name = f"version {report.version}" + (f", {report.semver}" if report.semver else "")
        return f"{begin}: {name}{moved}{held} (key {report.training_key[:16]})  {score}".rstrip()
    estimate = f" (estimated {human_duration(report.estimate.likely)})" if report.estimate else ""
    where = "this CPU" if report.where == "cpu" else report.where
    cost = f"cost {human_money(report.cost_usd)}" if report.cost_usd else "free"
    name = f"version {report.version}" + (f" as {report.semver}" if report.semver else "")
    # Why was said when it was published.
    held = ", a candidate" if report.candidate else ""
    return (
        f"published {name}{held}  {score}\n"
        f"trained on {where} in {human_duration(report.seconds)}{estimate}; {cost}; sha256 {report.sha256[:16]}"
    )
