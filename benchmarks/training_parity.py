"""Whether a training at full speed learns what the same training learns without any switch.

    python benchmarks/training_parity.py                     # 5 seeds, all switches against none
    python benchmarks/training_parity.py --switches fused_norm channels_last
    python benchmarks/training_parity.py --against plain     # against `yolo train`, which shuffles in another order

Trainings that are in the output file already are not repeated. Five seeds take about a quarter of an hour on two cores.

Pairs of trainings, equal but for the switches, one pair a seed, all from the same weights, which are trained first:
a training from nothing is chaotic in its first epochs, whatever differs. Reported: the paired difference of the final
metrics with its 95 % interval (Student's t over the seeds), beside how far the seeds themselves are apart; and how far
the loss curves are apart, epoch by epoch, in the median. `--floor` measures a third way: nothing but another number of
threads, which sums in another order. What it is apart no two machines can be held to.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))

import training_speed  # noqa: E402 - beside this file

from gpu_offload.dataset import synthetic  # noqa: E402
from gpu_offload.dataset.task import Task  # noqa: E402
from gpu_offload.infra.store.files import sha256_of  # noqa: E402
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec, Weights  # noqa: E402
from gpu_offload.remote_job.speed import plan  # noqa: E402

SWITCHES = [name for name in plan.CHOICES if name != "trial"]
"""A trial could turn off what is to be compared."""

FIRST_SEED = 1000
"""Of the training that gives the weights, so that no other one repeats it."""

T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t at 97.5 % by degrees of freedom, from any table."""


def train(
    options: argparse.Namespace,
    seed: int,
    tree: Path,
    mark: str,
    way: str,
    *,
    start: Path | None = None,
    keep: Path | None = None,
) -> list[dict[str, float]]:
    """Train one way, from given weights or from none; return results.csv, one row an epoch.

    Args:
        options: The command line.
        seed: Of the training.
        tree: The dataset.
        mark: The dataset's fingerprint.
        way: `on`, `off`, `reordered` or `plain`.
        start: A file of weights to start from.
        keep: Where to put the model.
    """
    with tempfile.TemporaryDirectory(prefix="training-parity-") as name:
        folder = Path(name)
        variables = training_speed.environment(folder)
        if way == "plain":
            names = json.loads((tree.parent / f"raw-{options.task}" / "data.yaml").read_text())
            (folder / "data.yaml").write_text(json.dumps({**names, "path": str(tree)}))
            settings = {
                "data": folder / "data.yaml",
                "model": options.model,
                "epochs": options.epochs,
                "imgsz": options.size,
                "batch": options.batch,
                "seed": seed,
                "plots": False,
                "pretrained": start or False,
                "device": "cpu",
                "project": folder,
                "name": "run",
            }
            yolo = str(Path(sys.executable).with_name("yolo"))
            command = [yolo, options.task, "train", *(f"{key}={value}" for key, value in settings.items())]
            results = folder / "run" / "results.csv"
        else:
            chosen = {*options.both, *{"on": options.switches, "reordered": ["threads"]}.get(way, [])}
            switches = {name: name in chosen for name in plan.CHOICES}
            spec = TrainingSpec(
                run="parity",
                attempt=1,
                training_key="parity",
                task=Task(options.task),
                dataset=DatasetRef(fingerprint=mark, tree=str(tree)),
                model=options.model,
                weights=Weights(sha256=sha256_of(start), path=str(start)) if start else None,
                epochs=options.epochs,
                image_size=options.size,
                batch=options.batch,
                seed=seed,
                hyperparameters={"plots": False},
                speed=switches,
                output=str(folder / "out"),
            )
            (folder / "spec.json").write_text(spec.model_dump_json())
            command = [sys.executable, "-P", "-m", "gpu_offload.remote_job", str(folder / "spec.json")]
            results = folder / "out" / "work" / "train" / "results.csv"
        done = subprocess.run(
            command,
            env=variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{way}, seed {seed}: exit code {done.returncode}\n{done.stdout[-3000:]}")
        if keep is not None:
            shutil.copy(folder / "out" / "result" / "model.pt", keep)
        with results.open() as file:
            return [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def report(pairs: list[tuple[list[dict[str, float]], list[dict[str, float]]]], ways: tuple[str, str]) -> str:
    """Return what the pairs say, as Markdown."""
    keys = list(pairs[0][0][-1])
    metrics = [key for key in keys if key.startswith("metrics/")]
    losses = [key for key in keys if "_loss" in key or key.endswith("/loss")]
    n = len(pairs)
    lines = [
        f"| final, {n} seeds | {ways[0]} | {ways[1]} | paired difference | 95 % interval | standard deviation over seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in metrics:
        base, ours = [pair[0][-1][key] for pair in pairs], [pair[1][-1][key] for pair in pairs]
        gaps = [b - a for a, b in zip(base, ours, strict=True)]
        mean = statistics.fmean(gaps)
        interval, spread = "-", "-"
        if n > 1:
            half = T95.get(n - 1, 2.0) * statistics.stdev(gaps) / n**0.5
            interval, spread = f"{mean - half:+.4f} .. {mean + half:+.4f}", f"{statistics.stdev(base):.4f}"
        averages = f"{statistics.fmean(base):.4f} | {statistics.fmean(ours):.4f}"
        lines.append(f"| {key.removeprefix('metrics/')} | {averages} | {mean:+.4f} | {interval} | {spread} |")
    gaps = [
        abs(ours[key] - base[key]) / abs(base[key])
        for left, right in pairs
        for base, ours in zip(left, right, strict=True)
        for key in losses
        if base[key]
    ]
    lines.append(
        f"\nLoss curves ({', '.join(losses)}), every epoch and seed: {statistics.median(gaps):.2%} apart in the "
        f"median, {max(gaps):.2%} at most."
    )
    return "\n".join(lines)


def main() -> None:
    """Train the pairs that are missing, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolov8n.yaml")
    parser.add_argument("--task", default="detect", choices=["detect", "segment"])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--start", type=int, default=60, help="epochs of the training that gives the weights; 0: none"
    )
    parser.add_argument("--floor", type=int, default=0, help="seeds for which the third way is measured, too")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--validation", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--dataset", type=Path, help="a flat folder of images and YOLO boxes; default: drawn shapes"
    )
    parser.add_argument("--switches", nargs="+", default=SWITCHES, choices=SWITCHES)
    parser.add_argument(
        "--both", nargs="+", default=[], choices=SWITCHES, help="switches that are on both ways"
    )
    parser.add_argument("--against", choices=["off", "plain"], default="off")
    parser.add_argument("--output", type=Path, default=ROOT / "training_parity.json")
    options = parser.parse_args()
    # Ultralytics' loader yields the same pictures whatever the number of threads, but sums round differently.
    common = {
        name: value for name, value in vars(options).items() if name not in ("seeds", "floor", "output")
    }
    common["dataset"] = options.dataset.name if options.dataset else "sample"
    runs: dict[str, Any] = training_speed.kept(options.output, common, empty={})
    with tempfile.TemporaryDirectory(prefix="training-parity-") as name:
        folder, source = Path(name), options.dataset
        if source is None:
            source = folder / "sample"
            synthetic.generate(source, images=options.images + options.validation, size=320)
        tree, mark = training_speed.prepare(source, folder, options.task, options.images, options.validation)
        start = options.output.with_suffix(".pt") if options.start else None
        if start is not None and not (runs and start.exists()):
            first = argparse.Namespace(**{**vars(options), "epochs": options.start})
            train(first, FIRST_SEED, tree, mark, "on", keep=start)
            print("the weights to start from", file=sys.stderr, flush=True)
        for seed in range(options.seeds):
            for way in (options.against, "on", *(["reordered"] if seed < options.floor else [])):
                if f"{way} {seed}" not in runs:
                    runs[f"{way} {seed}"] = train(options, seed, tree, mark, way, start=start)
                    training_speed.keep(options.output, common, runs)
                    print(f"{way}, seed {seed}", file=sys.stderr, flush=True)

    def pairs(way: str, seeds: int) -> list[Any]:
        return [(runs[f"{options.against} {seed}"], runs[f"{way} {seed}"]) for seed in range(seeds)]

    ways = ("`yolo train`" if options.against == "plain" else "switches off", "switches on")
    print(report(pairs("on", options.seeds), ways))
    if options.floor:
        print("\nNothing but the number of threads:\n")
        print(report(pairs("reordered", options.floor), (ways[0], "all threads")))
    print(
        f"\n{options.model}, {options.size} px, {options.epochs} epochs, {options.images} images; cores: {os.cpu_count()}"
    )


if __name__ == "__main__":
    main()
