"""What it takes to bring a dataset to an instance: time, memory, disk, requests and bytes.

    python benchmarks/staging.py [--mb 1000]

Pictures of noise, 1 MB each, are staged in moto's S3 over HTTP of this machine: interrupted at half, carried on, unchanged,
and with one changed picture; then an instance fetches and unpacks them; at last they are staged as new in another store. Each
step is a process of its own, whose peak memory is measured; disk is the most that its temporary folder held at once, looked at
every 20 ms. Prints a Markdown table.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SIDE = 577
"""Pixels: 577 * 577 * 3 bytes are a MB."""
BUCKET = "staging"
KILLED = 9
"""Exit code of a step that ended itself."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=1000, help="size of the dataset")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--most", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.folder, options.most)))
        return
    with tempfile.TemporaryDirectory(prefix="staging-") as name:
        folder = Path(name)
        draw(folder / "raw", options.mb)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        print("| step | seconds | peak memory | temporary disk | requests | sent or read |")
        print("| --- | --- | --- | --- | --- | --- |")
        try:
            row("import and read the dataset", folder, "snapshot")
            row("stage, killed at half", folder, "killed", most=options.mb * 10**6 // 2)
            row("stage, carried on", folder, "stage")
            row("stage, unchanged", folder, "stage")
            row("fetch and unpack on an instance", folder, "fetch")
            noise(folder / "raw" / "images" / "0000.png", 10**6)
            row("stage, one picture of 1 MB changed", folder, "stage")
            row("stage, new", folder, "new")
        finally:
            server.stop()


def draw(raw, count):
    """Write a detection dataset: noise does not compress."""
    (raw / "images").mkdir(parents=True)
    (raw / "labels").mkdir()
    for n in range(count):
        noise(raw / "images" / f"{n:04d}.png", n)
        (raw / "labels" / f"{n:04d}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (raw / "data.yaml").write_text("train: images\nnames: [noise]\n")


def noise(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


def row(name, folder, which, *, most=0):
    """Run a step as a process; print its line."""
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    peak, done = [0], threading.Event()

    def look():
        while not done.wait(0.02):
            peak[0] = max(peak[0], used(scratch))

    watch = threading.Thread(target=look)
    watch.start()
    command = [sys.executable, __file__, "--step", which, "--folder", str(folder), "--most", str(most)]
    try:
        answer = subprocess.run(
            command, env=os.environ | {"TMPDIR": str(scratch)}, capture_output=True, text=True, check=False
        )
    finally:
        done.set()
        watch.join()
    shutil.rmtree(scratch)
    if answer.returncode != (KILLED if most else 0):
        sys.exit(answer.stderr)
    found = json.loads(answer.stdout.splitlines()[-1])
    print(
        f"| {name} | {found['seconds']:.1f} | {found['memory'] / 2**20:.0f} MiB | {peak[0] / 1e6:.0f} MB "
        f"| {found['requests']} | {found['bytes'] / 1e6:.0f} MB |",
        flush=True,
    )


def used(folder):
    """Return the bytes of the files below a folder, of which some may vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def step(which, folder, most):
    """Do one step; return what it took. With `most` it dies once it has sent so many bytes."""
    counted = {"requests": 0, "bytes": 0}
    began = time.perf_counter()

    def look():
        if most and counted["bytes"] > most:
            print(json.dumps(taken(counted, began)), flush=True)
            os._exit(KILLED)

    count(counted, look)
    {
        "snapshot": lambda: tree_of(folder),
        "stage": lambda: stage(folder, "project"),
        "killed": lambda: stage(folder, "project"),
        "new": lambda: stage(folder, "another"),
        "fetch": lambda: fetch(folder),
    }[which]()
    return taken(counted, began)


def taken(counted, began):
    """Return requests, bytes, seconds and peak memory so far."""
    # Not ru_maxrss, which a child inherits from the process that forked it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory = int(status["VmHWM"].split()[0]) * 1024
    return counted | {"seconds": time.perf_counter() - began, "memory": memory}


def count(counted, look):
    """Count the requests that botocore sends and the bytes of their bodies and answers; `look` after each."""
    from botocore.httpsession import URLLib3Session

    plain = URLLib3Session.send

    def send(self, request):
        counted["requests"] += 1
        counted["bytes"] += int(request.headers.get("Content-Length") or 0)
        reply = plain(self, request)
        if request.method == "GET":
            counted["bytes"] += int(reply.headers.get("Content-Length") or 0)
        look()
        return reply

    URLLib3Session.send = send


def tree_of(folder):
    from gpu_offload.dataset.fingerprint import fingerprint
    from gpu_offload.dataset.snapshot import read_snapshot
    from gpu_offload.dataset.tree import materialise

    snapshot = read_snapshot(folder / "raw")
    return fingerprint(snapshot), materialise(snapshot, folder / "tree")


def stage(folder, prefix):
    from run_case import run_of

    from gpu_offload.infra.store.factory import open_store
    from gpu_offload.orchestrator.backends.staging import Staging
    from gpu_offload.orchestrator.output.console import Console

    fingerprint, tree = tree_of(folder)
    run = run_of(fingerprint=fingerprint)
    dataset = run.spec.dataset.model_copy(update={"archive": None})
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"dataset": dataset})})
    (folder / "fingerprint").write_text(fingerprint)
    Staging(open_store(f"s3://{BUCKET}/{prefix}"), Console(), lambda: tree).stage(run)


def fetch(folder):
    from gpu_offload.infra.store.factory import open_store
    from gpu_offload.remote_job import data
    from gpu_offload.remote_job.spec import DatasetRef
    from gpu_offload.remote_job.staged_dataset import dataset_key

    fingerprint = (folder / "fingerprint").read_text()
    reference = DatasetRef(fingerprint=fingerprint, archive=dataset_key(fingerprint))
    data.tree(reference, store=open_store(f"s3://{BUCKET}/project"), output=folder / "tmp" / "instance")


if __name__ == "__main__":
    main()
