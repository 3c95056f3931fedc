"""How long it takes to install what a training needs: by a job, before its command, and by the training itself."""

import math
from collections.abc import Iterable
from typing import Literal

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import Ratio, predict
from gpu_offload.orchestrator.output.units import human_duration

Part = Literal["job", "requirements"]
"""What the locks of the action name, PyTorch and Ultralytics among them; or what `training.requirements` names."""

PRIORS_S: dict[Part, float] = {"job": 45.0, "requirements": 6.0}
"""Seconds with nothing cached; see docs/estimate.md."""

NOTHING = Interval(0, 0, 0)


def installation(part: Part, past: Iterable[Ratio]) -> tuple[Interval, str]:
    """Return how long installing takes, by earlier trainings where they installed it too, and a note on that."""
    known = [(r.installed[part], r.weight) for r in past if r.installed.get(part, 0.0) > 0]
    logs = [math.log(seconds / PRIORS_S[part]) for seconds, _ in known]
    interval = predict("installation", logs, [weight for _, weight in known]).interval(PRIORS_S[part])
    what = "the job installs its software first" if part == "job" else "training.requirements are installed"
    basis = f"by {len(known)} earlier trainings" if len(known) > 1 else "by an earlier training"
    return interval, f"{what}: about {human_duration(interval.likely)}, {basis if known else 'a guess'}"
