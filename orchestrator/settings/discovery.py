"""Finds datasets in a repository: proposes folders by their names, and lets the dataset's own checks decide."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gpu_offload.dataset.data_yaml import read_names
from gpu_offload.dataset.finding import DatasetError, printable
from gpu_offload.dataset.layout import is_image
from gpu_offload.dataset.snapshot import read_snapshot
from gpu_offload.dataset.walk import is_tool_folder
from gpu_offload.orchestrator.settings.proposal import (
    BUILT,
    Folder,
    Proposal,
    annotated,
    class_folders,
    described,
    flat,
    holds,
)

DEPTH: Final = 5
"""Levels of folders below the root that are searched."""
FOLDERS: Final = 10_000
"""Folders that are searched in all."""
CHECKED: Final = 10
"""Proposals that are checked, the likeliest first, until one can be trained on."""


def find_candidates(root: Path) -> tuple[Proposal, ...]:
    """Return possible datasets below `root`, those that pass the checks first, then by likelihood."""
    tree = {folder.path: folder for folder in _walk(root)}
    proposed: list[Proposal] = []
    for folder in tree.values():
        if any(holds(candidate, folder.path) for candidate in proposed):
            continue
        by_name = described(root, folder, tree)
        proposed += by_name or list(
            filter(
                None,
                [annotated(root, folder, tree) or class_folders(folder, tree) or flat(root, folder, tree)],
            )
        )
    order = ("data.yaml", "annotations", "flat", "classes")
    proposed.sort(key=lambda c: (order.index(c.layout), -c.images, c.path))
    return tuple(_checked(root, proposed))


def _checked(root: Path, proposed: Sequence[Proposal]) -> list[Proposal]:
    """Put the first candidate that the checks accept before those that they refuse."""
    refused: list[Proposal] = []
    # Only up to the first that is accepted: a check reads every label.
    for position, candidate in enumerate(proposed[:CHECKED]):
        try:
            snapshot = read_snapshot(root / candidate.path)
        except DatasetError as error:
            refused.append(replace(candidate, fault=printable(str(error.findings[0]))))
            continue
        unnamed = any(finding.code == "no-classes" for finding in snapshot.warnings)
        accepted = replace(
            candidate,
            images=sum(snapshot.images.values()),
            task=snapshot.task,
            classes=candidate.classes if unnamed else (),
            placeholders=candidate.placeholders and unnamed,
        )
        if unnamed and (not accepted.classes or accepted.placeholders):
            accepted = _named(root, accepted, len(snapshot.classes), proposed)
        return [accepted, *refused, *proposed[position + 1 :]]
    return [*refused, *proposed[CHECKED:]]


def _named(root: Path, candidate: Proposal, count: int, proposed: Sequence[Proposal]) -> Proposal:
    """Name the classes as a data.yaml elsewhere in the repository does, if only one way of naming them is there."""
    names = {c.path: read_names(root / c.path) for c in proposed if c.layout == "data.yaml"}
    fitting = {given: path for path, given in names.items() if len(given) >= count}
    if len(fitting) == 1:
        ((classes, path),) = fitting.items()
        return replace(candidate, classes=classes, placeholders=False, names_from=path)
    return replace(candidate, classes=tuple(f"class-{i}" for i in range(count)), placeholders=True)


def _walk(root: Path) -> Iterator[Folder]:
    """Yield the folders, each before those in it, in the order of their names."""
    waiting, seen = [(".", 0)], 0
    while waiting and seen < FOLDERS:
        path, depth = waiting.pop()
        seen += 1
        files, folders = [], []
        try:
            with os.scandir(root / path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or not entry.name.isprintable():
                        continue
                    if entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
                    elif (
                        entry.is_dir(follow_symlinks=False)
                        and entry.name not in BUILT
                        and not is_tool_folder(entry.path, entry.name)
                    ):
                        folders.append(entry.name)
        except OSError:
            continue
        files.sort()
        folders.sort()
        images = sum(is_image(name) for name in files)
        folder = Folder(path, tuple(files), tuple(folders), images)
        yield folder
        if depth < DEPTH:
            # The last one is taken next: reversed, they are visited in their order.
            waiting += ((folder.below(name), depth + 1) for name in reversed(folders))
