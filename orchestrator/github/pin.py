"""The repository and commit of this program, for `uses:` lines."""

import json
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from gpu_offload.errors import OffloadError
from gpu_offload.infra.git import git_output
from gpu_offload.infra.github.repository import REPOSITORY, from_remote
from gpu_offload.infra.origin import origin

SHA = re.compile(r"[0-9a-f]{40}")

VERSION = re.compile(r"[A-Za-z0-9._-]{1,100}")


class PinError(OffloadError):
    """The commit of the action to pin is unknown or malformed."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The action at one commit, which unlike a tag cannot be moved. Raises PinError: no repository and commit."""

    repository: str
    commit: str
    version: str = ""

    def __post_init__(self) -> None:
        # The parts become lines of YAML.
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
    """Return the commit that this copy of gpu-offload comes from. Raises PinError: it is unknown."""
    try:
        ours = distribution("gpu-offload")
    except PackageNotFoundError:
        ours = None
    pin = (
        (ours and _installed_from(ours))
        or _built_from(f"v{ours.version}" if ours else "")
        or _clone_of(Path(__file__).resolve().parents[2])
    )
    if pin is None:
        raise PinError(
            "the commit of the action to pin is unknown, because this copy of gpu-offload comes from a checkout that has "
            "no remote at GitHub, or whose commit is not there: name one with --action OWNER/REPO@COMMIT"
        )
    return pin


def _built_from(version: str) -> Pin | None:
    known = origin()
    return Pin(known.repository, known.commit, version) if known else None


def _installed_from(ours: Distribution) -> Pin | None:
    """Read the address and commit that an installer records for `git+https:` (PEP 610)."""
    try:
        found = json.loads(ours.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    commit = found.get("vcs_info", {}).get("commit_id", "")
    repository = from_remote(found.get("url", ""))
    return Pin(repository, commit, f"v{ours.version}") if repository and SHA.fullmatch(commit) else None


def _clone_of(root: Path) -> Pin | None:
    if not (root / "action.yml").is_file():
        return None
    repository = from_remote(git_output(root, "remote", "get-url", "origin"))
    commit = git_output(root, "rev-parse", "HEAD")
    if not git_output(root, "for-each-ref", "--contains", commit, "refs/remotes", "refs/tags"):
        return None  # GitHub does not have it
    return Pin(repository, commit) if repository and SHA.fullmatch(commit) else None
