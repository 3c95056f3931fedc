"""What `offload init` writes into a repository beside its configuration: workflows that call ours, and a badge."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.github.repository import git_output, github_name
from gpu_offload.orchestrator.github.pin import Pin
from gpu_offload.orchestrator.github.templates import KEEP, OFFLOAD, PLAN, TEND, TRAIN

FOLDER = Path(".github/workflows")
MARK = "# Written by `offload init`"
"""The first line of a file that is ours to update."""

BADGE = re.compile(
    r"^\[!\[train\]\(\S+/actions/workflows/offload-train\.yml/badge\.svg\S*\)\]\(\S+\)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one file: `written`, `updated`, `unchanged`, or `kept` because it is not ours any more."""

    path: Path
    state: str
    difference: str = ""

    def __str__(self) -> str:
        told = {
            "written": f"Wrote {self.path}.",
            "updated": f"Updated {self.path}:\n{self.difference}",
            "unchanged": f"{self.path} is as it would be written.",
            "kept": f"{self.path} is not ours (its first line is another) and stays. What would be written "
            f"differs:\n{self.difference}",
        }
        return told[self.state].rstrip("\n")


def is_github(root: Path) -> bool:
    """Whether a folder is the root of a repository whose origin is at GitHub."""
    return (root / ".git").exists() and bool(github_name(git_output(root, "remote", "get-url", "origin")))


def workflow_texts(
    pin: Pin, *, branch: str = "main", directory: str = ".", keep: bool = False
) -> dict[Path, str]:
    """Return the workflows for a repository, by their path in it. Pure.

    Args:
        pin: The action.
        branch: The default branch: what is pushed there is trained.
        directory: The folder that holds the configuration, relative to the repository.
        keep: Whether the models are kept in a release, because the store is a folder.
    """
    values = {
        "mark": MARK,
        "branch": json.dumps(branch),
        "directory": json.dumps(directory),
        "plan": pin.uses("plan"),
        "train": pin.uses("train"),
        "tend": pin.uses("tend"),
        "keep": "\n" + _filled(KEEP, {"uses": pin.uses("keep")}) if keep else "",
    }
    return {
        FOLDER / name: _filled(text, values)
        for name, text in (
            ("offload-plan.yml", PLAN),
            ("offload-train.yml", TRAIN),
            ("offload.yml", OFFLOAD),
            ("offload-tend.yml", TEND),
        )
    }


def badge(repository: str) -> str:
    """Return the README's badge: whether the newest training went well."""
    page = f"https://github.com/{repository}/actions/workflows/offload-train.yml"
    return f"[![train]({page}/badge.svg)]({page})"


def write_workflows(
    root: Path, pin: Pin, *, directory: str = ".", keep: bool = False, only_show: bool = False
) -> tuple[Written, ...]:
    """Write or update the workflows of a repository, and put the badge into its README.

    A file whose first line is not ours any more is somebody's own: it stays, and the difference is shown.

    Args:
        root: The repository.
        pin: The action.
        directory: The configuration's folder in it.
        keep: Whether the models are kept in a release, because the store is a folder.
        only_show: Write nothing.

    Raises:
        OSError: a file cannot be written.
    """
    branch = git_output(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD").removeprefix("origin/")
    branch = branch or git_output(root, "symbolic-ref", "--short", "HEAD") or "main"
    done = [
        _written(root, path, text, only_show=only_show)
        for path, text in workflow_texts(pin, branch=branch, directory=directory, keep=keep).items()
    ]
    repository = github_name(git_output(root, "remote", "get-url", "origin"))
    readme = root / "README.md"
    if repository and readme.is_file():
        old = readme.read_text("utf-8")
        new = with_badge(old, badge(repository))
        done.append(_replaced(root, Path("README.md"), old, new, only_show=only_show))
    return tuple(done)


def with_badge(readme: str, line: str) -> str:
    """Return a README with the badge below its title; an older badge of ours is replaced. Pure."""
    if BADGE.search(readme):
        return BADGE.sub(lambda _: line, readme, count=1)
    title, newline, rest = readme.partition("\n")
    if title.startswith("# "):
        return f"{title}\n\n{line}\n{newline and rest}"
    return f"{line}\n\n{readme}"


def _written(root: Path, path: Path, text: str, *, only_show: bool) -> Written:
    target = root / path
    if not target.exists():
        if not only_show:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return Written(path, "written")
    old = target.read_text("utf-8", errors="replace")
    if old != text and not old.startswith(MARK):
        return Written(path, "kept", _difference(path, old, text))
    return _replaced(root, path, old, text, only_show=only_show)


def _replaced(root: Path, path: Path, old: str, new: str, *, only_show: bool) -> Written:
    if old == new:
        return Written(path, "unchanged")
    if not only_show:
        (root / path).write_text(new, encoding="utf-8")
    return Written(path, "updated", _difference(path, old, new))


def _difference(path: Path, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), str(path), f"{path} (new)"
    )
    return "".join(lines)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill in `<<name>>`: a workflow's own `${{ }}` stays."""
    return re.sub(r"<<(\w+)>>", lambda match: values[match[1]], text).removeprefix("\n")
