"""Manifests of published models, publishers that race, and a store whose user dies."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from gpu_offload.client.model_client import choose
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.registry import alias, promote, publish
from gpu_offload.orchestrator.registry.alias import yanks
from gpu_offload.orchestrator.registry.manifest import Manifest, ManifestEstimate, RegistryError, to_json
from gpu_offload.remote_job.result import Artifact


def differ(store, ahead):
    """Let a store's clock differ from this machine's, in seconds."""
    store.clock.learn = lambda _: None
    store.clock.skew = ahead


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


def publish_and_roll_back_at_once(store, folder, publishers, rollbacks):
    """Let so many threads publish, and so many roll back, at the same time; check that one history is left."""
    models = {}
    for number in range(publishers + 2):
        version = f"{number:016x}"
        models[version] = folder / f"{version}.pt"
        models[version].write_bytes(version.encode())
    names = list(models)

    def add(version):
        number = int(version, 16)
        began_at = 1.0 if number % 2 else None  # before every rollback; that of the others is not known
        manifest = manifest_for(models[version], version, 100.0 + number).model_copy(
            update={"began_at": began_at}
        )
        publish.publish(store, manifest, models[version], note=lambda _: None)

    for version in names[:2]:
        add(version)
    barrier = threading.Barrier(publishers + rollbacks)

    def act(job):
        barrier.wait()
        if job in models:
            add(job)
            return None
        try:
            return promote.rollback(store, why=f"rollback {job}").entry.version
        except RegistryError:  # there was nothing left to go back to at that moment
            return None

    with ThreadPoolExecutor(publishers + rollbacks) as pool:
        withdrawn = {v for v in pool.map(act, [*names[2:], *map(str, range(rollbacks))]) if v}

    entries = publish.versions(store)
    assert sorted(e.version for e in entries) == names, "a version got lost"
    assert len({e.semver for e in entries}) == len(entries), "a number was given twice"
    assert {e.version for e in entries if e.yanked} == withdrawn
    stable = alias.alias_of(store, "stable")
    assert stable.version not in withdrawn
    assert stable.yanked == yanks(entries)
    assert (stable.version, stable.sha256) == (stable.history[-1].version, stable.history[-1].sha256)
    assert all(a.at <= b.at and a.version != b.version for a, b in pairwise(stable.history))
    assert choose(json.loads(to_json(stable))).version == stable.version, "applications take another one"
    told = [move.version for move in stable.history]
    first = next((n for n, move in enumerate(stable.history) if move.cause == "rollback"), len(told))
    overtaken = {version for version in names if int(version, 16) % 2} - set(told[:first])
    assert not overtaken & set(told), "a training that a rollback overtook became stable"
    assert publish.manifest_of(store, stable.version).model.sha256 == stable.sha256
