"""Asks git about a dataset and its checkout."""

import subprocess
from pathlib import Path

from gpu_offload.errors import UsageError
from gpu_offload.errors.git import careful


class NotARepositoryError(UsageError):
    """The dataset is not in a git repository, or git cannot read it."""


def git(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run git in a folder and return what it says. Raises NotARepositoryError if git is not installed."""
    try:
        command, environment = careful(folder, *words)
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            env=environment,
        )
    except FileNotFoundError:
        raise NotARepositoryError("git is not installed; install it") from None
    except OSError as error:  # a repository's settings that are too long for an argument
        raise NotARepositoryError(f"git does not start: {error.strerror}") from None


def converts_line_ends(folder: Path, name: str) -> bool:
    """Whether git holds a text with line feeds alone and checked it out with those of Windows."""
    try:
        said = git(folder, "ls-files", "--eol", "--", f":(literal){name}").stdout
    except NotARepositoryError:
        return False
    return said.startswith("i/lf") and "w/crlf" in said


def empty_submodule(folder: Path) -> str | None:
    """Return the path of the submodule, relative to the checkout around it, that an empty folder is or is in."""
    for parent in (folder, *folder.parents):
        if (parent / ".gitmodules").is_file():
            listed = git(parent, "config", "--file", ".gitmodules", "--get-regexp", r"\.path$").stdout
            paths = [line.partition(" ")[2] for line in listed.splitlines()]
            below = folder.relative_to(parent).as_posix()
            return next((path for path in paths if below == path or below.startswith(f"{path}/")), None)
        if (parent / ".git").is_dir():  # the top of a checkout; a submodule's .git is a file
            return None
    return None
