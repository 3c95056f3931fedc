"""Boxes and outlines of objects, as fractions of their image."""

import math
from collections.abc import Sequence


def finite(values: object, count: int | None = None) -> tuple[float, ...] | None:
    """Return a list of finite numbers, `count` of them; None for anything else."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return None
    if not set(map(type, values)) <= {int, float}:  # True is an int to isinstance
        return None
    try:
        numbers = tuple(map(float, values))
    except OverflowError:  # JSON has integers of any length
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def box_of(points: Sequence[float]) -> tuple[float, float, float, float]:
    """Return x-centre, y-centre, width and height of the box around points `x1 y1 x2 y2 ...`."""
    xs, ys = points[0::2], points[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def join(parts: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return one outline of a shape in several parts: each is gone around, from the first one's start and back.

    The ways between the parts are gone both ways, so that they enclose nothing.
    """
    outline = list(parts[0])
    for part in parts[1:]:
        outline += [*parts[0][:2], *part, *part[:2]]
    return tuple(outline)


def box_in(value: object, width: int, height: int) -> tuple[float, ...] | None:
    """Return `[left, top, width, height]` in pixels as a box; None for anything else."""
    numbers = finite(value, 4)
    if numbers is None:
        return None
    left, top, across, down = numbers
    return (left + across / 2) / width, (top + down / 2) / height, across / width, down / height


def outline_in(parts: Sequence[object], width: int, height: int) -> tuple[float, ...] | None:
    """Return parts of a shape, `[x1, y1, x2, y2, ...]` in pixels, as one outline; None for anything else."""
    scaled = []
    for part in map(finite, parts):
        if part is None or len(part) < 6 or len(part) % 2:
            return None
        points = list(part)
        points[0::2] = [x / width for x in part[0::2]]
        points[1::2] = [y / height for y in part[1::2]]
        scaled.append(points)
    return join(scaled)


def is_inside(box: Sequence[float]) -> bool:
    """Whether a box is as most are, so that nothing about it need be judged."""
    return 0 <= box[0] <= 1 and 0 <= box[1] <= 1 and 0 < box[2] <= 1 and 0 < box[3] <= 1


def is_box(box: Sequence[float], polygon: Sequence[float]) -> bool:
    """Whether a polygon is nothing but the box's four corners, as some tools write it."""
    if len(polygon) not in (8, 10):
        return False
    around = box_of(polygon)
    on_edges = all(
        min(abs(x - around[0] - s * around[2] / 2) for s in (-1, 1)) < 1e-6
        and min(abs(y - around[1] - s * around[3] / 2) for s in (-1, 1)) < 1e-6
        for x, y in zip(polygon[0::2], polygon[1::2], strict=True)
    )
    return on_edges and all(abs(a - b) < 1e-2 for a, b in zip(around, box, strict=True))
