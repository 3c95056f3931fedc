"""A small dataset to try everything with: circles, squares and triangles on textured ground.

Drawn by Pillow's integer rasteriser from one seeded generator and saved as PNG, so the pixels are the same
everywhere.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_offload.dataset.task import Task

CLASSES: Final = ("circle", "square", "triangle")
KEYPOINT_SHAPE: Final = (3, 3)
"""For pose: each shape's three marks, of which a circle shows its top and two feet, a square three corners."""

_SCALE: Final = 2
"""Shapes are drawn this much larger and shrunk, which smooths their edges."""
_GROUND: Final = ((62, 78, 64), (84, 72, 58), (58, 66, 84), (80, 62, 76))
_PAINT: Final = ((235, 92, 60), (250, 205, 70), (110, 220, 240), (245, 245, 245), (250, 130, 200))

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class DrawnShape:
    """One drawn shape, in pixels. `outline` goes round it; `marks` are its keypoints."""

    kind: int
    outline: tuple[Point, ...]
    marks: tuple[Point, Point, Point]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        xs, ys = [x for x, _ in self.outline], [y for _, y in self.outline]
        return min(xs), min(ys), max(xs), max(ys)


def generate(
    directory: Path, *, images: int = 240, size: int = 160, seed: int = 0, task: Task = Task.DETECT
) -> None:
    """Write a sample dataset into `directory`, which is made.

    Args:
        directory: For detection and segmentation a flat folder with `classes.txt`, for pose also a `data.yaml`
            (with all images in `images/`), for classification one folder a class.
        images: How many to draw.
        size: Width and height of each, in pixels.
        seed: Another seed, another dataset; the same seed, the same bytes with the same Pillow.
        task: What the labels are for.

    Raises:
        ValueError: If there would be no image, or too small ones.
    """
    if images < 1 or size < 32:
        raise ValueError("a sample needs at least one image of at least 32 pixels")
    directory.mkdir(parents=True, exist_ok=True)
    folder = directory / "images" if task is Task.POSE else directory
    labels = directory / "labels" if task is Task.POSE else directory
    for index in range(images):
        draw = random.Random(f"{seed}/{index}")  # noqa: S311 - a drawing; each image is its own
        name = f"{index:04d}"
        if task is Task.CLASSIFY:
            kind = index % len(CLASSES)
            shapes = [_shape(draw, kind, size, (0.28, 0.42), [])]
            _paint(draw, shapes, size, directory / CLASSES[kind] / f"{name}.png")
            continue
        shapes = _scene(draw, index, size)
        _paint(draw, shapes, size, folder / f"{name}.png")
        labels.mkdir(exist_ok=True)
        text = "".join(_row(shape, size, task) for shape in shapes)
        (labels / f"{name}.txt").write_text(text, encoding="utf-8")
    if task is Task.POSE:
        lines = ["train: images", "names: [circle, square, triangle]", f"kpt_shape: {list(KEYPOINT_SHAPE)}"]
        (directory / "data.yaml").write_text("\n".join([*lines, "flip_idx: [0, 2, 1]", ""]), encoding="utf-8")
    elif task is not Task.CLASSIFY:
        (directory / "classes.txt").write_text("\n".join([*CLASSES, ""]), encoding="utf-8")


def _scene(draw: random.Random, index: int, size: int) -> list[DrawnShape]:
    """One to three shapes that do not overlap; the classes take turns, so that none is rare."""
    shapes: list[DrawnShape] = []
    for number in range(draw.choice((1, 2, 2, 3))):
        kind = (index + number) % len(CLASSES)
        for _ in range(40):
            shape = _shape(draw, kind, size, (0.14, 0.24), shapes)
            if not any(_overlap(shape.box, other.box) for other in shapes):
                shapes.append(shape)
                break
    return shapes


def _shape(
    draw: random.Random, kind: int, size: int, radii: tuple[float, float], others: list[DrawnShape]
) -> DrawnShape:
    radius = size * draw.uniform(*radii) * (0.85 if len(others) > 1 else 1.0)
    x, y = (draw.uniform(radius + 2, size - radius - 2) for _ in range(2))
    tilt = draw.uniform(-0.25, 0.25)
    corners = {0: 32, 1: 4, 2: 3}[kind]
    start = {0: -math.pi / 2, 1: -math.pi / 4, 2: -math.pi / 2}[kind] + tilt
    outline = tuple(
        (
            x + radius * math.cos(start + 2 * math.pi * corner / corners),
            y + radius * math.sin(start + 2 * math.pi * corner / corners),
        )
        for corner in range(corners)
    )
    right, left = {0: (11, 21), 1: (1, 2), 2: (1, 2)}[kind]
    return DrawnShape(kind, outline, (outline[0], outline[right], outline[left]))


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] + 2 and b[0] < a[2] + 2 and a[1] < b[3] + 2 and b[1] < a[3] + 2


def _paint(draw: random.Random, shapes: list[DrawnShape], size: int, path: Path) -> None:
    from PIL import Image, ImageDraw

    path.parent.mkdir(parents=True, exist_ok=True)
    ground = draw.choice(_GROUND)
    coarse = Image.frombytes("L", (size // 4, size // 4), draw.randbytes((size // 4) ** 2))
    texture = coarse.resize((size, size), Image.Resampling.BILINEAR).point(lambda level: level // 6)
    base = Image.merge("RGB", [texture.point(lambda level, c=c: level + c) for c in ground])
    large = base.resize((size * _SCALE, size * _SCALE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(large)
    for shape in shapes:
        paint = draw.choice(_PAINT)
        shade = draw.randint(-15, 5)
        colour = (paint[0] + shade, paint[1] + shade, paint[2] + shade)
        pen.polygon(
            [(round(x * _SCALE), round(y * _SCALE)) for x, y in shape.outline],
            fill=colour,
            outline=(20, 20, 24),
        )
    large.resize((size, size), Image.Resampling.BOX).save(path, optimize=False, compress_level=6)


def _row(shape: DrawnShape, size: int, task: Task) -> str:
    left, top, right, bottom = shape.box
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    if task is Task.SEGMENT:
        numbers = [value / size for point in shape.outline for value in point]
        return " ".join([str(shape.kind), *(f"{number:.6f}" for number in numbers)]) + "\n"
    words = [str(shape.kind), *(f"{value / size:.6f}" for value in box)]
    if task is Task.POSE:
        words += [f"{x / size:.6f} {y / size:.6f} 2" for x, y in shape.marks]
    return " ".join(words) + "\n"
