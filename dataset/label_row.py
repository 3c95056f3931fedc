"""Judges one row of a label file."""

import math
from operator import mul, sub
from typing import Final

from gpu_offload.dataset.finding import Finding, error, warning

TOLERANCE: Final = 0.01
"""How far a normalised coordinate may be outside 0..1."""


def judge_row(
    path: str, line: int, values: tuple[float, ...], keypoint_shape: tuple[int, int] | None
) -> list[Finding]:
    """Return what is wrong with one row, given as numbers."""
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
    doubled = sum(map(sub, map(mul, xs[-1:] + xs[:-1], ys), map(mul, xs, ys[-1:] + ys[:-1])))
    # Rounding leaves about 1e-16 a point of an area that is zero.
    return 0.0 if abs(doubled) < 1e-12 else abs(doubled) / 2


def is_number(word: str) -> bool:
    """Return whether Python takes a word for a number; NaN and infinities are some."""
    try:
        float(word)
    except ValueError:
        return False
    return True
