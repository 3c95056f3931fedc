"""What `offload init` writes into a repository beside its configuration: workflows that call ours, and a badge."""

import difflib
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

FOLDER = Path(".github/workflows")
MARK = "# Written by `offload init`"
"""The first line of a file that is ours to update."""

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
SHA = re.compile(r"[0-9a-f]{40}")
VERSION = re.compile(r"[A-Za-z0-9._-]{1,100}")
BADGE = re.compile(
    r"^\[!\[train\]\(\S+/actions/workflows/offload-train\.yml/badge\.svg\S*\)\]\(\S+\)$", re.MULTILINE
)


class PinError(Exception):
    """It is not known which commit of the action a repository shall use."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The action at one commit. A tag could be moved to other code; a commit cannot.

    Raises:
        PinError: it is no repository and commit.
    """

    repository: str
    commit: str
    version: str = ""

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repository) or not SHA.fullmatch(self.commit):
            raise PinError(
                f"{self.repository}@{self.commit} is no pin: write OWNER/REPO@COMMIT, the commit with all 40 digits"
            )
        if self.version and not VERSION.fullmatch(self.version):
            raise PinError(f"{self.version!r} is no version")

    @classmethod
    def of(cls, text: str) -> "Pin":
        """Read `OWNER/REPO@COMMIT` or `OWNER/REPO@COMMIT#VERSION`. Raises PinError."""
        where, _, version = text.partition("#")
        repository, _, commit = where.partition("@")
        return cls(repository, commit, version)

    def uses(self, workflow: str) -> str:
        """Return what calls one of our workflows, the version in a comment."""
        comment = f" # {self.version}" if self.version else ""
        return f"{self.repository}/.github/workflows/{workflow}.yml@{self.commit}{comment}"


def own_pin() -> Pin:
    """Return the commit that this copy of ours was installed from.

    Raises:
        PinError: it was not installed from GitHub, and is no clone of it either.
    """
    try:
        ours = distribution("gpu-offload")
    except PackageNotFoundError:
        ours = None
    pin = (ours and _installed_from(ours)) or _clone_of(Path(__file__).resolve().parent.parent)
    if pin is None:
        raise PinError(
            "it is not known which commit of the action to pin, because this copy was not installed from GitHub: "
            "say it with --action OWNER/REPO@COMMIT"
        )
    return pin


def _installed_from(ours: Distribution) -> Pin | None:
    """Read what the installer wrote of a `git+https:` address (PEP 610)."""
    try:
        found = json.loads(ours.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    commit = found.get("vcs_info", {}).get("commit_id", "")
    repository = _github_name(found.get("url", ""))
    return Pin(repository, commit, f"v{ours.version}") if repository and SHA.fullmatch(commit) else None


def _clone_of(root: Path) -> Pin | None:
    if not (root / "action.yml").is_file():
        return None
    repository = _github_name(_git(root, "remote", "get-url", "origin"))
    commit = _git(root, "rev-parse", "HEAD")
    return Pin(repository, commit) if repository and SHA.fullmatch(commit) else None


def _github_name(url: str) -> str:
    """Return OWNER/REPO of an address at GitHub, else nothing."""
    match = re.fullmatch(r"(?:git\+)?(?:https://|ssh://git@|git@)github\.com[/:](.+?)(?:\.git)?/?", url)
    return match[1] if match and REPOSITORY.fullmatch(match[1]) else ""


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


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
    return (root / ".git").exists() and bool(_github_name(_git(root, "remote", "get-url", "origin")))


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
        "keep": "\n" + _filled(_KEEP, {"uses": pin.uses("keep")}) if keep else "",
    }
    return {
        FOLDER / name: _filled(text, values)
        for name, text in (
            ("offload-plan.yml", _PLAN),
            ("offload-train.yml", _TRAIN),
            ("offload.yml", _OFFLOAD),
            ("offload-tend.yml", _TEND),
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
    branch = _git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD").removeprefix("origin/")
    branch = branch or _git(root, "symbolic-ref", "--short", "HEAD") or "main"
    done = [
        _written(root, path, text, only_show=only_show)
        for path, text in workflow_texts(pin, branch=branch, directory=directory, keep=keep).items()
    ]
    repository = _github_name(_git(root, "remote", "get-url", "origin"))
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


_TRAIN = """
<<mark>>; running it again updates it. Trains where it is cheapest what a push changed.
name: train

on:
  push:
    branches: [<<branch>>]
  workflow_dispatch:

permissions: {}

jobs:
  train:
    permissions:
      contents: read
      id-token: write # the roles of `offload bootstrap`; none is needed where the store is a folder
    uses: <<train>>
    with:
      directory: <<directory>>
      publisher-role: ${{ vars.OFFLOAD_PUBLISHER_ROLE }}
      launcher-role: ${{ vars.OFFLOAD_LAUNCHER_ROLE }}
      janitor-role: ${{ vars.OFFLOAD_JANITOR_ROLE }}
<<keep>>"""

_KEEP = """
  keep: # the store is a folder, which goes with the runner: the models stay in this repository's releases
    needs: train
    if: always() && (needs.train.outputs.artifact != '' || needs.train.result != 'success')
    permissions:
      contents: write # the release; this job runs no training
    uses: <<uses>>
"""

_PLAN = """
<<mark>>; running it again updates it. Says on a pull request what merging it would train, and where.
name: plan

on:
  pull_request:

permissions: {}

jobs:
  plan:
    permissions:
      contents: read # and nothing else: a stranger's pull request gets no credentials
    uses: <<plan>>
    with:
      directory: <<directory>>
"""

_OFFLOAD = """
<<mark>>; running it again updates it. Trains on a rented GPU because you say so.
name: offload

on:
  workflow_dispatch:
    inputs:
      instance-type:
        description: Instance type
        type: choice
        options: [auto, g4dn.xlarge, g5.xlarge, g6.xlarge, g6e.xlarge]
        default: auto
      market:
        description: Market
        type: choice
        options: [auto, spot, on-demand, spot-then-on-demand]
        default: auto
      max-cost-usd:
        description: What the run may cost in US dollars; empty as configured
        type: string
        default: ""
      deadline:
        description: From its start to its end, such as 3h; empty as configured
        type: string
        default: ""
      detach:
        description: Leave it once the instance trains by itself; tend collects it
        type: boolean
        default: false
      reason:
        description: Why
        type: string
        default: by hand

permissions: {}

jobs:
  offload:
    permissions:
      contents: read
      id-token: write # the launcher's role, behind the environment, and the janitor's
    uses: <<train>>
    with:
      "on": ec2
      directory: <<directory>>
      instance-type: ${{ inputs.instance-type }}
      market: ${{ inputs.market }}
      max-cost-usd: ${{ inputs.max-cost-usd }}
      deadline: ${{ inputs.deadline }}
      detach: ${{ inputs.detach }}
      reason: ${{ inputs.reason }}
      launcher-role: ${{ vars.OFFLOAD_LAUNCHER_ROLE }}
      janitor-role: ${{ vars.OFFLOAD_JANITOR_ROLE }}
"""

_TEND = """
<<mark>>; running it again updates it. Ends whatever should not run any more.
name: tend

on:
  schedule:
    - cron: "17 * * * *"
  workflow_dispatch:

permissions: {}

jobs:
  tend:
    if: vars.OFFLOAD_JANITOR_ROLE != ''
    permissions:
      contents: read
      id-token: write # the janitor's role, which may terminate what bears our tag and nothing else
    uses: <<tend>>
    with:
      directory: <<directory>>
      janitor-role: ${{ vars.OFFLOAD_JANITOR_ROLE }}
"""
