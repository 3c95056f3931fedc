"""One label file: rows of a class and normalised coordinates, as YOLO writes them.

The limits are those of Ultralytics' own reader (`verify_image_label` of 8.4), which drops an image whose label
breaks one of them and trains on without it. Here such a label is an error instead.
"""

import math
from dataclasses import dataclass
from typing import Final

from gpu_offload.dataset.finding import Finding, error, warning

TOLERANCE: Final = 0.01
"""How far a normalised coordinate may lie outside 0..1."""

MAX_BYTES: Final = 16 << 20
"""A label file larger than this is refused unread."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What one label file holds; `rows` is 0 for a background image, and then the rest is 0 or -1."""

    rows: int = 0
    min_columns: int = 0
    max_columns: int = 0
    max_class: int = -1


def check_label(
    path: str, data: bytes, *, keypoint_shape: tuple[int, int] | None = None
) -> tuple[LabelFacts, list[Finding]]:
    """Parse a label file and judge each row.

    A row is a class index followed by `x y width height` (a box), by three or more points `x y` (a polygon), or by
    a box and the keypoints of `keypoint_shape` (their number; 2 for `x y`, 3 for `x y visibility`). Coordinates are
    fractions of the image's width and height.

    Returns:
        What the file holds, and every fault with its line. Whether a class exists is for the caller to judge.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        message = "is not UTF-8 text; save the label as plain text"
        return LabelFacts(), [error(path, "malformed-label", message, line)]
    findings: list[Finding] = []
    seen: dict[tuple[float, ...], int] = {}
    columns: dict[int, int] = {}
    max_class = -1
    for number, row in enumerate(text.splitlines(), 1):
        words = row.split()
        if not words:
            continue
        columns.setdefault(len(words), number)
        try:
            values = tuple(map(float, words))
        except ValueError:
            word = next(word for word in words if not _is_number(word))
            message = f"{word[:40]!r} is not a number; a row is a class index and coordinates"
            findings.append(error(path, "malformed-label", message, number))
            continue
        if "_" in row:  # Python's float takes 1_000, other readers do not
            findings.append(error(path, "malformed-label", "'_' in a number; write plain digits", number))
            continue
        findings += _judge(path, number, values, keypoint_shape)
        first = seen.setdefault(values, number)
        if first != number:
            message = f"repeats line {first}; the training drops repeated rows"
            findings.append(warning(path, "duplicate-row", message, number))
        if values[0] >= 0 and values[0].is_integer():
            max_class = max(max_class, int(values[0]))
    if keypoint_shape is None and 5 in columns and max(columns) > 6:
        line_number = max(columns[5], min(n for c, n in columns.items() if c > 6))
        message = "boxes and polygons are mixed in one file; Ultralytics drops such an image, use one kind"
        findings.append(error(path, "mixed-rows", message, line_number))
    if not columns:
        return LabelFacts(), findings
    rows = sum(1 for line in text.splitlines() if line.strip())
    return LabelFacts(rows, min(columns), max(columns), min(max_class, 2**31 - 1)), findings


def unknown_classes(path: str, data: bytes, class_count: int) -> list[Finding]:
    """Return an error for each row whose class index has no name."""
    findings = []
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        word = (line.split() or [""])[0]
        if _is_number(word) and float(word) >= class_count:
            message = (
                f"class {word[:40]} is unknown, the dataset names {class_count} classes (0 to {class_count - 1}); "
                "correct the row or name the class"
            )
            findings.append(error(path, "unknown-class", message, number))
    return findings


def _judge(
    path: str, line: int, values: tuple[float, ...], keypoint_shape: tuple[int, int] | None
) -> list[Finding]:
    if not all(map(math.isfinite, values)):
        return [error(path, "malformed-label", "NaN or infinity; write finite numbers", line)]
    if values[0] < 0 or not values[0].is_integer():
        message = f"class {values[0]:g} is not a whole number from 0; use the index of a class name"
        return [error(path, "malformed-label", message, line)]
    count = len(values)
    if keypoint_shape is not None:
        wanted = 5 + keypoint_shape[0] * keypoint_shape[1]
        if count != wanted:
            message = (
                f"{count} columns, but kpt_shape {list(keypoint_shape)} needs {wanted}; correct one of them"
            )
            return [error(path, "malformed-label", message, line)]
        return _judge_pose(path, line, values, keypoint_shape[1])
    if count == 5:
        return _judge_box(path, line, values[1:])
    if count < 7 or count % 2 == 0:
        message = (
            f"{count} columns; a box has 5, a polygon 7 or more and an odd number "
            "(keypoints need a data.yaml that gives kpt_shape)"
        )
        return [error(path, "malformed-label", message, line)]
    findings = _out_of_range(path, line, values[1:], "a polygon")
    if not findings and _polygon_area(values[1:]) == 0:
        findings.append(warning(path, "zero-area", "the polygon has no area; remove or redraw it", line))
    return findings


def _judge_box(path: str, line: int, box: tuple[float, ...]) -> list[Finding]:
    findings = _out_of_range(path, line, box, "a box")
    if not findings and (box[2] < 0 or box[3] < 0):
        message = "negative width or height; write x-centre, y-centre, width, height"
        return [error(path, "out-of-range", message, line)]
    if not findings and (box[2] == 0 or box[3] == 0):
        findings.append(warning(path, "zero-area", "the box has no area; remove or redraw it", line))
    return findings


def _judge_pose(path: str, line: int, values: tuple[float, ...], dimensions: int) -> list[Finding]:
    findings = _judge_box(path, line, values[1:5])
    points = values[5:]
    coordinates = tuple(v for i, v in enumerate(points) if i % dimensions < 2)
    findings += _out_of_range(path, line, coordinates, "a keypoint")
    if dimensions == 3 and any(v not in (0, 1, 2) for v in points[2::3]):
        message = "a keypoint's visibility must be 0 (absent), 1 (hidden) or 2 (visible)"
        findings.append(error(path, "out-of-range", message, line))
    return findings


def _out_of_range(path: str, line: int, values: tuple[float, ...], what: str) -> list[Finding]:
    if min(values) >= -TOLERANCE and max(values) <= 1 + TOLERANCE:
        return []
    worst = max(values, key=lambda value: abs(value - 0.5))
    message = f"{what} has the coordinate {worst:g}; divide by the image's width and height to get 0 to 1"
    return [error(path, "out-of-range", message, line)]


def _polygon_area(values: tuple[float, ...]) -> float:
    """Shoelace formula; exact zero for points that coincide or, up to rounding, lie on one line."""
    xs, ys = values[0::2], values[1::2]
    doubled = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return 0.0 if abs(doubled) < 1e-12 else abs(doubled) / 2


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
