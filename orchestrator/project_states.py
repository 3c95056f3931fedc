"""The state of all projects on this machine: listing it, adopting that of a renamed project, deleting what is left over."""

import contextlib
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.output.table import terminal_width, text_table, wrapped
from gpu_offload.orchestrator.output.units import human_bytes, utc
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.state import state_base, state_folder
from gpu_offload.orchestrator.state_owner import OWNER, Owner, read_owner, record_owner
from gpu_offload.orchestrator.workspace import Workspace
from gpu_offload.remote_job.files.removal import remove_tree

STORE = "store"
LOOKED_AT = frozenset({".gitignore", ".lock", ".tmp", "open", "tend.json"})
"""Entries of a store in which nothing was trained."""


class ProjectStateError(OffloadError):
    """The state of a project cannot be moved; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ProjectState:
    """A state folder. `owner` is None where no document names it; `used_at` in Unix seconds."""

    folder: Path
    owner: Owner | None
    used_at: float

    @property
    def is_gone(self) -> bool:
        """Whether the project's folder is not there any more; one that cannot be looked at is there."""
        try:
            if self.owner is not None:
                self.owner.path.stat()
        except (OSError, ValueError) as error:
            return isinstance(error, FileNotFoundError | NotADirectoryError)
        return False


@dataclass(frozen=True, slots=True)
class ProjectStates:
    """The states that `offload state` shows, or has just deleted (`deleted`)."""

    states: tuple[tuple[ProjectState, int], ...]
    """Each with its size in bytes."""
    deleted: bool = False

    def json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return {
            "states": [
                {
                    "folder": str(state.folder),
                    "project": str(state.owner.path) if state.owner else None,
                    "gone": state.is_gone,
                    "models": has_models(state.folder),
                    "bytes": size,
                    "used_at": state.used_at,
                }
                for state, size in self.states
            ],
            "deleted": self.deleted,
        }

    def text(self) -> str:
        """Return it as text for people."""
        width = terminal_width()
        if not self.states:
            return "no state of a deleted project is here" if self.deleted else "no state is here"
        rows = [("project", "there", "size", "used (UTC)", "holds")]
        rows += [
            (
                str(state.owner.path if state.owner else state.folder.name),
                "unknown" if state.owner is None else "no" if state.is_gone else "yes",
                human_bytes(size),
                utc(state.used_at, "%Y-%m-%d"),
                "models and runs" if has_models(state.folder) else "caches",
            )
            for state, size in self.states
        ]
        whole = human_bytes(sum(size for _, size in self.states))
        last = f"deleted {whole}" if self.deleted else f"{whole} in {self.states[0][0].folder.parent}"
        if not self.deleted and any(state.is_gone for state, _ in self.states):
            last += (
                "; `--delete-gone` deletes the state of projects that are not there, "
                "`--adopt PATH` gives the state of a renamed or moved project to this one"
            )
        return f"{text_table(rows, width=width)}\n{wrapped(last, width=width)}"


def project_states() -> tuple[ProjectState, ...]:
    """Return the state folders of this user, the one used last first; reads a small file of each."""
    try:
        folders = [path for path in state_base().iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return ()
    found = []
    for folder in folders:
        written = folder / OWNER
        with contextlib.suppress(OSError):  # another command has deleted it meanwhile
            # Every command touches the document; the time of a folder says only when an entry came or went.
            used_at = (written if written.is_file() else folder).stat().st_mtime
            found.append(ProjectState(folder, read_owner(folder), used_at))
    return tuple(sorted(found, key=lambda state: (-state.used_at, state.folder)))


def has_models(folder: Path) -> bool:
    """Whether a state folder has a store with more in it than read-only commands leave."""
    try:
        return any(path.name not in LOOKED_AT for path in (folder / STORE).iterdir())
    except OSError:
        return False


def with_sizes(states: tuple[ProjectState, ...]) -> tuple[tuple[ProjectState, int], ...]:
    """Return states with their sizes in bytes."""
    return tuple((state, size_of(state.folder)) for state in states)


def delete_gone() -> ProjectStates:
    """Delete the state of projects whose folder is gone; return the states deleted."""
    gone = with_sizes(tuple(state for state in project_states() if state.is_gone))
    for state, _ in gone:
        remove_tree(state.folder)
    return ProjectStates(gone, deleted=True)


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder; links count for themselves."""
    total, left = 0, [str(folder)]
    while left:  # `os.walk` calls itself before Python 3.12, and a training may leave a thousand folders in one another
        # An error: deleted meanwhile, or deeper than a path can be long.
        with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def renamed_note(project: Path) -> str:
    """Return a note if a project without models seems to be a renamed one that has some; else an empty text."""
    if has_models(state_folder(project)):
        return ""
    owner = Owner.of(project)
    for state in project_states():
        if (
            state.owner is not None
            and state.is_gone
            and has_models(state.folder)
            and owner.is_renamed(state.owner)
        ):
            return (
                f"this project seems to be {state.owner.path} renamed, whose models and runs are kept under that name. "
                f"`offload state --adopt {shlex.quote(str(state.owner.path))}` takes them over"
            )
    return ""


def adopt(project: Path, former: Path) -> Path:
    """Give a project the state of its former place; return its folder. Raises ProjectStateError."""
    source, target = state_folder(former), state_folder(project)
    if not source.is_dir():
        raise ProjectStateError(f"there is no state of {former}; `offload state` lists what is there")
    if former.exists():
        raise ProjectStateError(f"{former} is still there, and its state is its own")
    if has_models(target):
        raise ProjectStateError(
            f"{project} has models and runs of its own in {target / STORE}; remove them first"
        )
    if target.is_dir():
        # Caches only; set aside first, so that a crash leaves both.
        aside = target.with_name(f"{target.name}.{time.time_ns()}")
        target.rename(aside)
        source.rename(target)
        remove_tree(aside)
    else:
        source.rename(target)
    record_owner(target, project)
    return target


def places_text(settings: Settings, workspace: Workspace) -> str:
    """Return where models and runs are, where this machine's caches are, and what may be deleted of them."""
    store = settings.store_url
    folder = Path(store.removeprefix("file:")) if store.startswith("file:") else None
    models = f"{folder} ({human_bytes(size_of(folder))})" if folder is not None else store
    # The default store is a folder of the same state, and must not look like a cache.
    own = workspace.caches()
    size = human_bytes(sum(map(size_of, own)))
    return (
        f"models and runs: {models}; `offload prune` deletes what nothing needs\n"
        f"caches of this machine, safe to delete: {workspace.root}/{{{','.join(path.name for path in own)}}} ({size})\n"
        "`offload state` lists all projects"
    )
