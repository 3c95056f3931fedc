"""Evaluates a new version and the one in use on the same images, in a process that has Ultralytics."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry.alias import alias_of
from gpu_offload.orchestrator.registry.evidence import judge, metric_of
from gpu_offload.orchestrator.registry.index import manifest_of
from gpu_offload.orchestrator.registry.manifest import STABLE, Manifest, model_key
from gpu_offload.orchestrator.registry.publish import Rules, Verdict
from gpu_offload.orchestrator.settings.sections import RegistrySettings
from gpu_offload.orchestrator.training_environment import training_environment

TIMEOUT_S = 3600
ULTRALYTICS = "ultralytics"


def is_comparable(stable: Manifest, metric: str | None) -> bool:
    """Whether a new version can be compared with the one in use on the same images, on this machine."""
    is_ours = ULTRALYTICS in stable.environment and metric_of(stable, metric) is not None
    return is_ours and importlib.util.find_spec(ULTRALYTICS) is not None


def compared_images(
    store: ObjectStore, metric: str | None, classes: Sequence[str], images: Mapping[str, int]
) -> int:
    """Return on how many held-out images a new version with these classes will be compared with `stable`; 0 for not at all."""
    alias = alias_of(store, STABLE)
    if alias is None or alias.version in alias.yanked:
        return 0
    stable = manifest_of(store, alias.version)
    if stable is None or not is_comparable(stable, metric) or stable.classes not in (None, tuple(classes)):
        return 0
    return images.get("test") or images.get("val", 0)


@dataclass(frozen=True)
class Judge:
    """Judges versions by the configuration. `tree` makes the training tree; None if the dataset is not at hand."""

    store: ObjectStore
    settings: RegistrySettings
    console: Console
    tree: Callable[[], Path] | None = None

    def rules(self) -> Rules:
        """Return the rules of publishing that the configuration describes."""
        bump = self.settings.bump
        return Rules(judge=self, bump=None if bump == "auto" else bump)

    def __call__(self, new: Manifest, stable: Manifest | None) -> Verdict:
        """Judge a new version against the one in use, on the same images if possible."""
        paired = self._paired(new, stable) if stable is not None else None
        settings = self.settings
        verdict = judge(
            new,
            stable,
            paired,
            metric=settings.metric,
            goal=settings.goal,
            floor=settings.worst,
            tolerance=settings.tolerance,
        )
        say = self.console.note if verdict.promoted else self.console.warning
        say(f"{'stable' if verdict.promoted else 'candidate'}: {verdict.why}")
        return verdict

    def _paired(self, new: Manifest, stable: Manifest) -> dict[str, Any] | None:
        metric = metric_of(new, self.settings.metric)
        if metric is None or self.tree is None or ULTRALYTICS not in new.environment:
            return None
        if not is_comparable(stable, metric):
            return None
        self.console.stage(f"comparing with stable ({stable.version}) on the same images")
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            files = []
            try:
                for name, manifest in (("old", stable), ("new", new)):
                    model = manifest.model
                    files.append(path := Path(scratch) / f"{name}{Path(model.name).suffix}")
                    self.store.download(
                        model_key(manifest.version, model.name), path, size=model.size, sha256=model.sha256
                    )
                answer = Path(scratch) / "answer.json"
                # -P: a module in the current folder must not take the place of an installed one.
                command = [sys.executable, "-P", "-m", "gpu_offload.remote_job.yolo.evaluation"]
                command += [*map(str, files), str(self.tree().absolute()), metric]
                command += [str(new.image_size or 640), str(min(new.batch or 16, 16)), str(answer)]
                # Like a training, what loads a model gets no credentials and a folder of its own.
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=TIMEOUT_S,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    cwd=scratch,
                    env=training_environment(os.environ, project=Path.cwd(), in_bucket=False, own_code=False),
                )
                if done.returncode == 0:
                    found: dict[str, Any] = json.loads(answer.read_text())
                    return found
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            except (OSError, ValueError, subprocess.SubprocessError, OffloadError) as error:
                reason = str(error)
        self.console.note(f"not compared on the same images: {reason}")
        return None
