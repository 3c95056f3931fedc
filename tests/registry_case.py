"""Manifests of published models, and a store whose user dies."""

import hashlib

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.registry.manifest import Manifest, ManifestEstimate
from gpu_offload.remote_job.result import Artifact


def manifest_for(model, version="aaaa", created_at=100.0, run="aaaa-1"):
    body = model.read_bytes()
    return Manifest(
        version=version,
        training_key=(version * 64)[:64],
        fingerprint="f" * 64,
        run=run,
        created_at=created_at,
        model=Artifact(name="model.pt", size=len(body), sha256=hashlib.sha256(body).hexdigest()),
        task="detect",
        base_model="yolov8n.yaml",
        epochs=3,
        epochs_completed=3,
        metrics={"map50": 0.5},
        seconds=ManifestEstimate(estimated=Interval(1, 2, 3), actual=2.5),
        where="cpu",
        cost_usd=0.0,
    )


class DyingStore:
    """A store whose `effects`-th write is the last thing that the process does, before or after it happens."""

    def __init__(self, store: ObjectStore, effects: int, *, after: bool):
        self.store, self.left, self.after = store, effects, after

    def __getattr__(self, name):
        method = getattr(self.store, name)
        if name not in {"put", "create", "replace", "upload", "delete"}:
            return method

        def dying(*args, **kwargs):
            self.left -= 1
            if self.left == 0 and not self.after:
                raise KeyboardInterrupt
            answer = method(*args, **kwargs)
            if self.left == 0:
                raise KeyboardInterrupt
            return answer

        return dying
