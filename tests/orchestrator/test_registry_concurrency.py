"""Twenty publishers and rollbacks at once leave one history, on every store that two may write to."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from registry_case import manifest_for
from store_kinds import KINDS

from gpu_offload.orchestrator.registry import alias, promote, publish
from gpu_offload.orchestrator.registry.alias import yanks
from gpu_offload.orchestrator.registry.manifest import RegistryError

PUBLISHERS, ROLLBACKS = 15, 5
FEWER = {"hub": (4, 2)}
"""Every write to the Hub is a commit onto the newest, whatever it is of: twenty at once end alike, and take 15 s."""

SEVERAL_WRITERS = [kind for kind in KINDS if kind != "sftp" and getattr(kind, "values", ("",))[0] != "sftp"]
"""SFTP's writers wait for each other's lock: the same code, slowly, as `memory`."""


@pytest.mark.parametrize("kind", SEVERAL_WRITERS)
def test_publishers_and_rollbacks_at_once_leave_one_history(kind, new_store, tmp_path):
    store = new_store(kind)
    publishers, rollbacks = FEWER.get(kind, (PUBLISHERS, ROLLBACKS))
    models = {}
    for number in range(publishers + 2):
        version = f"{number:016x}"
        models[version] = tmp_path / f"{version}.pt"
        models[version].write_bytes(version.encode())
    names = list(models)

    def add(version):
        manifest = manifest_for(models[version], version, 100.0 + int(version, 16))
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
    assert all(a.at <= b.at for a, b in pairwise(stable.history))
    assert publish.manifest_of(store, stable.version).model.sha256 == stable.sha256
