"""One label file: rows of a class and normalised coordinates, as YOLO writes them.

The limits are those of Ultralytics' own reader (`verify_image_label` of 8.4), which drops an image whose label
breaks one of them and trains on without it. Here such a label is an error instead.
"""

from dataclasses import dataclass
from typing import Final

from gpu_offload.dataset.finding import Finding, error, warning
from gpu_offload.dataset.label_row import is_number, judge_row
from gpu_offload.dataset.lfs import LFS_POINTER, LFS_REMEDY

MAX_BYTES: Final = 16 << 20
"""A label file larger than this is refused unread."""


MAX_ROWS: Final = 20_000
"""Rows of one label; no image shows more objects."""
MAX_FAULTS: Final = 100
"""Faults of one label after which the rest of it is not read, and warnings of one that are kept."""

_KEYPOINTS: Final = 1 << 31
_CRLF: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What one label file holds; `rows` is 0 for a background image, and then the rest is 0 or -1."""

    rows: int = 0
    min_columns: int = 0
    max_columns: int = 0
    max_class: int = -1
    like_keypoints: bool = False
    """Whether every row could be a box and keypoints with a visibility, by its length and values."""
    crlf: bool = False
    """Whether lines end as on Windows."""

    def packed(self) -> tuple[int, int, int]:
        """Return three numbers below 2^32 that hold all of it, but for numbers of columns beyond 65535."""
        rows = min(self.rows, _CRLF - 1) | _KEYPOINTS * self.like_keypoints | _CRLF * self.crlf
        return rows, min(self.min_columns, 0xFFFF) | min(self.max_columns, 0xFFFF) << 16, self.max_class + 1

    @classmethod
    def unpacked(cls, rows: int, columns: int, classes: int) -> "LabelFacts":
        """Return what `packed` packed."""
        number, flags = rows & (_CRLF - 1), rows >> 30
        return cls(number, columns & 0xFFFF, columns >> 16, classes - 1, bool(flags & 2), bool(flags & 1))


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
    if data.startswith(LFS_POINTER):
        return LabelFacts(), [
            error(path, "lfs-pointer", f"is a pointer of Git LFS, not the label; {LFS_REMEDY}")
        ]
    if data.count(b"\n") > 10 * MAX_ROWS:
        return LabelFacts(), [too_many_rows(path)]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        message = "is not UTF-8 text; save the label as plain text"
        return LabelFacts(), [error(path, "malformed-label", message, line)]
    reading = _LabelFile(path, keypoint_shape)
    for number, row in enumerate(text.splitlines(), 1):
        if reading.is_full:
            break
        reading.add(number, row)
    return reading.facts(crlf=b"\r\n" in data), reading.findings()


def facts_of_rows(data: bytes) -> LabelFacts:
    """Return what a converted label holds: rows of boxes or polygons that were judged, a space between the numbers."""
    rows = data.splitlines()
    if not rows:
        return LabelFacts()
    columns = [row.count(b" ") + 1 for row in rows]
    return LabelFacts(len(rows), min(columns), max(columns), max(int(row.partition(b" ")[0]) for row in rows))


class _LabelFile:
    """Goes through the rows of one label."""

    def __init__(self, path: str, keypoint_shape: tuple[int, int] | None) -> None:
        self._path = path
        self._shape = keypoint_shape
        self._findings: list[Finding] = []
        self._errors = 0
        self._doubts = 0
        self._seen: dict[int, int] = {}
        self._columns: dict[int, int] = {}
        self._rows = 0
        self._max_class = -1
        self._like_keypoints = keypoint_shape is None
        self._visible = 0

    def add(self, number: int, row: str) -> None:
        words = row.split()
        if not words:
            return
        self._rows += 1
        self._columns.setdefault(len(words), number)
        try:
            values = tuple(map(float, words))
        except ValueError:
            word = next(word for word in words if not is_number(word))
            message = (
                f"{word[:40]!r} is not a number; a row is a class index and coordinates, with blanks between"
            )
            self._fail(number, message)
            self._like_keypoints = False
            return
        if "_" in row:  # Python's float takes 1_000, other readers do not
            self._fail(number, "'_' in a number; write plain digits")
            return
        self._like_keypoints = self._like_keypoints and _could_be_keypoints(values)
        if self._like_keypoints:
            self._visible = self._visible or number * (2 in values[7::3])
        self._keep(judge_row(self._path, number, values, self._shape))
        # Hashes in place of the rows, which as Python objects take ten times the file's size.
        first = self._seen.setdefault(hash(values), number)
        if first != number and self._doubts > MAX_FAULTS:
            self._doubts += 1
        elif first != number:
            message = f"repeats line {first}; the training drops repeated rows"
            self._keep([warning(self._path, "duplicate-row", message, number)])
        if values[0] >= 0 and values[0].is_integer():
            self._max_class = max(self._max_class, int(min(values[0], 2**31 - 2)))

    def _fail(self, number: int, message: str) -> None:
        self._keep([error(self._path, "malformed-label", message, number)])

    def _keep(self, findings: list[Finding]) -> None:
        for finding in findings:
            self._errors += finding.severity == "error"
            self._doubts += finding.severity == "warning"
            if finding.severity == "error" or self._doubts <= MAX_FAULTS:
                self._findings.append(finding)

    @property
    def is_full(self) -> bool:
        """Whether enough is known to refuse this label."""
        return self._rows > MAX_ROWS or self._errors >= MAX_FAULTS

    def facts(self, *, crlf: bool) -> LabelFacts:
        if not self._columns:
            return LabelFacts(crlf=crlf)
        return LabelFacts(
            self._rows, min(self._columns), max(self._columns), self._max_class, self._like_keypoints, crlf
        )

    def findings(self) -> list[Finding]:
        columns = self._columns
        if self._like_keypoints and self._visible:
            # As a polygon, a visibility of 2 is out of range; what is missing is another thing.
            message = "the rows look like keypoints; write a data.yaml with kpt_shape: [number, 2 or 3]"
            return [error(self._path, "no-keypoints", message, self._visible)]
        found = list(self._findings)
        # Ultralytics calls a file one of polygons if any row has more than 6 columns, and then takes no box in it.
        if self._shape is None and 5 in columns and max(columns) > 6:
            line = max(columns[5], min(n for c, n in columns.items() if c > 6))
            message = (
                "boxes and polygons are mixed in one file; Ultralytics drops such an image, use one kind"
            )
            found.append(error(self._path, "mixed-rows", message, line))
        if self._rows > MAX_ROWS:
            return [too_many_rows(self._path)]
        if self.is_full:
            message = f"and perhaps more: after {MAX_FAULTS} faults the rest of this label is not read"
            found.append(error(self._path, "faulty-rows", message))
        return found


def too_many_rows(path: str, line: int | None = None) -> Finding:
    """Return the error of an image with more objects than are read."""
    message = f"more than {MAX_ROWS} rows are too many for one image; remove what is no object"
    return error(path, "huge-file", message, line)


def _could_be_keypoints(values: tuple[float, ...]) -> bool:
    """Whether a row has the form `class box (x y visibility)...` with two keypoints or more."""
    return len(values) >= 11 and (len(values) - 5) % 3 == 0 and all(v in (0, 1, 2) for v in values[7::3])


def unknown_classes(path: str, data: bytes, class_count: int) -> list[Finding]:
    """Return an error for each of the first MAX_FAULTS rows whose class index has no name."""
    findings: list[Finding] = []
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        word = (line.split() or [""])[0]
        if is_number(word) and float(word) >= class_count:
            message = (
                f"class {word[:40]} is unknown, the dataset names {class_count} classes (0 to {class_count - 1}); "
                "correct the row or name the class"
            )
            findings.append(error(path, "unknown-class", message, number))
            if len(findings) == MAX_FAULTS:
                findings.append(error(path, "faulty-rows", "and perhaps more rows with such a class", number))
                break
    return findings
