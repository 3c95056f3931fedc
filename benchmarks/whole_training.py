"""`offload train` as a whole against plain `yolo train`: same model, data, epochs, size, batch and seed.

    python benchmarks/whole_training.py [--data FOLDER] [--image-size 160] [--epochs 3] [--rounds 2]

Both are measured as a user would call them, as whole processes, alternating in one run. The fixed cost (everything
but the epochs) is told apart. Without `--data` a generated dataset is used.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.run.events import events_of
from gpu_offload.orchestrator.run.timing import stages
from gpu_offload.orchestrator.state import state_folder
from gpu_offload.remote_job.result import Timings

EPOCHS = ("training", "validation", "saving")
BIN = Path(sys.executable).parent


def timed(command, folder, environment):
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began, done.stdout


def plain(tree, folder, options):
    """Train as Ultralytics' documentation says, on the same split. Returns whole and epoch seconds."""
    for cache in tree.rglob("*.cache"):
        cache.unlink()
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}
    environment.pop("OMP_NUM_THREADS", None)
    command = [
        str(BIN / "yolo"), "train", f"data={tree / 'data.yaml'}", f"model={options.model}",
        f"epochs={options.epochs}", f"imgsz={options.image_size}", f"batch={options.batch}", "seed=0",
        f"project={folder / 'runs'}", "name=plain", "exist_ok=True",
    ]  # fmt: skip
    seconds, _ = timed(command, folder, environment)
    with (folder / "runs" / "plain" / "results.csv").open() as file:
        return seconds, float(list(csv.DictReader(file))[-1]["time"])


def ours(folder):
    """Train through `offload train`. Returns whole seconds, those by stage, and the metrics."""
    shutil.rmtree(state_folder(folder), ignore_errors=True)
    began = time.time()
    seconds, answer = timed(
        [str(BIN / "offload"), "train", "--on", "cpu", "--json"], folder, dict(os.environ)
    )
    ended, report = time.time(), json.loads(answer)
    store = FolderStore(state_folder(folder) / "store")
    body, _ = store.read(f"runs/{report['run']}/result/result.json")
    found = stages(Timings.model_validate(json.loads(body)["timings"]))
    at = {event.event: event.time for event in events_of(store, report["run"], 1)}
    told = {e.stage: e.seconds for e in events_of(store, report["run"], 1) if e.event == "stage"}
    last = {name: told[name] for name in ("pictures", "export") if name in told}
    rest = found.pop("rest") - sum(last.values())
    parts = {
        "command: start and plan, until the training's process speaks": at["start"] - began,
        **found, **last, "rest of the process": rest,
        "command: verifying, publishing, end": ended - at["finished"],
    }  # fmt: skip
    return seconds, {**parts, "not accounted for": seconds - sum(parts.values())}, report["metrics"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a flat folder of images and YOLO labels")
    parser.add_argument("--classes", default="finger,thumb,marker", help="of --data")
    parser.add_argument("--model", default="yolov8n.yaml")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], help="a setting of ours, to try it"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whole-training-") as scratch:
        folder = Path(scratch)
        classes = options.classes.split(",")
        if options.data is None:
            from gpu_offload.dataset.synthetic import CLASSES, generate

            generate(folder / "raw")
            classes = list(CLASSES)
        else:
            shutil.copytree(options.data, folder / "raw", copy_function=shutil.copy)
        configuration = {
            "model": options.model, "epochs": options.epochs, "image-size": options.image_size, "batch": options.batch
        }  # fmt: skip
        lines = [f"{key} = {json.dumps(value)}" for key, value in configuration.items()]
        (folder / "offload.toml").write_text(
            f'[dataset]\npath = "raw"\nclasses = {json.dumps(classes)}\n[training]\n'
            + "\n".join(lines)
            + "\n"
        )
        tree = training_tree(folder, classes)
        for word in options.sets:
            os.environ["OFFLOAD_" + word.split("=")[0].replace(".", "_").replace("-", "_").upper()] = (
                word.split("=")[1]
            )
        rows, by_stage = [], []
        for number in range(options.rounds):
            theirs, epochs_theirs = plain(tree, folder, options)
            mine, parts, metrics = ours(folder)
            epochs_mine = sum(parts[name] for name in EPOCHS)
            rows.append((theirs, epochs_theirs, mine, epochs_mine))
            by_stage.append(parts)
            print(
                f"round {number + 1}: plain {theirs:.1f} s (epochs {epochs_theirs:.1f}), "
                f"offload train {mine:.1f} s (epochs {epochs_mine:.1f}), "
                f"mAP50-95 {metrics.get('map50_95', 0):.4f}",
                flush=True,
            )
        ratio = statistics.median(p / o for p, _, o, _ in rows)
        epochs = statistics.median(p / o for _, p, _, o in rows)
        print(f"\nwhole: {ratio:.2f} times as fast as plain; epochs only: {epochs:.2f} times")
        fixed = (
            statistics.median(o - e for _, _, o, e in rows),
            statistics.median(p - e for p, e, _, _ in rows),
        )
        print(
            f"fixed cost: ours {fixed[0]:.1f} s, plain {fixed[1]:.1f} s\n\n| stage | seconds |\n| --- | --- |"
        )
        for name in by_stage[0]:
            print(f"| {name} | {statistics.median(parts[name] for parts in by_stage):.2f} |")


def training_tree(folder, classes):
    from gpu_offload.dataset.snapshot import read_snapshot
    from gpu_offload.dataset.tree import materialise

    tree = materialise(read_snapshot(folder / "raw", classes=classes), folder / "tree")
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(classes))
    (tree / "data.yaml").write_text(f"path: {tree}\ntrain: images/train\nval: images/val\nnames:\n{names}\n")
    return tree


if __name__ == "__main__":
    main()
