"""The repository around a folder: its root, remote, default branch, and what its checkout needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.git import git_output
from gpu_offload.infra.github.repository import remote_of

USUAL_BRANCHES = ("main", "master", "trunk", "develop")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A git repository on this machine.

    Attributes:
        root: Its top folder.
        repository: OWNER/REPO at GitHub; empty where no remote is there.
        branch: The default branch.
        lfs: Whether files are kept in Git LFS.
        submodules: Whether it has submodules.
    """

    root: Path
    repository: str = ""
    branch: str = "main"
    lfs: bool = False
    submodules: bool = False


def checkout_of(folder: Path) -> Checkout | None:
    """Return the repository around a folder; None where there is none. May ask the remote for its default branch."""
    top = git_output(folder, "rev-parse", "--show-toplevel")
    if not top:
        return None
    root = Path(top)
    remote, repository = remote_of(root)
    attributes = git_output(
        root, "ls-files", "-co", "--exclude-standard", "--", ".gitattributes", "*/.gitattributes"
    )
    return Checkout(
        root,
        repository,
        default_branch(
            cached=git_output(root, "symbolic-ref", "--short", f"refs/remotes/{remote}/HEAD").partition("/")[
                2
            ],
            asked=lambda: _head_at(root, remote) if remote else "",
            remote=_names(root, f"refs/remotes/{remote}", strip=3) if remote else (),
            local=_names(root, "refs/heads", strip=2)
            or (git_output(root, "symbolic-ref", "--short", "HEAD"),),
        ),
        lfs=any(_uses_lfs(root / name) for name in attributes.splitlines()),
        submodules=(root / ".gitmodules").is_file(),
    )


def default_branch(
    *, cached: str, asked: Callable[[], str], remote: Sequence[str], local: Sequence[str]
) -> str:
    """Return the default branch: the remote's, never the feature branch that happens to be checked out.

    Args:
        cached: What the clone recorded as the remote's HEAD; empty if nothing.
        asked: Returns what `git ls-remote --symref REMOTE HEAD` prints; called only if nothing is recorded.
        remote: The remote's branches that were fetched.
        local: The branches of this checkout.
    """
    if cached:
        return cached
    for line in asked().splitlines():
        reference, _, name = line.partition("\t")
        if name == "HEAD" and reference.startswith("ref: refs/heads/"):
            return reference.removeprefix("ref: refs/heads/")
    usual = [name for known in (remote, local) for name in USUAL_BRANCHES if name in known]
    # A repository that was never pushed has no other; one that was fetched in part may.
    only = local if not remote and len(local) == 1 else ()
    return next(iter((*usual, *only)), "main")


def _head_at(root: Path, remote: str) -> str:
    """Ask a remote by its address, away from the repository: its configuration may name a proxy, a cookie file, no TLS."""
    address = git_output(root, "remote", "get-url", remote)
    # `--end-of-options`: an address that begins with a hyphen is no option.
    return git_output(Path(root.anchor), "ls-remote", "--symref", "--end-of-options", address, "HEAD")


def _names(root: Path, prefix: str, *, strip: int) -> tuple[str, ...]:
    listed = git_output(root, "for-each-ref", f"--format=%(refname:lstrip={strip})", prefix)
    return tuple(name for name in listed.splitlines() if name != "HEAD")


def _uses_lfs(attributes: Path) -> bool:
    try:
        # A link may lead to a device or a pipe, whose content has no end.
        lines = attributes.read_text("utf-8", errors="replace").splitlines() if attributes.is_file() else []
    except OSError:
        return False
    return any("filter=lfs" in line.partition("#")[0].split() for line in lines)
