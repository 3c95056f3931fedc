"""Draws a model's predictions on pictures that it was not trained on, beside their labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from gpu_offload.dataset.tree_manifest import TreeInfo, TreeSample, read_tree
from gpu_offload.remote_job.machine import cores
from gpu_offload.remote_job.pace.ending import PICTURED
from gpu_offload.remote_job.yolo.isolation import bundled_font

CONFIDENCE = 0.25
"""Predictions below it are not drawn; Ultralytics' own default."""

TILE, LINE, GAP = 320, 28, 8
"""Pixels: side of a picture, height of a line of its caption, space around both. A pair is as wide as a phone shows legibly."""
LINES, LONGEST = 2, 200
"""Lines and characters of a caption; the rest is left out."""
CAPTION = LINES * LINE
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6")

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class PicturedObject:
    """One object: its class, its outline and its keypoints as shares of the picture, and how sure the model is."""

    index: int
    outline: Points = ()
    keypoints: Points = ()
    confidence: float | None = None


def draw(model: Path, tree: Path, target: Path, *, image_size: int, device: Any = None) -> int:
    """Write a PNG with pairs of pictures: as labelled, as predicted by a checkpoint of this training.

    The pictures are the first held-out ones that have labels, `image_size` pixels a side. Names are below a picture, never
    on it, so that they cover nothing.

    Returns:
        How many pictures were drawn; 0, and no file, where none is held out.
    """
    from ultralytics import YOLO

    info = read_tree(tree)
    samples = chosen(info)
    if not samples:
        return 0
    paths = [tree / sample.image.path for sample in samples]
    results = YOLO(model).predict(
        paths, imgsz=image_size, conf=CONFIDENCE, device=device, verbose=False, save=False
    )
    pairs = [
        (path, labelled(info, sample), predicted(result))
        for path, sample, result in zip(paths, samples, results, strict=True)
    ]
    sheet(pairs, info.classes).save(target)  # not `optimize`: a second of work for a tenth of the bytes
    return len(pairs)


def chosen(info: TreeInfo) -> list[TreeSample]:
    """Return the pictures to draw: validation before test, labelled before background."""
    held_out = [sample for sample in info.samples if sample.split != "train"]
    # Stable: among equals, the order of their paths stays, so that every run shows the same pictures.
    held_out.sort(key=lambda sample: (sample.split != "val", sample.label is None))
    return held_out[:PICTURED]


def labelled(info: TreeInfo, sample: TreeSample) -> list[PicturedObject]:
    """Read the objects of a picture from its label file, or its class from its folder."""
    if sample.class_index is not None:
        return [PicturedObject(sample.class_index)]
    if sample.label is None:
        return []
    rows = (info.directory / sample.label.path).read_text("utf-8-sig").splitlines()
    return [_shape([float(value) for value in row.split()], info) for row in rows if row.strip()]


def _shape(row: Sequence[float], info: TreeInfo) -> PicturedObject:
    index, values = int(row[0]), row[1:]
    if info.keypoint_shape is None and len(values) > 4:
        return PicturedObject(index, tuple(zip(values[::2], values[1::2], strict=True)))
    x, y, width, height = values[:4]
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    points: Points = ()
    if info.keypoint_shape is not None:
        each = info.keypoint_shape[1]
        points = tuple((values[i], values[i + 1]) for i in range(4, len(values), each))
    return PicturedObject(index, _corners(left, top, right, bottom), points)


def predicted(result: Any) -> list[PicturedObject]:
    """Return the objects of one of Ultralytics' results, the surest first, as it sorts them."""
    if result.probs is not None:
        return [PicturedObject(int(result.probs.top1), confidence=float(result.probs.top1conf))]
    boxes = result.boxes
    outlines = result.masks.xyn if result.masks else [_corners(*box) for box in boxes.xyxyn.tolist()]
    keypoints = result.keypoints.xyn.tolist() if result.keypoints else [()] * len(outlines)
    return [
        PicturedObject(int(index), _points(outline), _points(points), float(confidence))
        for index, outline, points, confidence in zip(
            boxes.cls.tolist(), outlines, keypoints, boxes.conf.tolist(), strict=True
        )
    ]


def _points(values: Iterable[Sequence[float]]) -> Points:
    return tuple((float(x), float(y)) for x, y in values)


def _corners(left: float, top: float, right: float, bottom: float) -> Points:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def sheet(
    pairs: Sequence[tuple[Path, Sequence[PicturedObject], Sequence[PicturedObject]]], names: Sequence[str]
) -> Image.Image:
    """Lay out pairs of pictures, each with a caption below; `names` are the classes."""
    high = TILE + CAPTION + GAP
    page = Image.new("RGB", (2 * TILE + 3 * GAP, len(pairs) * high + GAP), "white")
    with ThreadPoolExecutor(cores()) as pool:
        read = list(pool.map(_picture, [path for path, _, _ in pairs]))
    for number, (picture, (_, labels, predictions)) in enumerate(zip(read, pairs, strict=True)):
        for side, (title, shapes) in enumerate((("label", labels), ("model", predictions))):
            tile = _tile(picture.copy(), shapes, f"{title}: {caption(shapes, names)}")
            page.paste(tile, (GAP + side * (TILE + GAP), GAP + number * high))
    return page


def caption(shapes: Sequence[PicturedObject], names: Sequence[str]) -> str:
    """Name the objects in a line: labels by their number, predictions by how sure the model is of each."""
    if not shapes:
        return "nothing"
    sure = [shape for shape in shapes if shape.confidence is not None]
    if sure:
        return ", ".join(f"{names[shape.index]} {shape.confidence:.2f}" for shape in sure)
    counts = Counter(names[shape.index] for shape in shapes)
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())


def _picture(path: Path) -> Image.Image:
    """Read a picture, scaled to a tile."""
    with Image.open(path) as file:
        file.draft("RGB", (2 * TILE, 2 * TILE))  # a large JPEG is decoded at a fraction of its size
        return ImageOps.contain(ImageOps.exif_transpose(file).convert("RGB"), (TILE, TILE))


def _tile(picture: Image.Image, shapes: Sequence[PicturedObject], text: str) -> Image.Image:
    """Draw outlines on a picture, and set a caption below it."""
    pen = ImageDraw.Draw(picture)
    for shape in shapes:
        colour = COLOURS[shape.index % len(COLOURS)]
        if len(shape.outline) > 1:
            pen.polygon(_pixels(shape.outline, picture.size), outline=colour, width=3)
        for x, y in _pixels(shape.keypoints, picture.size):
            if (x, y) != (0, 0):  # a keypoint that is absent
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    tile = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    pen, font = ImageDraw.Draw(tile), _font()
    for number, line in enumerate(caption_lines(text, lambda line: font.getlength(line) <= TILE)):
        pen.text((0, TILE + 2 + number * LINE), line, fill="#374151", font=font)
    return tile


def caption_lines(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Break a caption between words into lines that fit; `...` stands for what does not."""
    lines = [""]
    for word in text[:LONGEST].split():
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [line for line in lines if line]
    is_cut = len(lines) > LINES or len(text) > LONGEST
    shown = lines[:LINES]
    for number, line in enumerate(shown):
        if fits(line) and not (is_cut and number == len(shown) - 1):
            continue
        kept = line
        while kept and not fits(f"{kept}..."):
            kept = kept[:-1]
        shown[number] = f"{kept}..."
    return shown


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Return the font that comes with matplotlib: it has more alphabets than Pillow's own."""
    return ImageFont.truetype(bundled_font(), 22)


def _pixels(points: Points, size: tuple[int, int]) -> list[tuple[float, float]]:
    return [(x * size[0], y * size[1]) for x, y in points]
