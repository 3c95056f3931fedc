"""Writes the repository and commit of a build into the wheel, for its metadata and for `offload init` to pin.

Everything else of the build is in pyproject.toml.
"""

import json
import re
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
ORIGIN = "origin.json"
IN_WHEEL = Path("gpu_offload/infra", ORIGIN)


def git(*words: str) -> str:
    """Return what a git command prints, nothing where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def origin() -> dict[str, str]:
    """Return repository and commit: of the sdist, or of a clean git checkout; empty where they are not known."""
    if (ROOT / ORIGIN).is_file():
        found: dict[str, str] = json.loads((ROOT / ORIGIN).read_text("utf-8"))
        return found
    url = git("remote", "get-url", "origin")
    at_github = re.search(r"github\.com[:/]([A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?$", url)
    repository = at_github[1] if at_github else ""
    # Code that was never committed has no commit to pin.
    changed = git("status", "--porcelain", "--untracked-files=no")
    commit = "" if changed or not (ROOT / ".git").exists() else git("rev-parse", "HEAD")
    return {"repository": repository, "commit": commit} if repository and commit else {}


class BuildWithOrigin(build_py):
    """Adds the origin to what a wheel contains; an editable installation asks git instead."""

    def run(self) -> None:
        """Build, then write the file."""
        super().run()
        if not self.editable_mode and (found := origin()):
            target = Path(self.build_lib) / IN_WHEEL
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(found), encoding="utf-8")


class SdistWithOrigin(sdist):
    """Adds the origin to a source distribution, whose wheel is built where there is no git."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files, then write the origin."""
        super().make_release_tree(base_dir, files)
        if found := origin():
            (Path(base_dir) / ORIGIN).write_text(json.dumps(found), encoding="utf-8")


repository = origin().get("repository")
address = f"https://github.com/{repository}"
setup(
    cmdclass={"build_py": BuildWithOrigin, "sdist": SdistWithOrigin},
    project_urls={
        "Source": address,
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
    }
    if repository
    else {},
)
