"""The place of a project's state: outside of the checkout, so that no repository can plant state.

On a runner of GitHub's below RUNNER_TEMP; elsewhere below the user's state folder ($XDG_STATE_HOME, by default
~/.local/state), in a folder for each project path. The store `file:.offload` stands for the folder `store` there.
"""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gpu_offload.errors import UsageError
from gpu_offload.infra.git import tracked_below
from gpu_offload.orchestrator.state_owner import record_owner

OLD = ".offload"
"""The folder in which earlier versions kept state; in `store.url` it still stands for the present place."""

DISPOSABLE = frozenset({"cache", "trees", "work", ".tmp", ".lock", ".gitignore"})
"""What an old state folder holds that can be made again."""


class StateError(UsageError):
    """State cannot be kept, or it may have been planted; the text says where and what to do."""


def state_folder(project: Path) -> Path:
    """Return the absolute path of a project's state folder; nothing is made or read."""
    real = os.path.realpath(project)
    # The name is for people; the digest of the path keeps projects of one name apart.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(real).name)[:40].strip("-") or "project"
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    return state_base() / f"{name}-{digest}"


def state_base() -> Path:
    """Return the folder with the state folders of all projects."""
    return _base() / "gpu-offload"


def _base() -> Path:
    if on_runner(os.environ):
        return Path(os.path.realpath(os.environ["RUNNER_TEMP"]))
    given = os.environ.get("XDG_STATE_HOME", "")
    # The specification of the variable: a relative path is to be ignored.
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return Path(os.path.realpath(base))


def on_runner(variables: Mapping[str, str]) -> bool:
    """Whether this is a job of a GitHub workflow, whose folders are deleted with it."""
    return bool(variables.get("GITHUB_ACTIONS") and variables.get("RUNNER_TEMP"))


def store_folder(project: Path, folder: Path) -> Path:
    """Return where a folder store is: `folder` (absolute) as configured, or its place in the state of the project."""
    old = Path(os.path.normpath(project.absolute() / OLD))
    if folder.is_relative_to(old):
        return state_folder(project) / "store" / folder.relative_to(old)
    if on_runner(os.environ):
        for top in (os.environ.get("GITHUB_WORKSPACE") or project, project):
            if folder.is_relative_to(Path(top).absolute()):
                # A checkout is fresh in every job: what a folder in it holds came with the repository.
                name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
                return state_folder(project) / f"store-{name}"
    return folder


def make_folder(base: Path, *parts: str) -> Path:
    """Make a folder below the trusted `base`, following no link, and return it. Raises StateError: it is not ours."""
    path = base
    for part in parts:
        path /= part
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:
            # Not `stat`: a link that was put here would lead our writes elsewhere.
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise StateError(f"{path}: is no folder, or a link; remove it and run again") from None
            if found.st_uid != os.geteuid():
                raise StateError(
                    f"{path}: belongs to another user (number {found.st_uid}); set XDG_STATE_HOME to a folder of yours"
                ) from None
        except OSError as error:
            raise _cannot_be_made(path, error) from error
    return path


def _cannot_be_made(folder: Path, error: OSError) -> StateError:
    return StateError(
        f"{folder}: cannot be made ({error.strerror}); set XDG_STATE_HOME to a folder that can be written to"
    )


def prepare_state(project: Path, note: Callable[[str], object] = lambda _text: None) -> Path:
    """Make a project's state folder and return it; take over what an earlier version kept in the checkout.

    Raises StateError: the checkout's `.offload` is tracked by git or a link, or may have come with the project.
    """
    state = state_folder(project)
    base = _base()
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(base, error) from error
    make_folder(base, *state.relative_to(base).parts)
    record_owner(state, project)
    old = project.absolute() / OLD
    if os.path.lexists(old):
        check_untracked(old, project)
        if not on_runner(os.environ):
            _take_over(old, state, note)
    return state


def check_untracked(folder: Path, project: Path) -> None:
    """Refuse a folder of state (absolute) that git may have brought: tracked, or behind a link. Raises StateError."""
    top = _top(folder, project)
    if top is None:
        return
    at = top
    for part in folder.relative_to(top).parts:
        at /= part
        if at.is_symlink():
            raise StateError(
                f"{at}: is a symbolic link in the checkout, so what it leads to may not be ours; remove it "
                f"(git rm --cached {shlex.quote(str(at))} if git tracks it)"
            )
    if not folder.exists():
        return
    try:
        found = tracked_below(folder)
    except OSError as error:
        raise StateError(f"{folder}: git cannot say whether it came with the repository: {error}") from error
    if found:
        raise StateError(
            f"{folder}: {len(found)} file(s) in it are tracked by git, {found[0]!r} for one. What a repository contains "
            f"is never taken for state of ours: look who committed it, then git rm -r {shlex.quote(str(folder))}"
        )


def _top(folder: Path, project: Path) -> Path | None:
    """Return the outermost checkout or project that a folder is in, None where it is in neither."""
    # The outermost, because a submodule comes with the repository around it.
    inside = [parent for parent in folder.parents if (parent / ".git").exists()]
    root = project.absolute()
    if folder.is_relative_to(root):
        inside.append(root)
    return min(inside, key=lambda path: len(path.parts), default=None)


def _take_over(old: Path, state: Path, note: Callable[[str], object]) -> None:
    """Move what an earlier version kept in the checkout; what can be made again is removed there."""
    with _locked(state):
        try:
            names = sorted(entry.name for entry in os.scandir(old))
        except (FileNotFoundError, NotADirectoryError):
            return
        kept = [name for name in names if name not in DISPOSABLE]
        if not any((parent / ".git").exists() for parent in old.parents):
            if kept:
                raise StateError(
                    f"{old}: this is no git checkout, so the folder may have come with the project. If it is yours: "
                    f"mkdir -p {shlex.quote(str(state / 'store'))} && mv {shlex.quote(str(old))}/* "
                    f"{shlex.quote(str(state / 'store'))}; else remove it"
                )
            return
        strange = next(_no_plain_files(old), None)
        if strange is not None:
            raise StateError(f"{strange}: is neither a file nor a folder; remove it and run again")
        store = make_folder(state, "store")
        for name in kept:
            if os.path.lexists(store / name):
                raise StateError(
                    f"{old / name} and {store / name} are both there; remove the one that is not wanted"
                )
            # Between file systems a move is a copy, which may be interrupted: the final name comes last.
            partial = store / f".{name}.moving"
            _remove(partial)
            shutil.move(old / name, partial)
            partial.rename(store / name)
        shutil.rmtree(old)
    if kept:
        note(f"moved {old} to {store}: state is kept outside of the checkout now")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _no_plain_files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _no_plain_files(Path(entry.path))
        elif not entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    # O_NOFOLLOW, because a link in the place of the lock would be opened for writing.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(state / ".lock", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
