"""Which images a model learns from, and which it is judged by."""

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

Split = Literal["train", "val", "test"]

SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How images without a given split are divided. `val` and `test` are expected fractions of all images.

    Raises:
        ValueError: If a fraction is outside 0..1 or nothing is left to train on.
    """

    seed: int = 0
    val: float = 0.2
    test: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise ValueError(
                f"split: val = {self.val} and test = {self.test} must be fractions that leave images to train on; "
                "for example val = 0.2, test = 0.0"
            )


def assign(name: str, rule: SplitRule) -> Split:
    """Return the split of the image called `name`, its path relative to the dataset's root.

    The name's own hash decides, not its rank among the others: adding or removing images never moves another
    image to a different split. Names are compared in Unicode form NFC, so that a checkout on a file system that
    decomposes names splits alike.
    """
    name = unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(f"{rule.seed}\0{name}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < rule.val:
        return "val"
    if fraction < rule.val + rule.test:
        return "test"
    return "train"
