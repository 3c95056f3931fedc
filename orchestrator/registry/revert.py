"""A version that was trained before is what the repository asks for again: a revert, or an old commit?"""

from dataclasses import dataclass
from pathlib import Path

from gpu_offload.infra.git import git
from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.index import mark_deleted
from gpu_offload.orchestrator.registry.manifest import STABLE, Manifest, model_key
from gpu_offload.orchestrator.registry.promote import yank
from gpu_offload.orchestrator.registry.semver import promotion_hint
from gpu_offload.orchestrator.settings.load import Settings


@dataclass(frozen=True, slots=True)
class Revert:
    """Brings `stable` back to a version whose data is back, and withdraws the one that was reverted."""

    store: ObjectStore
    settings: Settings
    console: Console

    def complete(self, manifest: Manifest, rules: publish.Rules) -> bool:
        """Let `stable` mean a version that was trained before; return whether it moved.

        Git tells the case. Where the commit of the present `stable` is behind the one that is checked out, and the wanted
        version is of an earlier one, data was reverted: `stable` moves back, and the reverted version is yanked. Where it is the other way round, a job of before
        was run again: `stable` stays. Where git does not know (no repository, a shallow clone) `stable` moves.
        """
        stable = publish.alias_of(self.store, STABLE)
        present = None
        if stable is not None and stable.version != manifest.version and stable.has_meant(manifest.version):
            present = publish.manifest_of(self.store, stable.version)
        root, commit = self.settings.root, present.commit if present else None
        is_behind = commit is not None and is_ancestor(root, commit, "HEAD")
        is_older = (
            commit is not None and manifest.commit is not None and is_ancestor(root, manifest.commit, commit)
        )
        if present is not None and commit is not None and not is_behind and is_ancestor(root, "HEAD", commit):
            self.console.note(
                f"stable stays {present.version}: its commit {commit[:9]} is newer than the one that is checked out; "
                f"{promotion_hint(manifest.version)}"
            )
            return False
        moved = publish.complete(self.store, manifest, again=True, rules=rules)
        if moved and present is not None and is_behind and is_older:
            self._withdraw(present)
        return moved

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
    """Delete a version's files, the manifest first, so that no reader sees half of it; return the bytes freed."""
    mark_deleted(store, manifest.version)
    store.delete(model_key(manifest.version, "manifest.json"))
    freed = 0
    for info in list(store.list(f"models/{manifest.version}/")):
        store.delete(info.key)
        freed += info.size
    return freed


def is_ancestor(root: Path, commit: str, of: str) -> bool:
    """Return whether git knows that a commit is another one or behind it."""
    return git(root, "merge-base", "--is-ancestor", "--end-of-options", commit, of).returncode == 0
