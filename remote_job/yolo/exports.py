"""The model in other formats: written by the training, and compared with the model on held-out images before it counts."""

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpu_offload.dataset.tree_manifest import TreeInfo
from gpu_offload.errors import OffloadError
from gpu_offload.remote_job.interruption import InterruptedTrainingError
from gpu_offload.remote_job.machine import cores
from gpu_offload.remote_job.pace.ending import COMPARED
from gpu_offload.remote_job.yolo import onnx_export, safetensors_export
from gpu_offload.remote_job.yolo.raw_outputs import Array, Outputs, outputs_of

AGREEMENT = 0.99
"""Share of the outputs that must be the model's own. Sums in another order differ in the last digits, which may swap two
objects of equal confidence; a wrong operator changes nearly everything."""

TOLERANCE = 1e-3
"""What two outputs may differ by to be the same, as a share of the largest output of their kind (a class's confidences, a
box's left edges): an untrained model's confidences are all near 0, and still its own."""

REASON = 300
"""Characters of a failed export's reason."""


Example = tuple[Array, Sequence[Array]]
"""An image as the model takes it, and what the model makes of it."""


class ExportError(OffloadError):
    """The model cannot be written in a format, or is another one there."""


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that a model can be written in; its name ends the file's.

    Attributes:
        modules: What must be installed; `extra` is the extra that installs it.
        write: Writes Ultralytics' `YOLO` to a file in this format, for images of a side; leaves it as it is.
        load: Loads what was written; also gets that `YOLO`.
    """

    modules: tuple[str, ...]
    extra: str
    write: Callable[[Any, Path, int], None]
    load: Callable[[Path, Any], Outputs]


FORMATS = {
    "onnx": ExportFormat(("onnx", "onnxruntime"), "onnx", onnx_export.write, onnx_export.load),
    "safetensors": ExportFormat(("safetensors",), "train", safetensors_export.write, safetensors_export.load),
}
"""By the names that `registry.exports` takes."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that passed the comparison."""

    format: str
    path: Path
    agreement: float
    images: int


def export(
    model: Path, formats: Iterable[str], info: TreeInfo, *, image_size: int, folder: Path
) -> tuple[list[Exported], dict[str, str]]:
    """Write a model in other formats into a folder, and compare each with the model.

    The images that it is compared on are the tree's test images, else those for validation.

    Returns:
        What counts, and by format why the others do not.
    """
    made: list[Exported] = []
    failed: dict[str, str] = {}

    @cache
    def network() -> Any:
        """Return the model, from a copy of its file: Ultralytics writes beside that."""
        from ultralytics import YOLO

        folder.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="offload-", dir=folder))
        return YOLO(shutil.copyfile(model, Path(scratch) / "model.pt"))

    @cache
    def examples() -> list[Example]:
        """Return the images and the model's own outputs, which are the same for every format."""
        paths, ours = held_out(info), outputs_of(network().model)
        with ThreadPoolExecutor(cores()) as pool:  # large photographs take longer to read than to compare
            arrays = list(pool.map(partial(as_array, side=image_size), paths))
        return [(array, ours(array)) for array in arrays]

    with ExitStack() as stack:
        for name in formats:
            try:
                made.append(_export(name, network, examples, image_size, folder))
            except InterruptedTrainingError:
                raise
            except Exception as error:  # noqa: BLE001 - the model itself is whole, whatever a converter says
                why = str(error) if isinstance(error, OffloadError) else f"{type(error).__name__}: {error}"
                failed[name] = " ".join(why.split())[:REASON]
    return made, failed


def _export(
    name: str,
    network: Callable[[], Any],
    examples: Callable[[], list[Example]],
    image_size: int,
    folder: Path,
) -> Exported:
    form = FORMATS.get(name)
    if form is None:
        raise ExportError(f"this version of the training code knows no format {name}")
    if missing := [module for module in form.modules if importlib.util.find_spec(module) is None]:
        raise ExportError(
            f"{' and '.join(missing)} not installed where it was trained: pip install 'gpu-offload[{form.extra}]'"
        )
    path = folder / f"model.{name}"
    form.write(network(), path, image_size)
    theirs = form.load(path, network())
    shares = [agreement(ours, theirs(array)) for array, ours in examples()]
    if not shares:
        raise ExportError("the dataset holds no images to compare it on")
    if min(shares) < AGREEMENT:
        raise ExportError(
            f"only {min(shares):.1%} of its outputs are those of model.pt on the same image ({AGREEMENT:.0%} is needed)"
        )
    return Exported(name, path, round(min(shares), 6), len(shares))


def held_out(info: TreeInfo) -> list[Path]:
    """Return images that a training did not learn from, evenly spread over all there are."""
    split = "test" if info.images["test"] else "val"
    paths = [info.directory / sample.image.path for sample in info.samples if sample.split == split]
    few = min(COMPARED, len(paths))
    return [paths[number * len(paths) // few] for number in range(few)]


def as_array(path: Path, side: int) -> Array:
    """Return an image as a model takes it: RGB, scaled to a square, (1, 3, side, side), 0 to 1."""
    with Image.open(path) as image:
        image.draft("RGB", (side, side))  # a large JPEG is decoded at a fraction of its size
        pixels = np.asarray(image.convert("RGB").resize((side, side)), dtype=np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None] / np.float32(255))


def agreement(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """Return the share of outputs that are the same, 0 where the shapes differ.

    Rows of objects (n, 6 or more columns, at most 300 of them, sorted by confidence) are compared as a set: their order
    hangs on the last digit of the confidence.
    """
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        return 0.0
    return min((_same(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _same(a: Array, b: Array) -> float:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    is_rows = a.ndim == 3 and a.shape[1] <= 300 and 6 <= a.shape[2] < a.shape[1]
    if not is_rows:
        # Kinds are channels; a classifier has its classes as one.
        values = tuple(range(2, a.ndim)) or None
        return float((np.abs(b - a) <= TOLERANCE * np.abs(a).max(axis=values, keepdims=True)).mean())
    rows, others = a[0], b[0]
    within = TOLERANCE * np.abs(rows).max(axis=0)
    close = (np.abs(others[None] - rows[:, None]) <= within).all(axis=2)
    return float(min(close.any(axis=1).mean(), close.any(axis=0).mean()))
