"""How much faster `remote_job` trains than `yolo train`, on this machine.

    python benchmarks/training_speed.py                          # the whole matrix
    python benchmarks/training_speed.py --models yolov8n --sizes 160 320 --dataset FOLDER
    python benchmarks/training_speed.py --report                 # table and plot of what was measured before

Three arms, in turns, each a process of its own as a user starts it: `plain` (`yolo train`), `plain, all threads`
(the same with every core given to torch) and `ours` (`python -m gpu_offload.remote_job SPEC.json`). Measured are epochs only,
training and validation, from Ultralytics' own results.csv: the time column counts from after the start-up. The
first epoch warms up and is dropped; the median of the rest counts. Start-up (the process's wall time before
the first epoch, and after the last) and peak memory stand beside it. Mosaic stays on, as it is in all but the last ten
epochs of a usual training; plots are off in every arm.

Cells that are in the output file already are not measured again, so an interrupted run goes on. The whole matrix
takes about 20 minutes on two cores.
"""

import argparse
import csv
import itertools
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_offload.dataset import synthetic
from gpu_offload.dataset.fingerprint import fingerprint
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.task import Task
from gpu_offload.dataset.tree import materialise
from gpu_offload.remote_job import machine
from gpu_offload.remote_job.files import durable
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec
from gpu_offload.remote_job.speed import capacity

ROOT = Path(__file__).resolve().parent.parent
ARMS = ("plain", "plain, all threads", "ours")
SUFFIX = {"detect": "", "segment": "-seg", "classify": "-cls"}

QUIET = 0.1
"""Processors that other programs may keep busy while we measure."""

ALL_THREADS = """
import os, ultralytics.utils as u, ultralytics.utils.torch_utils as t
u.NUM_THREADS = t.NUM_THREADS = int(os.environ["OMP_NUM_THREADS"])
from ultralytics.cfg import entrypoint
entrypoint()
"""
"""`yolo`, but for the number of threads, which no setting of Ultralytics' reaches."""


def boxes(label: Path) -> list[tuple[int, float, float, float, float]]:
    """Return class, left, top, right, bottom of each row of a label file."""
    result = []
    for line in label.read_text().splitlines():
        words = line.split()
        x, y, w, h = map(float, words[1:5])
        result.append((int(float(words[0])), x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return result


def prepare(source: Path, folder: Path, task: str, images: int, validation: int) -> tuple[Path, str]:
    """Lay out a training tree of a flat detection dataset, for any task; return it and its fingerprint.

    Segments are the boxes' corners; classes to tell apart are the largest crops.
    """
    files = [path for path in sorted(source.iterdir()) if path.suffix in {".jpg", ".png"}]
    files = [path for path in files if path.with_suffix(".txt").exists() and boxes(path.with_suffix(".txt"))]
    random.Random(0).shuffle(files)
    chosen = {"train": files[:images], "val": files[images : images + validation]}
    raw = folder / f"raw-{task}"
    classes = 1 + max(
        box[0] for paths in chosen.values() for path in paths for box in boxes(path.with_suffix(".txt"))
    )
    for split, paths in chosen.items():
        for path in paths:
            found = boxes(path.with_suffix(".txt"))
            if task == "classify":
                crop(path, found, raw / split)
                continue
            target = raw / "images" / split / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            label = raw / "labels" / split / f"{path.stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            if task == "detect":
                shutil.copy(path.with_suffix(".txt"), label)
            else:
                rows = (
                    f"{c} {a} {b} {d} {b} {d} {e} {a} {e}" for c, *box in found for a, b, d, e in [clip(box)]
                )
                label.write_text("\n".join(rows) + "\n")
    if task != "classify":
        names = [f"class{number}" for number in range(classes)]
        (raw / "data.yaml").write_text(
            json.dumps({"train": "images/train", "val": "images/val", "names": names})
        )
    snapshot = read_snapshot(raw, task=Task(task))
    return materialise(snapshot, folder / f"tree-{task}"), fingerprint(snapshot)


def clip(box: list[float]) -> list[float]:
    """Return a box within the picture."""
    return [min(1.0, max(0.0, value)) for value in box]


def crop(path: Path, found: list[Any], folder: Path) -> None:
    """Save the largest object of a picture below its class."""
    from PIL import Image

    number, *box = max(found, key=lambda row: (row[3] - row[1]) * (row[4] - row[2]))
    left, top, right, bottom = clip(box)
    with Image.open(path) as image:
        width, height = image.size
        target = folder / f"class{number}" / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        corners = (
            left * width,
            top * height,
            max(right * width, left * width + 8),
            max(bottom * height, top * height + 8),
        )
        image.convert("RGB").crop(tuple(map(int, corners))).save(target, quality=95)


def busy_seconds() -> float:
    """Return how many seconds all processors of the machine have worked since it started, for whomever."""
    words = Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    user, nice, system, _idle, _waiting, irq, softirq = map(int, words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def environment(config: Path, **more: str) -> dict[str, str]:
    """Return the environment of a fresh shell: none of our settings, and a private configuration."""
    ours = {"OMP_NUM_THREADS", "GLIBC_TUNABLES", "MKL_NUM_THREADS"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {
        **inherited,
        "YOLO_CONFIG_DIR": str(config),
        "YOLO_OFFLINE": "true",
        "PYTHONPATH": str(ROOT),
        **more,
    }


def measure(
    arm: str, cell: dict[str, Any], tree: Path, mark: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Train once and return what it took."""
    with tempfile.TemporaryDirectory(prefix="training-speed-") as name:
        folder = Path(name)
        model = f"{cell['model']}{SUFFIX[cell['task']]}.yaml"
        # Anything but mosaic means nothing to a classifier, and warnings of it would be all that differs.
        extra = {} if cell["task"] == "classify" else {"close_mosaic": 0}
        if arm == "ours":
            spec = TrainingSpec(
                run="benchmark",
                attempt=1,
                training_key="benchmark",
                task=Task(cell["task"]),
                dataset=DatasetRef(fingerprint=mark, tree=str(tree)),
                model=model,
                epochs=options.epochs,
                image_size=cell["size"],
                batch=options.batch,
                seed=0,
                hyperparameters={"plots": False, **extra},
                output=str(folder / "out"),
            )
            (folder / "spec.json").write_text(spec.model_dump_json())
            command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(folder / "spec.json")]
            variables = environment(folder)
            results = folder / "out" / "work" / "train" / "results.csv"
        else:
            data = tree
            if cell["task"] != "classify":
                data = folder / "data.yaml"
                names = json.loads((tree.parent / f"raw-{cell['task']}" / "data.yaml").read_text())
                data.write_text(json.dumps({**names, "path": str(tree)}))
            yolo = [str(Path(sys.executable).with_name("yolo"))]
            variables = environment(folder)
            if arm != "plain":
                yolo = [sys.executable, "-c", ALL_THREADS]
                variables = environment(folder, OMP_NUM_THREADS=str(capacity.capacity().cores))
            settings = {
                "data": data,
                "model": model,
                "epochs": options.epochs,
                "imgsz": cell["size"],
                "batch": options.batch,
                "plots": False,
                "pretrained": False,
                "device": "cpu",
                "project": folder,
                "name": "run",
                **extra,
            }
            command = [*yolo, cell["task"], "train", *(f"{key}={value}" for key, value in settings.items())]
            results = folder / "run" / "results.csv"
        begun, busy = time.perf_counter(), busy_seconds()
        log = folder / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=variables, cwd=folder, stdout=file, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        own = usage.ru_utime + usage.ru_stime
        if process.returncode:
            raise SystemExit(f"{arm}, {cell}: exit code {process.returncode}\n{log.read_text()[-3000:]}")
        with results.open() as file:
            rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
        ends = [float(row["time"]) for row in rows]
        speed = {}
        if arm == "ours":
            speed = json.loads((folder / "out" / "result" / "result.json").read_text())["speed"]
    return {
        **cell,
        "arm": arm,
        "epoch_seconds": [round(b - a, 3) for a, b in itertools.pairwise(ends)],
        "first_epoch": ends[0],
        "start_up": round(wall - ends[-1], 2),
        "cpu_seconds": round(own, 1),
        "busy_elsewhere": round(max(0.0, busy_seconds() - busy - own) / wall, 3),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "speed": speed,
        "machine": machine.name(),
        "date": time.strftime("%Y-%m-%d"),
    }


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Return what all measurements in one file have in common."""
    return {
        "dataset": options.dataset.name if options.dataset else "sample",
        "images": options.images,
        "validation": options.validation,
        "epochs": options.epochs,
        "batch": options.batch,
    }


def kept(path: Path, conditions: dict[str, Any], *, empty: Any) -> Any:
    """Return the measurements in a file; refuse those that were made under other conditions."""
    if not path.exists():
        return empty
    found = json.loads(path.read_text())
    if found["conditions"] != conditions:
        raise SystemExit(
            f"{path}: was measured with {found['conditions']}, not with {conditions}; give another --output"
        )
    return found["measured"]


def keep(path: Path, conditions: dict[str, Any], measured: Any) -> None:
    """Replace the measurements in a file, in one step."""
    durable.write(path, json.dumps({"conditions": conditions, "measured": measured}, indent=1).encode())


def quietest(tries: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return the first try that had the machine nearly to itself, or else the one that had the most of it."""
    seen = []
    for row in tries:
        seen.append(row)
        if row["busy_elsewhere"] < QUIET:
            break
    return min(seen, key=lambda row: float(row["busy_elsewhere"]))


def epoch(rows: list[dict[str, Any]], cell: tuple[Any, ...], arm: str) -> float:
    """Return the median epoch of an arm in a cell, seconds."""
    of_cell = [row for row in rows if (row["task"], row["model"], row["size"]) == cell and row["arm"] == arm]
    return statistics.median(seconds for row in of_cell for seconds in row["epoch_seconds"])


def whole_cells(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return task, model and size of each cell that was measured in all arms."""
    found: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        found.setdefault((row["task"], row["model"], row["size"]), set()).add(row["arm"])
    return sorted(cell for cell, arms in found.items() if arms == set(ARMS))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    cells = whole_cells(rows)
    lines = [
        "| task | model | px | plain, s/epoch | all threads | ours | against plain | against all threads | peak memory, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    gains: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        plain, every, ours = (epoch(rows, cell, arm) for arm in ARMS)
        peaks = [
            max(r["peak_mib"] for r in rows if (r["task"], r["model"], r["size"]) == cell and r["arm"] == arm)
            for arm in (ARMS[0], ARMS[2])
        ]
        gains.setdefault(cell[0], []).append((plain / ours, every / ours))
        lines.append(
            f"| {cell[0]} | {cell[1]} | {cell[2]} | {plain:.2f} | {every:.2f} | {ours:.2f} "
            f"| {plain / ours:.2f} | {every / ours:.2f} | {peaks[0]} → {peaks[1]} ({peaks[1] / peaks[0]:.2f}) |"
        )
    lines.append("")
    for task, pairs in gains.items():
        means = [math.exp(statistics.fmean(math.log(pair[i]) for pair in pairs)) for i in (0, 1)]
        lines.append(
            f"Geometric mean, {task}: {means[0]:.2f} times plain, {means[1]:.2f} times plain with all threads "
            f"({len(pairs)} cells, the least {min(p[0] for p in pairs):.2f} and {min(p[1] for p in pairs):.2f})."
        )
    busy = [row["busy_elsewhere"] for row in rows]
    lines.append(
        f"\nOther programs kept {statistics.median(busy):.2f} processors busy in the median measurement, {max(busy):.2f} at "
        f"most.\n\n{rows[-1]['machine']}, {rows[-1]['date']}.\n"
    )
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw epochs an hour by cell and arm."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cells = whole_cells(rows)
    figure, axes = plt.subplots(figsize=(max(6, 0.9 * len(cells) + 2), 4.2), layout="constrained")
    for number, (arm, colour) in enumerate(zip(ARMS, ("#9aa0a6", "#5b8db8", "#d9642c"), strict=True)):
        base = [epoch(rows, cell, ARMS[0]) for cell in cells]
        gain = [plain / epoch(rows, cell, arm) for plain, cell in zip(base, cells, strict=True)]
        bars = axes.bar(
            [i + (number - 1) * 0.27 for i in range(len(cells))], gain, 0.25, label=arm, color=colour
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7)
    axes.set_xticks(
        range(len(cells)), [f"{model}\n{task}\n{size} px" for task, model, size in cells], fontsize=7
    )
    axes.set_ylabel("speed, plain = 1")
    axes.set_title(f"Epochs of training: {rows[-1]['machine']}", fontsize=9)
    axes.legend(fontsize=8, frameon=False, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["yolov8n", "yolo11n", "yolo26n"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[160, 320, 640])
    parser.add_argument("--tasks", nargs="+", choices=list(SUFFIX), default=list(SUFFIX))
    parser.add_argument(
        "--dataset", type=Path, help="a flat folder of images and YOLO boxes; default: drawn shapes"
    )
    parser.add_argument("--images", type=int, default=64, help="to train with")
    parser.add_argument("--validation", type=int, default=16, help="images to validate with")
    parser.add_argument("--epochs", type=int, default=3, help="the first warms up")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--tries", type=int, default=1, help="measure again while others use the machine")
    parser.add_argument("--output", type=Path, default=ROOT / "training_speed.json")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, and report."""
    options = arguments()
    if options.report and options.output.exists():
        common = json.loads(options.output.read_text())["conditions"]
    else:
        common = conditions(options)
    rows: list[dict[str, Any]] = kept(options.output, common, empty=[])
    with tempfile.TemporaryDirectory(prefix="training-speed-") as name:
        folder = Path(name)
        source = options.dataset
        if source is None and not options.report:
            source = folder / "sample"
            synthetic.generate(source, images=options.images + options.validation, size=640)
        trees: dict[str, tuple[Path, str]] = {}
        cells = [
            {"task": task, "model": model, "size": size, "repeat": repeat}
            for repeat, task, model, size in itertools.product(
                range(options.repeats), options.tasks, options.models, options.sizes
            )
            # The other tasks share all but the head with detection: one model, the middle size.
            if task == "detect"
            or (model, size) == (options.models[0], sorted(options.sizes)[len(options.sizes) // 2])
        ]
        for cell, arm in itertools.product([] if options.report else cells, ARMS):
            if any(all(row[key] == value for key, value in {**cell, "arm": arm}.items()) for row in rows):
                continue
            if cell["task"] not in trees:
                trees[cell["task"]] = prepare(
                    source, folder, cell["task"], options.images, options.validation
                )
            row = quietest(measure(arm, cell, *trees[cell["task"]], options) for _ in range(options.tries))
            print(
                arm,
                cell,
                row["epoch_seconds"],
                f"{row['peak_mib']} MiB, {row['busy_elsewhere']} busy",
                file=sys.stderr,
                flush=True,
            )
            rows.append(row)
            keep(options.output, common, rows)
    if not whole_cells(rows):
        raise SystemExit(f"{options.output}: no cell was measured in all arms yet")
    print(table(rows))
    print(", ".join(f"{name} {value}" for name, value in common.items()))
    plot(rows, options.output.with_suffix(".svg"))


if __name__ == "__main__":
    main()
