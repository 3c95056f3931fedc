"""Asks git about a checkout, which may be a stranger's: nothing in it is run."""

import subprocess
from pathlib import Path

from gpu_offload.errors.git import careful

TIMEOUT_S = 10


def git(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run git in a folder and return its exit code and output; code 127 where git is missing or does not answer."""
    command = ["git", *words]
    try:
        command, environment = careful(folder, *words)
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=TIMEOUT_S,
            check=False,
            env=environment,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "git is not installed")
    except OSError as error:  # a repository's settings that are too long for an argument
        return subprocess.CompletedProcess(command, 127, "", f"git does not start: {error.strerror}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 127, "", f"git did not answer within {TIMEOUT_S} s")


def git_output(folder: Path, *words: str) -> str:
    """Return what a git command prints, stripped; nothing where it fails."""
    done = git(folder, *words)
    return done.stdout.strip() if done.returncode == 0 else ""


def tracked_below(folder: Path) -> list[str]:
    """Return the files at or below a folder that any repository around it tracks.

    Raises:
        OSError: There is a repository, and git cannot read it; the text is git's own.
    """
    found: list[str] = []
    # The folder itself may not exist yet.
    at = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    for top in (parent for parent in (at, *at.parents) if (parent / ".git").exists()):
        inside = folder.relative_to(top).as_posix()
        if inside == ".":
            found += _listed(top, ".")
        else:
            # Some file systems ignore the case of names. A submodule counts as one tracked name.
            found += _listed(top, f":(top,literal,icase){inside}")
    return found


def _listed(top: Path, pathspec: str) -> list[str]:
    done = git(top, "ls-files", "-z", "--cached", "--", pathspec)
    if done.returncode != 0:
        raise OSError(f"git cannot read {top}: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name]
