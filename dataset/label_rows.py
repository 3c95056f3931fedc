"""Rows of labels that were made from another format: in memory while they are few, else in a temporary file."""

import weakref
from array import array
from collections.abc import Iterator, Mapping
from tempfile import SpooledTemporaryFile
from typing import Final

from gpu_offload.dataset.finding import DatasetError, error

IN_MEMORY: Final = 64 << 20
"""Bytes of rows from which on they are in a temporary file; the polygons of COCO 2017 take some 400 MB."""


class LabelRows:
    """The rows of each image, in the order in which they came, however the images alternate."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed by the finalizer
        weakref.finalize(self, self._file.close)
        self._last: dict[str, int] = {}
        """The last row of each image."""
        self._before = array("q")
        """For each row the one before it of the same image, -1 for the first."""
        self._ends = array("Q", [0])

    def add(self, image: str, row: bytes) -> None:
        """Append a row. Raises DatasetError where the temporary folder is full."""
        try:
            self._file.write(row)
        except OSError as fault:
            raise _full(fault) from None
        self._before.append(self._last.get(image, -1))
        self._last[image] = len(self._before) - 1
        self._ends.append(self._ends[-1] + len(row))

    def finish(self) -> None:
        """Write what is buffered. Raises DatasetError as `add`."""
        try:
            self._file.flush()
        except OSError as fault:
            raise _full(fault) from None

    def of(self, image: str) -> bytes:
        """Return the rows of an image; nothing where it has none."""
        position = self._last.get(image, -1)
        rows = []
        while position >= 0:
            self._file.seek(self._ends[position])
            rows.append(self._file.read(self._ends[position + 1] - self._ends[position]))
            position = self._before[position]
        return b"".join(reversed(rows))


def _full(fault: OSError) -> DatasetError:
    message = (
        f"the converted labels cannot be written to the temporary folder ({fault.strerror}); make room in it, or "
        "set TMPDIR to another"
    )
    return DatasetError([error("", "no-space", message)])


class Labels(Mapping[str, bytes]):
    """Labels by the path that they would have, read from the rows of their images when they are asked for."""

    def __init__(self, rows: LabelRows, images: Mapping[str, str]) -> None:
        self._rows = rows
        self._images = images

    def __getitem__(self, name: str) -> bytes:
        return self._rows.of(self._images[name])

    def __contains__(self, name: object) -> bool:
        return name in self._images

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)
