"""What the application's side costs: import time, requests and bytes of a start.

    python benchmarks/model_client.py

The import is timed in fresh processes, from before the import to after it, the interpreter's own start not counted;
`bare` has no site packages, as the file copied beside a script. Bytes are those of HTTP, both ways, heads included.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
IMPORTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
start, used = time.perf_counter(), time.process_time()
import model_client
print(time.perf_counter() - start, time.process_time() - used)
"""
RUNS = 40


def import_ms(*flags: str) -> list[list[float]]:
    """Import the client in fresh processes: milliseconds on the clock, and of the processor."""
    command = [sys.executable, *flags, "-c", IMPORTED, str(ROOT / "client")]
    runs = [subprocess.check_output(command, text=True).split() for _ in range(RUNS)]
    return [sorted(float(value) * 1e3 for value in column) for column in zip(*runs, strict=True)]


def start(client, server):
    """Start an application: requests, bytes both ways, milliseconds."""
    server.requests.clear()
    began = time.perf_counter()
    model = client.get()
    ms = (time.perf_counter() - began) * 1e3
    sent = sum(request.sent + request.received for request in server.requests)
    return model, len(server.requests), sent, ms


def main() -> None:
    """Measure and print."""
    from model_server import ModelServer

    from gpu_offload.client import ModelClient

    figures = {}
    for name, flags in (("installed", ()), ("bare", ("-S",))):
        clock, processor = import_ms(*flags)
        figures[name] = {"clock": statistics.median(clock), "processor": statistics.median(processor)}
        print(
            f"import, {name:9}: {statistics.median(clock):.1f} ms on the clock (best {clock[0]:.1f}), "
            f"{statistics.median(processor):.1f} ms of the processor (best {processor[0]:.1f})"
        )
    with tempfile.TemporaryDirectory() as scratch, ModelServer() as server:
        server.publish("67d77d5912bb38f0", os.urandom(6 << 20), semver="1.0.0")
        rows = {
            "first start, 6 MiB model": ModelClient(server.url, scratch, interval=0),
            "unchanged": ModelClient(server.url, scratch, interval=0),
            "within the interval": ModelClient(server.url, scratch, interval=3600),
        }
        for name, client in rows.items():
            _, requests, sent, ms = start(client, server)
            figures[name] = requests, sent
            print(f"{name:26}: {requests} requests, {sent:,} bytes, {ms:.1f} ms")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
