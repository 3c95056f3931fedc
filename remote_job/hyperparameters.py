"""Checks hyperparameters: which may be passed on to Ultralytics, and which are decided elsewhere."""

import difflib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

OURS = {
    "task": "it follows from the dataset",
    "mode": "it is always train",
    "model": "set training.model",
    "data": "set dataset.path",
    "epochs": "set training.epochs",
    "time": "set training.epochs, and limits.deadline for the time",
    "batch": "set training.batch",
    "imgsz": "set training.image-size",
    "seed": "set training.seed",
    "device": "set training.device",
    "pretrained": "set training.init-from or training.model",
    "distill_model": "a teacher is not part of the training key",
    "resume": "an interrupted training resumes by itself",
    "save": "checkpoints are always written",
    "save_period": "the newest and the best checkpoint are kept",
    "save_dir": "the module decides where files go",
    "project": "the module decides where files go",
    "name": "the module decides where files go",
    "exist_ok": "the module decides where files go",
    "cfg": "write the values into training.hyperparameters",
    "quantize": "quantisation-aware training cannot be resumed exactly",
    "source": "it belongs to prediction",
}
"""Settings of Ultralytics that are decided elsewhere: where, or why they are left out."""


@cache
def known() -> frozenset[str] | None:
    """Return the settings that the installed Ultralytics takes, None where it is not installed.

    Reads Ultralytics' `cfg/default.yaml` without importing it, which would take seconds.
    """
    found = importlib.util.find_spec("ultralytics")
    if found is None or found.origin is None:
        return None
    text = (Path(found.origin).parent / "cfg" / "default.yaml").read_text(encoding="utf-8")
    # Its settings are flat: a line that begins with a letter is one.
    return frozenset(
        line.split(":", 1)[0] for line in text.splitlines() if line[:1].isalpha() and ":" in line
    )


def faults(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the names, one sentence each; the values are checked by `value_faults`.

    Where Ultralytics is not installed (a machine that only plans), unknown names are not noticed.
    """
    names = known()
    result = []
    for name in hyperparameters:
        if name in OURS:
            result.append(f"hyperparameters.{name}: is not passed on ({OURS[name]})")
        elif names is not None and name not in names:
            close = difflib.get_close_matches(name, names - OURS.keys(), n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            result.append(f"hyperparameters.{name}: Ultralytics does not know it{hint}")
    return result


def value_faults(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return which values Ultralytics refuses; imports Ultralytics."""
    from ultralytics.cfg import check_cfg

    result = []
    for name, value in hyperparameters.items():
        try:
            check_cfg({name: value})
        except (TypeError, ValueError) as error:
            result.append(f"hyperparameters.{name}: {error}")
    return result
