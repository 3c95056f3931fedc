"""Decides what it means if the repository asks for an earlier version again: a revert, or the job of an old commit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from gpu_offload.infra.git import git, git_output
from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.alias import AliasMovedError, move
from gpu_offload.orchestrator.registry.index import mark_deleted
from gpu_offload.orchestrator.registry.manifest import STABLE, Alias, Manifest, model_key
from gpu_offload.orchestrator.registry.promote import yank
from gpu_offload.orchestrator.registry.semver import promotion_hint
from gpu_offload.orchestrator.settings.load import Settings

TAKEN_BACK = "what was changed since was taken back"


@dataclass(frozen=True, slots=True)
class Revert:
    """Moves `stable` back to a version whose data is back, and withdraws the versions that were reverted."""

    store: ObjectStore
    settings: Settings
    console: Console
    training: Sequence[str] | None = None
    """The commits of open runs of other versions. None if the store lacks the runs of other machines: then git's history
    says whether something was changed and taken back."""

    def reverted(self, manifest: Manifest) -> tuple[Manifest, ...]:
        """Return the versions whose data the checked out commit took back to that of `manifest`, the newest first.

        They are what `stable` has meant since it last meant `manifest`. Their commits are ancestors of the one that is
        checked out, and that of `manifest` is an ancestor of theirs.
        """
        stable, present = publish.alias_of(self.store, STABLE), self._present(manifest)
        if stable is None or present is None or not self._is_taken_back(present, manifest):
            return ()
        since = takewhile(lambda move: move.version != manifest.version, reversed(stable.moves))
        names = dict.fromkeys(move.version for move in since if move.version not in stable.yanked)
        found = (publish.manifest_of(self.store, name) for name in names)
        return tuple(each for each in found if each is not None and self._is_taken_back(each, manifest))

    def overtakes(self, manifest: Manifest, stable: Alias | None) -> str | None:
        """Return the checked out commit if it took data back that may still be training.

        `stable` then means `manifest`, whose data is back. None if it means another version, or its history names the
        commit already.
        """
        if stable is None or stable.version != manifest.version or manifest.commit is None:
            return None
        if stable.version in stable.yanked or (head := self._head()) is None:
            return None
        named = [move.commit for move in stable.moves if move.commit is not None]
        if self.training is None:
            changes = self._changes_since(manifest.commit)
            # A revert is two changes: one that is taken back, and one that does it.
            taken = len(changes) > 1 and not any(
                is_ancestor(self.settings.root, changes[0], c) for c in named
            )
        else:
            taken = any(self._is_between(commit, manifest.commit) for commit in self.training)
        return head if taken and head not in named else None

    def _changes_since(self, commit: str) -> list[str]:
        """Return the commits since another one that changed the training, the newest first."""
        settings, training = self.settings, self.settings.training
        data = settings.dataset_path
        # A training by the user's own code may depend on every file of the project.
        more = (settings.root,) if training.entrypoint else (settings.source, settings.root / training.model)
        inside = [path for path in more if path is not None and path.is_relative_to(settings.root)]
        # Literal, because git reads `*` and `[` in a path as a pattern.
        paths = [f":(literal){path}" for path in (data, f"{data}.dvc", *inside)]
        words = ("rev-list", "--end-of-options", f"{commit}..HEAD", "--", *paths)
        return git_output(settings.root, *words).split()

    def _is_taken_back(self, version: Manifest, to: Manifest) -> bool:
        return (
            version.commit is not None
            and to.commit is not None
            and self._is_between(version.commit, to.commit)
        )

    def _is_between(self, commit: str, older: str) -> bool:
        """Whether a commit is an ancestor of the one that is checked out, and a descendant of `older`."""
        root = self.settings.root
        return commit != older and is_ancestor(root, commit, "HEAD") and is_ancestor(root, older, commit)

    def _present(self, manifest: Manifest) -> Manifest | None:
        """Return the version that `stable` means; None if it is this one, or `stable` never meant this one."""
        stable = publish.alias_of(self.store, STABLE)
        if stable is None or stable.version == manifest.version or not stable.has_meant(manifest.version):
            return None
        return publish.manifest_of(self.store, stable.version)

    def complete(self, manifest: Manifest, rules: publish.Rules) -> bool:
        """Move `stable` to a version that was trained before; return whether it moved.

        Git decides. After a revert (see `reverted`) `stable` moves back, and the reverted versions are yanked. If the
        checked out commit is an ancestor of the one of `stable`, the job of an older commit was run again: `stable` stays.
        If git does not know (no repository, a shallow clone), `stable` moves.
        """
        stable = publish.alias_of(self.store, STABLE)
        if stable is not None and (commit := self.overtakes(manifest, stable)) is not None:
            try:
                move(
                    self.store,
                    STABLE,
                    manifest.version,
                    cause="rollback",
                    why=TAKEN_BACK,
                    rollout=stable.rollout,
                    expected=stable,
                    commit=commit,
                    stays=True,
                )
            except AliasMovedError:  # the training that this commit takes back has just published
                return self.complete(manifest, rules)
            return False
        present, reverted = self._present(manifest), self.reverted(manifest)
        if stable is not None and stable.version != manifest.version:
            commits = (present.commit if present else None, *(move.commit for move in reversed(stable.moves)))
            if (newer := next((c for c in commits if c is not None and self._is_older(c)), None)) is not None:
                self.console.note(
                    f"stable stays {stable.version}: commit {newer[:9]} decided it, and is newer than the one that is checked "
                    f"out; {promotion_hint(manifest.version)}"
                )
                return False
        knows = partial(is_ancestor, self.settings.root, of="HEAD")
        rules = replace(rules, knows=knows, commit=self._head())
        moved = publish.complete(self.store, manifest, again=True, rules=rules)
        if moved:
            for each in reverted:
                self._withdraw(each)
        return moved

    def _head(self) -> str | None:
        return git_output(self.settings.root, "rev-parse", "--verify", "HEAD^{commit}") or None

    def _is_older(self, commit: str) -> bool:
        """Whether the checked out commit is an ancestor of another one."""
        root = self.settings.root
        return is_ancestor(root, "HEAD", commit) and not is_ancestor(root, commit, "HEAD")

    def _withdraw(self, reverted: Manifest) -> None:
        what = self.settings.registry.on_revert
        if what == "keep":
            return
        yank(self.store, reverted.version, why="its data was reverted", reverted=True)
        self.console.note(f"yanked {reverted.version}: its data was reverted")
        if what == "delete":
            try:
                delete_files(self.store, reverted)
            except StoreDeniedError as error:
                self.console.warning(f"{reverted.version} is yanked, and its files stay: {error}")


def delete_files(store: ObjectStore, manifest: Manifest) -> int:
    """Delete a version's files, the manifest first, so that no reader sees half of it; return the freed bytes.

    Raises StoreDeniedError: nothing was deleted.
    """
    mark_deleted(store, manifest.version)
    try:
        store.delete(model_key(manifest.version, "manifest.json"))
    except StoreDeniedError:
        mark_deleted(store, manifest.version, deleted=False)
        raise
    freed = 0
    for info in list(store.list(f"models/{manifest.version}/")):
        store.delete(info.key)
        freed += info.size
    return freed


def is_ancestor(root: Path, commit: str, of: str) -> bool:
    """Return whether git knows that a commit is an ancestor of another one, or the same."""
    return git(root, "merge-base", "--is-ancestor", "--end-of-options", commit, of).returncode == 0
