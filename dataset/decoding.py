"""How long the dataset's pictures take to decode, by a few of them."""

import io
import statistics
import time
import warnings
from pathlib import Path

from gpu_offload.dataset.image import MAX_BYTES, NATURAL
from gpu_offload.dataset.snapshot import Snapshot

PICTURES = 5
"""Pictures that are decoded, evenly spread over the dataset."""
ENOUGH_S = 0.2
"""Processor seconds after which no further picture is decoded."""
LARGEST = 40_000_000
"""Pixels of the largest picture that is decoded for this: as a JPEG or PNG it takes about a second."""
SCANS = 100
"""Scans of a JPEG, each of which visits every pixel, however few its bytes; progressive pictures have about ten."""


def decode_seconds(snapshot: Snapshot) -> float | None:
    """Return the processor seconds that reading and decoding a picture takes here on average.

    The rate by pixel is the median of a few pictures, because formats and compression differ by more than a factor of three; it
    is applied to the mean size of all. None where sizes are unknown, or where Pillow reads none of the few.
    """
    samples = snapshot.samples
    pixels = sum(sample.width * sample.height for sample in samples) / max(1, len(samples))
    rates: list[float] = []
    spent = 0.0
    few = min(PICTURES, len(samples))
    for sample in (samples[number * len(samples) // few] for number in range(few)):
        if not 0 < sample.width * sample.height <= LARGEST:
            continue
        seconds = _decoded(snapshot.root / sample.image)
        if seconds is not None:
            rates.append(seconds / (sample.width * sample.height))
            spent += seconds
        if spent > ENOUGH_S:
            break
    # The first loads the decoder, too.
    return pixels * statistics.median(rates[1:] or rates) if rates else None


def _decoded(path: Path) -> float | None:
    from PIL import Image  # most commands do not need it

    # Of the whole process, because some decoders have threads of their own.
    begun = time.process_time()
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > SCANS:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                # The file may be another one than was checked.
                if picture.format not in NATURAL or picture.width * picture.height > LARGEST:
                    return None
                picture.load()
    except Exception:  # noqa: BLE001 - decoders of hostile bytes raise any exception
        return None
    return time.process_time() - begun
