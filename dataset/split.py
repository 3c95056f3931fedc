"""Which images a model learns from, and which it is judged by."""

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Split = Literal["train", "val", "test"]

SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How images without a given split are divided. `val` and `test` are expected fractions of all images.

    With `fold`, `(k, n)`, the images that are not for testing are divided into n parts, and part k (counted from 1)
    validates in place of `val`: n trainings then validate on every image once.

    Raises:
        ValueError: If a fraction is outside 0..1, nothing is left to train on, or there is no such part.
    """

    seed: int = 0
    val: float = 0.2
    test: float = 0.0
    fold: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.fold is not None and not (1 <= self.fold[0] <= self.fold[1] and self.fold[1] >= 2):
            raise ValueError(
                f"split: fold = {self.fold[0]}/{self.fold[1]} must be one of two or more parts; for example 1/5"
            )
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise ValueError(
                f"split: val = {self.val} and test = {self.test} must be fractions that leave images to train on; "
                "for example val = 0.2, test = 0.0"
            )

    def description(self) -> dict[str, float | str]:
        """Return the rule as fingerprints and trees write it; a rule without a fold as it always was."""
        fold = {} if self.fold is None else {"fold": f"{self.fold[0]}/{self.fold[1]}"}
        return {"seed": self.seed, "val": float(self.val), "test": float(self.test), **fold}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "SplitRule":
        """Return the rule of a description. Raises KeyError, ValueError, TypeError, AttributeError for none."""
        fold = described.get("fold")
        part = tuple(map(int, fold.split("/"))) if fold is not None else None
        if part is not None and len(part) != 2:
            raise ValueError("fold")
        return cls(int(described["seed"]), float(described["val"]), float(described["test"]), part)


def assign(name: str, rule: SplitRule) -> Split:
    """Return the split of the image called `name`, its path relative to the dataset's root.

    The name's own hash decides, not its rank among the others: adding or removing images never moves another
    image to a different split. Names are compared in Unicode form NFC, so that a checkout on a file system that
    decomposes names splits alike.
    """
    name = unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(f"{rule.seed}\0{name}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if rule.fold is not None:
        # The test images are at the upper end here, so that the folds divide one interval without a gap.
        if fraction >= 1 - rule.test:
            return "test"
        part, parts = rule.fold
        return "val" if int(fraction / (1 - rule.test) * parts) == part - 1 else "train"
    if fraction < rule.val:
        return "val"
    if fraction < rule.val + rule.test:
        return "test"
    return "train"
