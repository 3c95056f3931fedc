"""How the cost of commands grows with a store's history: python benchmarks/scale.py [--runs 10 1000 100000].

The store is in memory and counts as S3 bills: a listing is one request for each 1000 keys, every read, stat, write or
delete is one. Each takes `--latency` milliseconds; on S3 it is some 20 to 50. Each past run has 9 objects, a version and a
timing; a few runs are open (`--open`). Prints a Markdown table.
"""

import argparse
import bisect
import hashlib
import math
import resource
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from run_case import attempt_of, run_of

from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.newest_first import newest_first
from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.cleanup.tend import Tend
from gpu_offload.orchestrator.estimate.history import NEWEST, history
from gpu_offload.orchestrator.lifecycle.status import standings
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry.listing import listing
from gpu_offload.orchestrator.registry.manifest import INDEX_KEY, Index, IndexEntry, to_json
from gpu_offload.orchestrator.report.load import gather, latest_run
from gpu_offload.orchestrator.run.former_runs import read_experience
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.record import AttemptEnd, Outcome, run_key
from gpu_offload.orchestrator.settings.load import DatasetSettings, Settings, StoreSettings

PAGE = 1000
T0 = 1_700_000_000.0


class MemoryStore:
    """An object store in memory that counts requests."""

    url = "file:/memory"

    def __init__(self):
        self.objects, self.keys, self.requests, self.sorted = {}, [], 0, True
        self.latency, self.lock = 0.0, threading.RLock()

    def asked(self):
        with self.lock:
            self.requests += 1
        time.sleep(self.latency)

    def fill(self, key, body, at):
        with self.lock:
            if key not in self.objects:
                self.keys.append(key)
                self.sorted = False
            self.objects[key] = body, at

    def _sort(self):
        with self.lock:
            if not self.sorted:
                self.keys.sort()
                self.sorted = True

    def _etag(self, body):
        return hashlib.sha256(body).hexdigest()[:16]

    def read(self, key):
        self.asked()
        if key not in self.objects:
            raise ObjectMissingError(key)
        body = self.objects[key][0]
        return body, self._etag(body)

    def stat(self, key):
        self.asked()
        return self._info(key) if key in self.objects else None

    def _info(self, key):
        body, at = self.objects[key]
        return ObjectInfo(key, len(body), self._etag(body), datetime.fromtimestamp(at, UTC))

    def put(self, key, body):
        self.asked()
        self.fill(key, body, time.time())
        return self._etag(body)

    def create(self, key, body):
        if key in self.objects and self.objects[key][0] != body:
            self.asked()
            raise ObjectExistsError(key)
        return self.put(key, body)

    def replace(self, key, body, etag):
        if key not in self.objects or self._etag(self.objects[key][0]) != etag:
            self.asked()
            raise ObjectChangedError(key)
        return self.put(key, body)

    def list(self, prefix):
        self._sort()
        start, count = bisect.bisect_left(self.keys, prefix), 0
        self.asked()
        for key in self.keys[start : start + PAGE] if start < len(self.keys) else ():
            if not key.startswith(prefix):
                return
            yield self._info(key)
            count += 1
        while count and count % PAGE == 0:
            page = self.keys[start + count : start + count + PAGE]
            self.asked()
            for key in page:
                if not key.startswith(prefix):
                    return
                yield self._info(key)
                count += 1
            if len(page) < PAGE:
                return

    def delete(self, key):
        self.asked()
        with self.lock:
            if self.objects.pop(key, None) is not None:
                self._sort()
                self.keys.pop(bisect.bisect_left(self.keys, key))

    def public_url(self, _key):
        return None


def filled(runs, still_open):
    """Return a store with so many runs, the newest of which are open."""
    store = MemoryStore()
    offer = cpu_offer(2, 8.0)
    sample = run_of(offer, id="RUN", training_key="KEY", version="VERSION", now=T0, deadline_at=T0 + 1e9)
    record = sample.model_dump_json()
    attempt = attempt_of(sample, 1, offer).model_dump_json().encode()
    end = AttemptEnd(number=1, reason="finished", at=T0 + 60).model_dump_json().encode()
    died = AttemptEnd(number=1, reason="died", at=T0 + 60).model_dump_json().encode()
    outcome = Outcome(status="published", at=T0 + 60, version="v").model_dump_json().encode()
    entries = []
    for n in range(runs):
        key = hashlib.sha256(str(n).encode()).hexdigest()
        run, at = f"{key[:12]}-1", T0 + n
        is_open = n >= runs - still_open
        text = record.replace("RUN", run).replace("KEY", key).replace("VERSION", key[:16])
        text = text.replace(f'"created_at":{T0}', f'"created_at":{at}')
        documents = {"run.json": text.encode(), "attempts/1.json": attempt, "driver.json": b"{}"}
        documents |= {"attempts/1/log.txt": b"", "attempts/1/progress.jsonl": b"", "checkpoint/last.pt": b""}
        documents["attempts/1.end.json"] = died if is_open else end
        if not is_open:
            documents |= {"outcome.json": outcome, "cost.json": b"{}"}
            store.fill(f"{NEWEST}{newest_first(at, run)}.json", b"{}", at)
            entries.append(
                IndexEntry(
                    version=key[:16], created_at=at, sha256="0" * 64, size=6_000_000, metrics={"map50": 0.5, "map50_95": 0.3},
                    training_key=key, fingerprint="f" * 64, semver=f"1.{n}.0", where="cpu", cost_usd=0.0,
                )
            )  # fmt: skip
        for name, body in documents.items():
            store.fill(run_key(run, name), body, at)
    store.fill(INDEX_KEY, to_json(Index(versions=tuple(entries))), T0)
    return store


def measured(store, act):
    """Return requests, milliseconds and MiB of new memory of an act."""
    store.requests = 0
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    act()
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return store.requests, seconds * 1000, grown


def acts(store, settings):
    """Return what is measured: each command's questions to the store."""
    journal = Journal(store)
    newest = hashlib.sha256(b"0").hexdigest()

    def train():
        journal.next_id(newest)
        journal.runs_of(newest)
        list(history(store))

    def report():
        with suppress(JournalError):
            gather(store, StoreSettings(), latest_run(store))

    return {
        "status": lambda: standings(store, settings),
        "train: the open run, past timings": train,
        "train on EC2: past capacity": lambda: read_experience(store, T0),
        "tend": lambda: Tend(settings, store, Console()).tend(),
        "stop: the open runs": lambda: Journal(store).open_ids(),
        "models": lambda: listing(store).text(),
        "report": report,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--open", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, help="of a request, in milliseconds")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    rows = {}
    try:
        settings = Settings(dataset=DatasetSettings(path="raw"), root=scratch)
        for runs in options.runs:
            store = filled(runs, options.open)
            print(f"{runs} runs, {len(store.keys)} objects", file=sys.stderr)
            Journal(store).open_ids(now=time.time())  # a store's first look, which makes the index
            with suppress(JournalError):
                latest_run(store)
            store.latency = options.latency / 1000
            for name, act in acts(store, settings).items():
                rows.setdefault(name, []).append(measured(store, act))
            del store
    finally:
        shutil.rmtree(scratch)
    print("| command | " + " | ".join(f"{runs:,} runs" for runs in options.runs) + " |")
    print("| --- |" + " --- |" * len(options.runs))
    for name, found in rows.items():
        cells = [
            f"{n} requests, {_ms(ms)}" + (f", {mib:.0f} MiB" if mib >= 1 else "") for n, ms, mib in found
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _ms(ms):
    return (
        f"{ms / 1000:.1f} s"
        if ms >= 1000
        else f"{ms:.{0 if ms >= 10 else 1}f} ms"
        if math.isfinite(ms)
        else ""
    )


if __name__ == "__main__":
    main()
