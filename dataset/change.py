"""Whether a dataset differs from what it was at a commit, by git alone: quick, and no file is hashed."""

import subprocess
from pathlib import Path

from gpu_offload.dataset.paths import hidden
from gpu_offload.errors import EXIT_USAGE, OffloadError


class UnknownRevisionError(OffloadError):
    """The commit to compare with is not there; the text says how to get it."""

    exit_code = EXIT_USAGE


class NotARepositoryError(OffloadError):
    """The dataset is not in a git repository, or git is not installed."""

    exit_code = EXIT_USAGE


def changed_since(repository_path: Path, revision: str) -> bool:
    """Return whether anything of the dataset at `repository_path` was changed since `revision`.

    Committed, staged, unstaged and untracked changes count alike; hidden files, `*.cache` and files that git ignores
    do not. Where `revision` is ahead of or beside HEAD, it is still its content that is compared, not its history.

    Args:
        repository_path: The dataset, a folder or a `data.yaml`, inside a git checkout. It may be gone.
        revision: Anything that names a commit: a hash, a tag, `HEAD~1`, `origin/main`.

    Raises:
        NotARepositoryError: If there is no git repository around it.
        UnknownRevisionError: If there is no such commit, as in a shallow clone.
    """
    path = repository_path.absolute()
    if path.is_file():
        path = path.parent  # what belongs to a data.yaml lies beside it
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        raise NotARepositoryError(f"{folder} is in no git repository; run this inside a checkout")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise UnknownRevisionError(_remedy(folder, revision))
    # --no-ext-diff, --no-textconv: what a repository's configuration says must not run here.
    difference = _git(
        folder,
        "diff",
        "--name-only",
        "-z",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        commit.strip(),
        "--",
        str(path),
    )
    untracked = _git(
        folder, "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", str(path)
    )
    if difference is None or untracked is None:
        raise NotARepositoryError(f"git cannot compare {path}; run `git status` there and see what it says")
    inside = path.relative_to(Path(top.strip()).resolve()) if path.is_relative_to(Path(top.strip())) else None
    skip = len(inside.parts) if inside is not None else 0
    names = [name for name in (difference + untracked).split("\0") if name]
    return any(not any(map(hidden, name.split("/")[skip:])) for name in names)


def _remedy(folder: Path, revision: str) -> str:
    if revision.strip("0") == "":
        return "the revision is all zeros, as in the first push of a branch: there is nothing to compare with"
    if (_git(folder, "rev-parse", "--is-shallow-repository") or "").strip() == "true":
        return (
            f"revision {revision!r} is not in this shallow clone; check out with `fetch-depth: 0`, "
            f"or run `git fetch origin {revision}` first"
        )
    return f"revision {revision!r} is unknown here; correct it, or run `git fetch` first"


def _git(folder: Path, *words: str) -> str | None:
    """Run git; return what it says, None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.quotepath=off", "-c", "core.fsmonitor=false", *words],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise NotARepositoryError("git is not installed; install it") from None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None
