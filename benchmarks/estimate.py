"""How well `offload train --on cpu` knows its time: a matrix of whole trainings, their estimates and what they took.

    python benchmarks/estimate.py --records estimate.jsonl [--only NAME ...] [--minutes 5] [--list] [--report]

Each configuration is a project of its own with generated pictures and no history, trained by the command in a process of
its own. A record is a line of the file: what the plan said, what was said after the first steps and after the first epoch,
and the wall time of the whole process. A configuration that has a record is not run again, so that the matrix can be run in
pieces; `--again` runs it once more. `--report` prints the tables from the records alone, with `--replay` with what this
version says by the steps in them.

Names that begin with `real` train on the pictures of `--dataset`, those that begin with `gpu-` need a GPU, those that end in
`hour` take about an hour on one core. Names that end in `+N` run beside N busy programs, `+N>` beside N that begin in the
middle, `+N<` beside N that end in the middle.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.gpu import estimate_gpu_prior
from gpu_offload.orchestrator.estimate.workload import workload
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.run.events import events_of
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.revision import Revision
from gpu_offload.orchestrator.state import state_folder
from gpu_offload.remote_job.machine import cores
from gpu_offload.remote_job.machine import name as machine_name
from gpu_offload.remote_job.result import ProgressEvent

BIN = Path(sys.executable).parent
BUSY = [sys.executable, "-c", "while True: pass"]
DETECT, CLASSIFY, SEGMENT, POSE = Task.DETECT, Task.CLASSIFY, Task.SEGMENT, Task.POSE


def case(model, size, batch, epochs, images, task=DETECT, source=320, **hyperparameters):
    return {
        "model": model, "image_size": size, "batch": batch, "epochs": epochs, "images": images, "task": str(task),
        "source": source, "hyperparameters": hyperparameters,
    }  # fmt: skip


MATRIX = {
    "8n-160": case("yolov8n.yaml", 160, 16, 5, 120),
    "8n-96-b32": case("yolov8n.yaml", 96, 32, 12, 200),
    "8n-224-b8": case("yolov8n.yaml", 224, 8, 4, 120),
    "8n-320-b4": case("yolov8n.yaml", 320, 4, 3, 80),
    "8n-160-long": case("yolov8n.yaml", 160, 16, 20, 200),
    "8n-160-mosaic": case("yolov8n.yaml", 160, 16, 8, 160, close_mosaic=2),
    "8n-128-noplots": case("yolov8n.yaml", 128, 16, 6, 150, plots=False),
    "8n-160-noval": case("yolov8n.yaml", 160, 8, 6, 120, val=False),
    "8n-160-big": case("yolov8n.yaml", 160, 16, 4, 60, source=2400),
    "11n-160": case("yolo11n.yaml", 160, 16, 5, 120),
    "11n-224-b8": case("yolo11n.yaml", 224, 8, 4, 100),
    "11n-96-b4": case("yolo11n.yaml", 96, 4, 5, 120),
    "26n-160": case("yolo26n.yaml", 160, 16, 5, 120),
    "26n-128-b8": case("yolo26n.yaml", 128, 8, 6, 120),
    "8s-160-b8": case("yolov8s.yaml", 160, 8, 3, 80),
    "8n-rect": case("yolov8n.yaml", 192, 16, 5, 120, rect=True),
    "8n-multi": case("yolov8n.yaml", 160, 16, 6, 120, multi_scale=0.5),
    "8n-freeze": case("yolov8n.yaml", 192, 16, 6, 120, freeze=10),
    "8n-sgd": case("yolov8n.yaml", 160, 8, 5, 120, optimizer="SGD"),
    "cls-96": case("yolov8n-cls.yaml", 96, 16, 12, 200, CLASSIFY),
    "cls11-224": case("yolo11n-cls.yaml", 224, 16, 6, 150, CLASSIFY),
    "seg-160": case("yolov8n-seg.yaml", 160, 16, 4, 100, SEGMENT),
    "seg11-128": case("yolo11n-seg.yaml", 128, 8, 5, 100, SEGMENT),
    "pose-160": case("yolov8n-pose.yaml", 160, 16, 4, 100, POSE),
    "8n-192-b12": case("yolov8n.yaml", 192, 12, 7, 140),
    "8n-256-b8": case("yolov8n.yaml", 256, 8, 5, 100),
    "11s-128-b8": case("yolo11s.yaml", 128, 8, 4, 100),
    "12n-160": case("yolo12n.yaml", 160, 16, 5, 110),
    "26n-224": case("yolo26n.yaml", 224, 16, 4, 90),
    "pose11-192": case("yolo11n-pose.yaml", 192, 8, 5, 90, POSE),
    "cls-160-b24": case("yolov8n-cls.yaml", 160, 24, 15, 260, CLASSIFY),
    "8n-128-b64": case("yolov8n.yaml", 128, 64, 6, 400),
    "11n-320-b8": case("yolo11n.yaml", 320, 8, 3, 80),
    "26s-96-b16": case("yolo26s.yaml", 96, 16, 4, 120),
    "8n-160-b2": case("yolov8n.yaml", 160, 2, 3, 80),
    "8n-224-noval-noplots": case("yolov8n.yaml", 224, 16, 5, 120, val=False, plots=False),
    "11n-192-photos": case("yolo11n.yaml", 192, 8, 4, 60, source=1600),
    "seg26-160": case("yolo26n-seg.yaml", 160, 8, 4, 80, SEGMENT),
    "pose26-128": case("yolo26n-pose.yaml", 128, 16, 5, 110, POSE),
    "cls-64-b64": case("yolov8s-cls.yaml", 64, 64, 8, 500, CLASSIFY),
    "9t-160": case("yolov9t.yaml", 160, 16, 4, 100),
    "10n-192": case("yolov10n.yaml", 192, 8, 4, 100),
    "5n-224-b4": case("yolov5n.yaml", 224, 4, 4, 90),
    "8n-p2-160": case("yolov8n-p2.yaml", 160, 16, 5, 100),
    "11n-480-b2": case("yolo11n.yaml", 480, 2, 2, 60, source=640),
    "cls26-128": case("yolo26n-cls.yaml", 128, 32, 10, 300, CLASSIFY),
    "one-epoch": case("yolov8n.yaml", 256, 8, 1, 200),
    "real-8n-320": case("yolov8n.yaml", 320, 16, 4, 377, source=None),
    "real-11n-224": case("yolo11n.yaml", 224, 8, 4, 377, source=None),
    "8n-224-minutes": case("yolov8n.yaml", 224, 16, 30, 240),
    "11n-160-minutes": case("yolo11n.yaml", 160, 16, 40, 240),
    "seg-160-minutes": case("yolov8n-seg.yaml", 160, 16, 25, 200, SEGMENT),
    "cls-224-minutes": case("yolov8n-cls.yaml", 224, 16, 40, 400, CLASSIFY),
    "gpu-8n-640": case("yolov8n.yaml", 640, 16, 5, 600),
    "gpu-8m-640": case("yolov8m.yaml", 640, 16, 5, 400),
    "gpu-26n-640": case("yolo26n.yaml", 640, 16, 5, 400),
    "gpu-8n-320-b64": case("yolov8n.yaml", 320, 64, 14, 600),
    "gpu-seg-640": case("yolov8n-seg.yaml", 640, 16, 4, 300, SEGMENT),
    "gpu-cls-224": case("yolov8n-cls.yaml", 224, 64, 10, 900, CLASSIFY),
    "8n-320-hour": case("yolov8n.yaml", 320, 16, 220, 600, patience=1000),
    "11n-224-hour": case("yolo11n.yaml", 224, 16, 360, 600, patience=1000),
    "cls-224-hour": case("yolov8n-cls.yaml", 224, 32, 550, 900, CLASSIFY, patience=1000),
}
SHARED = [
    f"{name}+{n}"
    for name in ("8n-160", "11n-224-b8", "cls-96", "seg-160")
    for n in ("1", "2", "4", "2>", "2<")
]
NAMES = [
    *(name for name in MATRIX if not name.endswith("hour") and not name.startswith("gpu-")),
    *SHARED,
    *(n for n in MATRIX if n.endswith("hour")),
    *(n for n in MATRIX if n.startswith("gpu-")),
]


def project(folder, name, dataset):
    """Write the project of a configuration."""
    given = MATRIX[name.partition("+")[0]]
    if given["source"] is None:
        shutil.copytree(dataset, folder / "raw")
    else:
        generate(folder / "raw", images=given["images"], size=given["source"], task=Task(given["task"]))
    lines = ["[dataset]", 'path = "raw"', f'task = "{given["task"]}"']
    if given["source"] is None:
        rows = [row for path in dataset.glob("*.txt") for row in path.read_text().splitlines() if row.strip()]
        count = 1 + max(int(row.split()[0]) for row in rows)
        lines.append(f"classes = {json.dumps([f'class {n}' for n in range(count)])}")
    lines.append("[training]")
    settings = {
        "model": given["model"],
        "epochs": given["epochs"],
        "image-size": given["image_size"],
        "batch": given["batch"],
    }
    lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    if given["hyperparameters"]:
        lines += [
            "[training.hyperparameters]",
            *(f"{k} = {json.dumps(v)}" for k, v in given["hyperparameters"].items()),
        ]
    (folder / "offload.toml").write_text("\n".join(lines) + "\n")


def run(name, sets, dataset):
    """Train one configuration; return its record."""
    beside = name.partition("+")[2]
    count = int(beside.rstrip("<>") or 0)
    with tempfile.TemporaryDirectory(prefix="estimate-") as scratch:
        folder = Path(scratch)
        project(folder, name, dataset)
        environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        load = os.getloadavg()[0]
        neighbours = [] if beside.endswith(">") else [subprocess.Popen(BUSY) for _ in range(count)]
        try:
            began = time.time()
            command = [str(BIN / "offload"), "train", "--on", "cpu", "--json", *(f"--set={s}" for s in sets)]
            with subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                if beside.endswith((">", "<")):
                    _wait_for_epochs(environment, process)
                    if beside.endswith(">"):
                        neighbours = [subprocess.Popen(BUSY) for _ in range(count)]
                    else:
                        _end(neighbours)
                answer, errors = process.communicate()
            wall = time.time() - began
        finally:
            _end(neighbours)
        if process.returncode != 0:
            raise RuntimeError(f"{name} failed:\n{answer[-2000:]}\n{errors[-3000:]}")
        os.environ["XDG_STATE_HOME"] = environment["XDG_STATE_HOME"]
        return {
            "name": name, "at": time.strftime("%Y-%m-%d %H:%M"), "machine": machine_name("cpu"),
            "python": platform.python_version(), "cores": cores(), "load": load, "wall": round(wall, 2), **_said(folder, began, wall),
        }  # fmt: skip


def _end(processes):
    for process in processes:
        process.kill()
        process.wait()


def _wait_for_epochs(environment, process):
    """Wait until half of the epochs are over, by the progress file of the training."""
    while process.poll() is None:
        for path in Path(environment["XDG_STATE_HOME"]).rglob("heartbeat.json"):
            try:
                beat = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if beat["epochs_completed"] * 2 >= beat["epochs"]:
                return
        time.sleep(0.2)


def _said(folder, began, wall):
    """Return what was said of the whole time, by when it was said, and where the time went."""
    store = open_store(f"file:{state_folder(folder) / 'store'}")
    (key,) = [info.key for info in store.list("runs/") if info.key.endswith("/run.json")]
    record = RunRecord.model_validate_json(store.read(key)[0])
    events = events_of(store, record.id, 1)
    (timing,) = [json.loads(store.read(info.key)[0]) for info in store.list("timings/")]
    last = [event.time for event in events if event.event == "epoch"][-1]
    return {
        **_revised(record, events, began),
        "end": round(began + wall - last, 2),
        "publishing": round(began + wall - events[-1].time, 2),
        "stages": timing["stages"],
        "process": timing["actual"],
        "environment": timing.get("environment"),
        "began": began,
        "run": record.model_dump(mode="json"),
        "events": [
            event.model_dump(mode="json", exclude_none=True)
            for event in events
            if event.event in {"pace", "epoch", "stage"}
        ],
    }


def _revised(record, events, began):
    """Return the plan's interval and those after the first steps, the first epoch and half of the epochs."""
    revision, found = Revision(record, began), {"planned": record.estimate.json()}
    for event in events:
        before = revision.latest
        revision.take(event)
        if revision.latest is before:
            continue
        stage = "steps" if event.event == "pace" else f"epoch {event.epoch}"
        found |= {"steps": revision.latest.interval.json()} if "steps" not in found else {}
        if stage == "epoch 1" or (event.epoch or 0) * 2 == record.spec.epochs:
            found |= {"first epoch" if stage == "epoch 1" else "half": revision.latest.interval.json()}
        if "share" not in found and event.pace:
            found |= {"share": event.pace.share, "said_at": round(event.time - began, 2)}
            found["terms"] = {name: round(value, 3) for name, value in revision.latest.breakdown.items()}
    return found


def replayed(record):
    """Return a record with what this version says by the same steps; the plan's and the end's expectation stay."""
    run, events = RunRecord.model_validate(record["run"]), map(ProgressEvent.model_validate, record["events"])
    return record | _revised(run, events, record["began"])


def report(records):
    """Print errors and coverage, by who was beside it and by when it was said."""
    for title, chosen in (
        (
            "quiet (a share of 0.93 and more in the first steps, nothing beside it)",
            lambda r: "+" not in r["name"] and r.get("share", 0) >= 0.93,
        ),
        ("busy", lambda r: "+" in r["name"] or r.get("share", 0) < 0.93),
    ):
        those = [record for record in records if chosen(record)]
        if not those:
            continue
        print(
            f"\n{title}: {len(those)} trainings of {min(r['wall'] for r in those):.0f} to {max(r['wall'] for r in those):.0f} s\n"
        )
        print("| said | median error | P90 | max | inside the 80 % interval | half-width, median |")
        print("| --- | --- | --- | --- | --- | --- |")
        for stage in ("planned", "steps", "first epoch", "half"):
            said = [r for r in those if stage in r]
            if not said:
                continue
            errors = sorted(abs(r[stage]["likely"] / r["wall"] - 1) for r in said)
            inside = sum(r[stage]["low"] <= r["wall"] <= r[stage]["high"] for r in said)
            width = statistics.median(
                (r[stage]["high"] - r[stage]["low"]) / 2 / r[stage]["likely"] for r in said
            )
            p90 = errors[min(len(errors) - 1, round(0.9 * (len(errors) - 1)))]
            print(
                f"| {stage} | {statistics.median(errors):.1%} | {p90:.1%} | {errors[-1]:.1%} | "
                f"{inside} of {len(said)} | {width:.0%} |"
            )
        print()
        for record in those:
            said = record.get("steps", record["planned"])
            print(
                f"  {record['name']:16} {record['wall']:7.1f} s  planned {record['planned']['likely'] / record['wall'] - 1:+6.1%}"
                f"  steps {said['likely'] / record['wall'] - 1:+6.1%} ({said['low']:.0f} to {said['high']:.0f})"
                f"  share {record.get('share', 1):.2f}"
            )
    regret([record for record in records if not record["name"].startswith("gpu-")])


LIMITS = (0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 3.0)
"""Limits that a decision is tried with, as shares of what the training really took."""


def regret(records):
    """Print what decisions by these estimates would have cost: an instance too many, or a limit that was missed.

    An instance is the cheapest spot offer of the built-in table, for as long as the GPU prior says.
    """
    offer = min((o for o in TABLE if o.gpu and o.market == "spot"), key=lambda o: o.usd_per_hour)
    print("\n| said | decisions | wrong, limit inside the interval | outside | rented for nothing | late |")
    print("| --- | --- | --- | --- | --- | --- |")
    for stage in ("planned", "steps", "first epoch", "half"):
        wrong, usd, late, count = {True: 0, False: 0}, 0.0, 0.0, 0
        for record in (record for record in records if stage in record):
            said, wall = record[stage], record["wall"]
            for limit in (share * wall for share in LIMITS):
                count += 1
                stays = said["high"] <= limit
                if stays == (wall <= limit):
                    continue
                wrong[said["low"] <= limit <= said["high"]] += 1
                if stays:
                    late += wall - limit
                else:
                    usd += rented_seconds(record["name"], offer) / 3600 * offer.usd_per_hour
        if count:
            print(
                f"| {stage} | {count} | {wrong[True]} | {wrong[False]} | ${usd:.2f} | {late / 3600:.3f} h |"
            )


def rented_seconds(name, offer):
    """Return what an instance would take, by the GPU prior."""
    given = MATRIX[name.partition("+")[0]]
    held_out = given["images"] // 5
    work = workload(
        task=Task(given["task"]), model=given["model"], image_size=given["image_size"], batch=given["batch"],
        epochs=given["epochs"], train_images=given["images"] - held_out, val_images=held_out,
        hyperparameters=given["hyperparameters"],
    )  # fmt: skip
    return estimate_gpu_prior(work, offer.gpu, offer.vcpus).point


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no training after so many")
    parser.add_argument(
        "--again", action="store_true", help="run configurations that have a record once more"
    )
    parser.add_argument("--set", dest="sets", action="append", default=[], help="a setting of ours")
    parser.add_argument(
        "--dataset", type=Path, help="a flat detection dataset for the names that begin with `real`"
    )
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--replay", action="store_true", help="estimate again, by the steps in the records")
    options = parser.parse_args()
    if options.list:
        print("\n".join(NAMES))
        return
    lines = options.records.read_text().splitlines() if options.records.exists() else []
    records = [json.loads(line) for line in lines]
    if not options.report:
        until = time.monotonic() + options.minutes * 60
        done = set() if options.again else {record["name"] for record in records}
        for name in options.only or NAMES:
            if name in done or (name.startswith("real") and options.dataset is None):
                continue
            if time.monotonic() > until:
                break
            try:
                record = run(name, options.sets, options.dataset)
            except RuntimeError as error:
                print(error, flush=True)
                continue
            records.append(record)
            with options.records.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"{name}: {record['wall']} s, planned {record['planned']['likely']}, steps {record.get('steps')}",
                flush=True,
            )
    report([replayed(record) if options.replay else record for record in records])


if __name__ == "__main__":
    main()
