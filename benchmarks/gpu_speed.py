"""What a GPU takes for the parts of a training: steps, loading, validation, memory; measured here, in a few minutes.

    python benchmarks/gpu_speed.py --records gpu.jsonl [--minutes 6] [--only NAME ...] [--list] [--report]

Three kinds of cells, each a training by this project's own trainer, built from a model definition:

`step`    one batch again and again, so that nothing waits for a loader: the first step, the usual one, the optimizer's
          part of it, the memory. What the prior calls iteration and image.
`load`    batches of the loader alone, with and without mosaic, one worker or eight.
`epoch`   whole epochs with the loader, two with mosaic and two without: seconds of training, validation, checkpoint.

A record is a line of the file; a cell with a record is not run again. `--report` prints the tables, beside what
`orchestrator.estimate` says of the same cells, from the records alone. To add speeds to `gpu_anchors`, see docs/estimate.md.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
import traceback
from pathlib import Path

BEGAN = time.perf_counter()

import torch  # noqa: E402

TORCH_S = time.perf_counter() - BEGAN

from gpu_offload.dataset.snapshot import read_snapshot  # noqa: E402
from gpu_offload.dataset.synthetic import generate  # noqa: E402
from gpu_offload.dataset.task import Task  # noqa: E402
from gpu_offload.dataset.tree import materialise  # noqa: E402
from gpu_offload.dataset.tree_manifest import read_tree  # noqa: E402
from gpu_offload.orchestrator.estimate.gpu import gpu_seconds_per_image  # noqa: E402
from gpu_offload.orchestrator.estimate.gpu_memory import memory_gib  # noqa: E402
from gpu_offload.orchestrator.estimate.workload import workload  # noqa: E402
from gpu_offload.orchestrator.offers.offer import gpu_named  # noqa: E402
from gpu_offload.remote_job import data, machine  # noqa: E402
from gpu_offload.remote_job.context import Bench  # noqa: E402
from gpu_offload.remote_job.files.checkpoint import Checkpoints  # noqa: E402
from gpu_offload.remote_job.interruption import Interruption  # noqa: E402
from gpu_offload.remote_job.progress import Progress  # noqa: E402
from gpu_offload.remote_job.spec import DatasetRef, TrainingSpec  # noqa: E402
from gpu_offload.remote_job.yolo import isolation  # noqa: E402

WARM, TIMED, PARTED = 5, 12, 5
"""Steps that are not counted, that are, and that are timed in two parts, which costs a wait between them."""
DETECT, CLASSIFY, SEGMENT, POSE = Task.DETECT, Task.CLASSIFY, Task.SEGMENT, Task.POSE


def cell(kind, model, size, batch, task=DETECT, *, images=0, source=640, **hyperparameters):
    named = [kind, model, str(size), f"b{batch}", *(f"{k}={v}" for k, v in hyperparameters.items())]
    named += [f"from{source}"] if source != 640 else []
    return {
        "name": " ".join(named), "kind": kind, "model": f"{model}.yaml", "image_size": size, "batch": batch,
        "task": str(task), "images": images or next(n for n in (32, 96, 384) if n >= batch), "source": source, "hyperparameters": hyperparameters,
    }  # fmt: skip


def step(model, size, batch, task=DETECT, **hyperparameters):
    return cell("step", model, size, batch, task, **hyperparameters)


def epoch(model, size, batch, task=DETECT, *, images=384, **more):
    return cell("epoch", model, size, batch, task, images=images, **more)


CELLS = [
    step("yolov8n", 640, 16), step("yolov8m", 640, 16), step("yolov8x", 640, 16), step("yolo26n", 640, 16),
    cell("load", "yolov8n", 640, 16, images=384, workers=8), cell("load", "yolov8n", 640, 16, images=96, workers=1),
    epoch("yolov8n", 640, 16), epoch("yolov8m", 640, 16), epoch("yolo26n", 640, 32),
    step("yolov8n", 640, 64), step("yolov8n", 640, 128), step("yolov8n", 640, 4), step("yolov8n", 320, 64),
    step("yolov8n", 1280, 8), step("yolov8s", 640, 16), step("yolov8s", 640, 64), step("yolov8m", 640, 64),
    step("yolov8m", 1024, 8), step("yolov8l", 640, 16), step("yolov8x", 640, 32), step("yolo11n", 640, 16),
    step("yolo11s", 1280, 4), step("yolo11m", 640, 16), step("yolo11x", 640, 8), step("yolo26n", 640, 32),
    step("yolo26s", 960, 4), step("yolo26m", 640, 16), step("yolo26x", 640, 16),
    step("yolov8n", 640, 16, amp=False), step("yolov8m", 640, 16, amp=False), step("yolov8x", 640, 16, amp=False),
    step("yolo26n", 640, 16, amp=False), step("yolov8m", 640, 16, amp="bf16"),
    step("yolov8n", 640, 16, optimizer="MuSGD"), step("yolov8m", 640, 16, optimizer="MuSGD"),
    step("yolov8n", 640, 16, optimizer="SGD"),
    step("yolov8n-seg", 640, 16, SEGMENT), step("yolo11m-seg", 640, 16, SEGMENT), step("yolo26n-seg", 640, 16, SEGMENT),
    step("yolov8n-pose", 640, 16, POSE), step("yolov8m-pose", 640, 16, POSE),
    step("yolov8n-cls", 224, 16, CLASSIFY), step("yolov8n-cls", 224, 128, CLASSIFY), step("yolov8m-cls", 224, 64, CLASSIFY),
    step("yolo11n-cls", 224, 64, CLASSIFY), step("yolov8n-cls", 640, 32, CLASSIFY),
    epoch("yolov8s", 640, 16), epoch("yolov8x", 640, 16), epoch("yolov8n", 640, 64),
    epoch("yolo11n", 640, 16), epoch("yolov8n", 320, 64), epoch("yolov8n", 1280, 8),
    epoch("yolov8n-seg", 640, 16, SEGMENT), epoch("yolov8n-pose", 640, 16, POSE),
    epoch("yolov8n-cls", 224, 64, CLASSIFY),
    cell("load", "yolov8n", 320, 16, images=96, workers=1), cell("load", "yolov8n", 1280, 8, images=96, workers=1),
    cell("load", "yolov8n", 640, 16, images=96, workers=1, source=1440),
    cell("load", "yolov8n", 640, 16, images=96, workers=1, source=3464),
    cell("load", "yolov8n-cls", 224, 16, CLASSIFY, images=96, workers=1),
    cell("load", "yolov8n-seg", 640, 16, SEGMENT, images=96, workers=1),
    cell("load", "yolov8n-pose", 640, 16, POSE, images=96, workers=1),
    epoch("yolov8n", 640, 16, images=96, source=3464), epoch("yolov8n", 640, 16, amp=False),
    epoch("yolo11x", 640, 8), step("yolov8n", 640, 256), step("yolov8x", 640, 64), step("yolo11l", 640, 16),
    step("yolov8n", 160, 16), step("yolov8s", 320, 16), step("yolov8n", 960, 16), step("yolov8x", 1280, 8),
]  # fmt: skip


class EnoughError(Exception):
    """Ends a training that was measured."""


def wait():
    """Wait until the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(action):
    """Return the seconds that an action takes, with what the GPU does for it."""
    begun = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - begun


class Again:
    """In place of a loader: the same batch, without end."""

    def __init__(self, loader, batch):
        self._loader = loader
        self.batch = batch

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def __len__(self):
        return 10_000

    def __iter__(self):
        while True:
            yield dict(self.batch)


class Steps:
    """Mixed in: times steps of one batch."""

    def _setup_train(self):
        begun = time.perf_counter()
        super()._setup_train()
        wait()
        self.found = {"build": time.perf_counter() - begun}
        loader = self.train_loader
        self.train_loader = Again(loader, next(iter(loader)))
        loader.close()
        self.times, self.optimizing = [], []
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def optimizer_step(self):
        if len(self.times) < WARM + TIMED:
            super().optimizer_step()
            return
        wait()
        self.optimizing.append(timed(super().optimizer_step))

    def run_callbacks(self, event):
        if event == "on_train_batch_start":
            wait()
            self.begun = time.perf_counter()
        elif event == "on_train_batch_end":
            wait()
            self.times.append(time.perf_counter() - self.begun)
            if len(self.times) == WARM + TIMED + PARTED:
                self._enough()
        else:
            super().run_callbacks(event)

    def _enough(self):
        usual = self.times[WARM : WARM + TIMED]
        self.found |= {
            "first": self.times[0], "second": self.times[1], "step": statistics.median(usual),
            "spread": statistics.stdev(usual) / statistics.median(usual),
            "optimizer": statistics.median(self.optimizing) if self.optimizing else 0.0,
            "parameters": sum(p.numel() for p in self.model.parameters()), "boxes": len(self.train_loader.batch["cls"]),
            "mixed": bool(self.amp),
        }  # fmt: skip
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            self.found |= {
                "allocated": torch.cuda.max_memory_allocated() / 2**30,
                "reserved": torch.cuda.max_memory_reserved() / 2**30,
                "used": (total - free) / 2**30,
            }
        raise EnoughError


class Loads:
    """Mixed in: times batches of the loader, training nothing."""

    def _setup_train(self):
        super()._setup_train()
        self.epoch = 0
        self.found = {"workers": self.train_loader.num_workers}
        for mode in ("mosaic", "plain"):
            if mode == "plain":
                self._close_dataloader_mosaic()
                self.train_loader.reset()
            for _ in range(2):  # the first epoch fills the buffers of pictures
                begun = time.perf_counter()
                images = sum(len(batch["img"]) for batch in self.train_loader)
                self.found[mode] = (time.perf_counter() - begun) / images
        raise EnoughError


class Epochs:
    """Mixed in: times batches of whole epochs, and ends the training after the last, before its final validation."""

    def _setup_train(self):
        self.found = {"build": timed(super()._setup_train), "steps": []}
        self.found["workers"] = self.train_loader.num_workers

    def run_callbacks(self, event):
        if event == "on_train_batch_start":
            self.begun = time.perf_counter()
        elif event == "on_train_batch_end":
            self.found["steps"].append(round(time.perf_counter() - self.begun, 5))
        elif event == "on_fit_epoch_end" and self.epoch + 1 == self.epochs:
            self.found |= {
                "history": self.history,
                "batches": len(self.train_loader),
                "val": len(self.test_loader.dataset),
            }
            raise EnoughError
        super().run_callbacks(event)


KINDS = {"step": Steps, "load": Loads, "epoch": Epochs}


class Trees:
    """Datasets of JPEG files, drawn once each."""

    def __init__(self, folder):
        self.folder = folder

    def get(self, task, images, source):
        """Return a training tree with so many images of this size, and an eighth as many to validate with."""
        place = self.folder / f"{task}-{images}-{source}"
        if not place.exists():
            raw = place / "raw"
            generate(raw, images=images + max(4, images // 8), size=320, task=task)
            for path in raw.rglob("*.png"):
                jpeg(path, source)
            materialise(read_snapshot(raw, task=task), place / "tree")
        return place / "tree"


def jpeg(path, source):
    """Put a JPEG file of another size in the place of a picture; labels are relative to it."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").resize((source, source)).save(path.with_suffix(".jpg"), quality=90)
    path.unlink()


def measure(given, trees, folder, device):
    """Run one cell; return what was found."""
    from gpu_offload.remote_job.yolo import run

    tree = trees.get(Task(given["task"]), given["images"], given["source"])
    info = read_tree(tree)
    epochs = {"step": 300, "load": 30, "epoch": 4}[given["kind"]]
    workers = 8 if given["kind"] == "epoch" else 0
    own = {"close_mosaic": 2 if given["kind"] == "epoch" else 10, "plots": False, "workers": workers}
    spec = TrainingSpec(
        run="benchmark", attempt=1, training_key="benchmark", task=info.task, device=device,
        dataset=DatasetRef(fingerprint=info.fingerprint, tree=str(tree)), model=given["model"], epochs=epochs,
        image_size=given["image_size"], batch=given["batch"], seed=0, output=str(folder),
        hyperparameters={"optimizer": "AdamW", **own, **given["hyperparameters"]},
    )  # fmt: skip
    bench = Bench(
        spec=spec, progress=Progress(spec), interruption=Interruption(),
        checkpoints=Checkpoints(folder / "checkpoint", run="benchmark", attempt=1, training_key="benchmark", epochs=epochs),
        data=data.prepare(tree, task=spec.task, fingerprint=info.fingerprint, output=folder),
    )  # fmt: skip
    begun = time.perf_counter()
    trainer = run.build(bench, None, inner=(KINDS[given["kind"]],))
    trainer.found = {}
    try:
        trainer.train()
    except EnoughError:
        pass
    finally:
        bench.progress.close()
        for loader in (trainer.train_loader, trainer.test_loader):
            loader.close()
    return {
        **trainer.found,
        "seconds": round(time.perf_counter() - begun, 2),
        "pictures": len(trainer.train_loader.dataset),
    }


def here(device):
    """Return what machine this is, and its rates of copying and multiplying."""
    found = {
        "kind": "machine",
        "at": time.strftime("%Y-%m-%d"),
        "torch_import": round(TORCH_S, 2),
        **machine.interpreter(),
    }
    if device != "cpu" and torch.cuda.is_available():
        found["cuda_init"] = round(timed(lambda: torch.ones(1, device="cuda")), 2)
        found |= machine.facts()
        source = torch.ones(2**28, device="cuda")
        target = torch.empty_like(source)
        target.copy_(source)
        found["copy_gb_s"] = round(
            10 * 2 * 2**30 / timed(lambda: [target.copy_(source) for _ in range(10)]) / 1e9
        )
        del source, target
        half = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
        _ = half @ half
        found["fp16_tflops"] = round(
            10 * 2 * 8192**3 / timed(lambda: [half @ half for _ in range(10)]) / 1e12
        )
        del half
        torch.cuda.empty_cache()
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0, help="begin no cell after so many")
    parser.add_argument("--only", nargs="*", default=[], help="names, or how they begin")
    parser.add_argument("--device", default="cuda", help="cpu to try the benchmark itself")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    cells = [one for one in CELLS if not options.only or one["name"].startswith(tuple(options.only))]
    if options.list:
        print("\n".join(one["name"] for one in cells))
        return
    records = (
        [json.loads(line) for line in options.records.read_text().splitlines()]
        if options.records.exists()
        else []
    )
    if not options.report:
        measure_all(cells, options, records)
    report(records)


def report(records):
    """Print what was measured beside what the prior says of it."""
    (here,) = [record for record in records if record["kind"] == "machine"]
    if "gpu" not in here:
        return
    gpu = gpu_named(here["gpu"], here["gpu_memory_bytes"] / 2**30)
    print(
        f"\n{here['gpu']}, {here['cores']} cores of {here['processor']}, torch {here['torch']}, {here['at']}"
    )
    print(f"copies {here['copy_gb_s']} GB/s, multiplies {here['fp16_tflops']} TFLOPS in half precision\n")
    print("| step | ms | the prior's | optimizer, ms | first, s | GiB | the prior's |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    logs, memory = [], []
    for one in (record for record in records if record["kind"] == "step" and "step" in record):
        work = workload(
            task=Task(one["task"]), model=one["model"], image_size=one["image_size"], batch=one["batch"], epochs=1,
            train_images=one["batch"], val_images=0, hyperparameters=one["hyperparameters"],
        )  # fmt: skip
        rare = 1 - 1 / max(1, round(work.nbs / work.batch))
        took, said = one["step"] - rare * one["optimizer"], gpu_seconds_per_image(work, gpu, 0) * work.batch
        if not work.heavy_optimizer:
            logs.append(math.log(took / said))
        memory.append(math.log(one["used"] / memory_gib(work)))
        print(
            f"| {one['name'].removeprefix('step ')} | {took * 1e3:.0f} | {said * 1e3:.0f} | {one['optimizer'] * 1e3:.0f} "
            f"| {one['first']:.1f} | {one['used']:.1f} | {memory_gib(work):.1f} |"
        )
    for name, values in (("seconds", logs), ("memory", memory)):
        errors = sorted(abs(math.exp(value) - 1) for value in values)
        if len(errors) > 1:
            print(
                f"{name}: median error {statistics.median(errors):.0%}, largest {errors[-1]:.0%}, "
                f"sd(log) {statistics.stdev(values):.2f}"
            )
    for one in (record for record in records if record["kind"] == "load" and "mosaic" in record):
        print(
            f"{one['name']}: {one['mosaic'] * 1e3:.2f} ms an image with mosaic, {one['plain'] * 1e3:.2f} without"
        )
    for one in (record for record in records if record["kind"] == "epoch" and "history" in record):
        parts = {
            part: [round(entry[part], 2) for entry in one["history"]]
            for part in ("train", "validation", "save")
        }
        print(f"{one['name']}: {one['pictures']} and {one['val']} images, seconds an epoch {parts}")


def measure_all(cells, options, records):
    """Run what has no record yet."""
    until = time.monotonic() + options.minutes * 60

    def keep(record):
        records.append(record)
        with options.records.open("a") as file:
            file.write(json.dumps(record) + "\n")

    with tempfile.TemporaryDirectory(prefix="gpu-speed-") as scratch:
        folder = Path(scratch)
        isolation.isolate(folder / "config")
        begun = time.perf_counter()
        import ultralytics.engine.trainer  # noqa: F401

        imported = time.perf_counter() - begun
        if not any(record["kind"] == "machine" for record in records):
            keep({**here(options.device), "import": round(imported, 2)})
        trees = Trees(folder)
        done = {record["name"] for record in records if "name" in record}
        with isolation.offline():
            for number, given in enumerate(cells):
                if given["name"] in done:
                    continue
                if time.monotonic() > until:
                    break
                try:
                    found = measure(given, trees, folder / f"cell-{number}", options.device)
                except Exception as error:  # noqa: BLE001 - one cell is no reason to lose the others
                    found = {
                        "error": f"{type(error).__name__}: {error}"[:500],
                        "trace": traceback.format_exc()[-1500:],
                    }
                keep({**given, **found})
                print(
                    f"{given['name']}: { ({k: found[k] for k in found if k not in ('history', 'steps')}) }",
                    flush=True,
                )
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
