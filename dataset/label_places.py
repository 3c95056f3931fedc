"""Where the labels are, when they are not where Ultralytics looks for them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from gpu_offload.dataset.layout import is_image, label_name

_MAX_ALIKE: Final = 10
"""Texts of one name that are compared with each image of that name."""


def where_labels_are(bare: Iterable[str], orphans: Sequence[str], odd_texts: Sequence[str]) -> str | None:
    """Return where texts were seen that could be the labels of `bare` images, and what to do; else None.

    `orphans` are no image's label, and the extension of `odd_texts` is not in lower case.
    """
    if not orphans and not odd_texts:
        return None
    places: dict[str, list[str]] = {}
    for text in (*orphans, *odd_texts):
        # The same name may be in every folder: comparing all with all would take the square of their number.
        alike = places.setdefault(_stem(text), [])
        if len(alike) < _MAX_ALIKE:
            alike.append(text)
    seen: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for image in bare:
        for text in places.get(_stem(image), ()):
            place = str(PurePosixPath(text).parent), _fault(text)
            seen[place] += 1
            examples.setdefault(place, (text, label_name(image)))
    if not seen:
        return None
    (place, count), *_ = seen.most_common(1)
    text, wanted = examples[place]
    folder, fault = place
    where = "at the top" if folder == "." else f"in {folder}/"
    return f"{count} texts with their names are {where}{fault}; move or rename {text} to {wanted}, and the others alike"


def _stem(path: str) -> str:
    """Return a file's name without its extensions, of which a label may have its image's, too."""
    name = PurePosixPath(path).name
    stem = name.rpartition(".")[0]
    return stem.rpartition(".")[0] if not is_image(path) and is_image(stem) else stem


def _fault(text: str) -> str:
    if not text.endswith(".txt"):
        return f", with the extension {PurePosixPath(text).suffix}"
    if is_image(text.removesuffix(".txt")):
        return ", with the image's extension in their names"
    return ""
