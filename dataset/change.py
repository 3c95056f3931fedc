"""Whether a dataset differs from what it was at a commit, by git alone: quick, and no file is hashed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_offload.dataset.finding import some
from gpu_offload.dataset.git import NotARepositoryError, git
from gpu_offload.dataset.layout import is_image
from gpu_offload.dataset.walk import hidden
from gpu_offload.errors import UsageError

_MAX_LINKS: Final = 40


class UnknownRevisionError(UsageError):
    """The commit to compare with is not there; the text says how to get it."""


class UndecidableError(UsageError):
    """Git does not hold the dataset, so it cannot say whether it changed."""


def changed_since(repository_path: Path, revision: str) -> bool:
    """Return whether anything of the dataset at `repository_path` was changed since `revision`.

    Committed, staged, unstaged and untracked changes count alike; hidden files and `*.cache` do not. Links on the way
    to the dataset are resolved: where one leads, and what is there, both count. A dataset in a submodule is compared
    with the commit of it that the repository around it recorded. Where `revision` is ahead of or beside HEAD, its
    content is compared, not its history.

    Args:
        repository_path: The dataset, a folder or a `data.yaml`, inside a git checkout. It may be gone.
        revision: Anything that names a commit: a hash, a tag, `HEAD~1`, `origin/main`.

    Raises:
        NotARepositoryError: If there is no git repository around it.
        UnknownRevisionError: If there is no such commit, as in a shallow clone.
        UndecidableError: If git ignores most pictures of the dataset (DVC, a download) or is configured to skip files,
            and nothing that it does see changed; if its submodule is not checked out; or if a link leads to another
            repository.
    """
    steps = _steps(repository_path.absolute())
    first = _Checkout.around(steps[0])
    commit = first.commit(revision)
    checkouts = [(first, commit)]
    for path in steps:
        # A link is content, too: one that leads elsewhere now is a change, whatever it leads to.
        checkout = _Checkout.around(path)
        at = next((known for other, known in checkouts if other == checkout), None)
        if at is None:
            at = checkout.recorded_in(first, commit) or ""
            checkouts.append((checkout, at))
        if not at or checkout.differs(path, at):
            return True
    checkout.check_seen(steps[-1])
    checkout.check_tracked(steps[-1])
    return False


def _steps(path: Path) -> list[Path]:
    """Return the dataset's folder and every link that leads to it, each by the path at which git knows it."""
    steps, current = [], path
    for _ in range(_MAX_LINKS):
        folder = current.parent if current.is_file() and not current.is_symlink() else current
        link = _first_link(current)
        if link is None:
            steps.append(folder)
            return steps
        steps.append(link)
        rest = current.relative_to(link)
        current = Path(os.path.normpath(link.parent / link.readlink() / rest))
    raise NotARepositoryError(f"{path} leads through a circle of links; put the real folder there")


def _first_link(path: Path) -> Path | None:
    """Return the first component of a path that is a link and inside a checkout."""
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and git(part.parent, "rev-parse", "--show-toplevel").returncode == 0:
            return part
    return None


@dataclass(frozen=True, slots=True)
class _Checkout:
    """A work tree of git's."""

    top: Path

    @classmethod
    def around(cls, path: Path) -> "_Checkout":
        folder = next(parent for parent in path.parents if parent.is_dir())
        if path.is_dir() and not path.is_symlink():
            folder = path
        done = git(folder, "rev-parse", "--show-toplevel")
        if done.returncode == 0:
            return cls(Path(done.stdout.rstrip("\n")))
        if "not a git repository" in done.stderr:
            raise NotARepositoryError(f"{folder} is in no git repository; run this inside a checkout")
        raise NotARepositoryError(f"git cannot read {folder}: {done.stderr.strip()}")

    def commit(self, revision: str) -> str:
        # Without --end-of-options a revision from a workflow's input could be an option of git's.
        done = git(self.top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if done.returncode:
            raise UnknownRevisionError(_remedy(self.top, revision))
        return done.stdout.strip()

    def recorded_in(self, outer: "_Checkout", commit: str) -> str | None:
        """Return the commit of this submodule that the checkout around it had recorded; None where it differs at all."""
        done = git(self.top, "rev-parse", "--show-superproject-working-tree")
        if Path(done.stdout.rstrip("\n") or "/") != outer.top:
            message = f"the dataset is in {self.top}, which is no part of the repository {outer.top}; compare it there"
            raise UndecidableError(message)
        place = self.top.relative_to(outer.top).as_posix()
        # A submodule is listed as `160000 commit HASH<tab>PATH`.
        words = git(outer.top, "ls-tree", commit, "--", _literal(place)).stdout.split()
        if len(words) < 3 or words[1] != "commit":
            return None
        known = git(self.top, "rev-parse", "--verify", "--quiet", f"{words[2]}^{{commit}}")
        return words[2] if known.returncode == 0 else None

    def differs(self, path: Path, commit: str) -> bool:
        """Whether a folder or link differs from the commit, or holds files that are not tracked."""
        inside = self._inside(path)
        # Names alone and no renames: what a file was called before does not matter, and git need not compare contents.
        difference = git(
            self.top,
            *("diff", "--name-only", "-z", "--no-renames"),
            *("--ignore-submodules=none", commit, "--", _literal(inside)),
        )
        words = ("-z", "--others", "--exclude-standard", "--", _literal(inside))
        untracked = git(self.top, "ls-files", *words)
        for done in (difference, untracked):
            if done.returncode:
                raise NotARepositoryError(f"git cannot compare {path}: {done.stderr.strip()}")
        if any(self._counts(name, inside) for name in _names(difference.stdout + untracked.stdout)):
            return True
        # The submodule that it was in can be gone from the index, too.
        before = self._submodules(inside, "ls-tree", "-z", commit)
        return bool(before and before != self._submodules(inside, "ls-files", "-z", "--stage"))

    def _submodules(self, inside: str, *words: str) -> set[str]:
        """Return the submodules that a path is in, by a listing of git's with modes."""
        parts = inside.split("/")
        around = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        listed = _names(git(self.top, *words, "--", *map(_literal, around)).stdout)
        places = {entry.partition("\t")[2] for entry in listed if entry.startswith("160000 ")}
        return places.intersection(around)

    def check_seen(self, path: Path) -> None:
        """Raise UndecidableError where git does not look at the dataset: its submodule is empty, or the index says so."""
        inside = self._inside(path)
        if place := next(iter(self._submodules(inside, "ls-files", "-z", "--stage")), None):
            raise UndecidableError(
                f"the submodule {place} is not checked out: git submodule update --init {place}"
            )
        flagged = _names(git(self.top, "ls-files", "-z", "-v", "--", _literal(inside)).stdout)
        # A small letter: assume-unchanged. S: skip-worktree, which is normal for what a sparse checkout leaves out.
        unseen = [
            f[2:] for f in flagged if f[0].islower() or (f[0] == "S" and os.path.lexists(self.top / f[2:]))
        ]
        if unseen := [name for name in unseen if self._counts(name, inside)]:
            raise UndecidableError(
                f"git is configured not to look whether {len(unseen)} files of the dataset changed ({some(unseen)}): "
                "git update-index --no-assume-unchanged --no-skip-worktree FILE"
            )

    def check_tracked(self, path: Path) -> None:
        """Raise UndecidableError where git ignores more pictures below a folder than it tracks."""
        inside = self._inside(path)
        words = ("--others", "--ignored", "--exclude-standard", "--", _literal(inside))
        ignored = [name for name in _names(git(self.top, "ls-files", "-z", *words).stdout) if is_image(name)]
        ignored = [name for name in ignored if self._counts(name, inside)]
        if not ignored:
            return
        tracked = sum(map(is_image, _names(git(self.top, "ls-files", "-z", "--", _literal(inside)).stdout)))
        if len(ignored) > tracked:
            message = (
                f"git ignores {len(ignored)} pictures of the dataset and tracks {tracked} ({some(ignored)}), so it "
                "cannot say whether they changed; compare `offload fingerprint`, or ask git about the file that "
                "describes them (such as a .dvc file)"
            )
            raise UndecidableError(message)

    def _inside(self, path: Path) -> str:
        """Return a path relative to the top; the top may be named through links, as on macOS."""
        if path.is_relative_to(self.top):
            inside = path.relative_to(self.top)
        else:
            inside = (path.parent.resolve() / path.name).relative_to(self.top.resolve())
        return inside.as_posix()

    @staticmethod
    def _counts(name: str, inside: str) -> bool:
        skip = 0 if inside == "." else inside.count("/") + 1
        return not any(map(hidden, name.split("/")[skip:]))


def _literal(path: str) -> str:
    """Return a path for git, which reads `:(...)` and `*` in names as patterns."""
    return f":(literal){path}"


def _names(output: str) -> list[str]:
    return [name for name in output.split("\0") if name]


def _remedy(folder: Path, revision: str) -> str:
    if revision.strip("0") == "":  # GitHub's `event.before` of a branch's first push
        return "the revision is all zeros, as in the first push of a branch: there is nothing to compare with"
    if git(folder, "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        return (
            f"revision {revision!r} is not in this shallow clone; check out with `fetch-depth: 0`, "
            f"or run `git fetch origin {revision}` first"
        )
    return f"revision {revision!r} is unknown here; correct it, or run `git fetch` first"
