"""Stages what an instance reads from the store before it is launched: dataset, weights, the user's own code.

datasets/...                        the training tree in shards: see `remote_job.staged_dataset`
runs/<run>/inputs/<sha256>.pt       starting weights
runs/<run>/inputs/<sha256>.pt.json  their size and etag, noted after the upload
runs/<run>/inputs/<sha256>.tar      model definition and training code of the user's
"""

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from gpu_offload.dataset.archive import pack_files, packed_size
from gpu_offload.dataset.shards import Shard, shard_id, shards_of
from gpu_offload.infra.store.errors import ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.protocol import ObjectInfo, ObjectStore
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.units import human_bytes
from gpu_offload.orchestrator.plan.candidate import Project
from gpu_offload.orchestrator.run.record import RunRecord, run_key
from gpu_offload.remote_job.staged_dataset import SHARDS, StagedDataset, StagedShard, dataset_key
from gpu_offload.remote_job.wire import Wire

AT_ONCE = 4
"""Shards that are packed and sent at the same time; each is in memory meanwhile."""


def weights_key(run: str, sha256: str) -> str:
    """Return where a run's starting weights are staged."""
    return run_key(run, f"inputs/{sha256}.pt")


def project_key(run: str, project: Project) -> str:
    """Return where a run's own code is staged."""
    return run_key(run, f"inputs/{project.sha256}.tar")


def dataset_keys(run: RunRecord) -> tuple[str, str]:
    """Return where the shards of a run's dataset are listed: for all runs; for this one, where one of them is damaged."""
    return dataset_key(run.fingerprint), run_key(run.id, f"inputs/{run.fingerprint}.json")


def staged_dataset(store: ObjectStore, run: RunRecord) -> str:
    """Return the key that an instance of a run reads its dataset from."""
    shared, own = dataset_keys(run)
    earlier = run.spec.dataset.archive or shared  # of a run that an earlier version began
    return next((key for key in (own, shared) if store.stat(key) is not None), earlier)


def note_key(key: str) -> str:
    """Return where size and etag of a staged object are noted."""
    return f"{key}.json"


class StagedNote(Wire):
    """Size and etag of an object right after it was staged."""

    format: Literal[1] = 1
    size: int
    etag: str


@dataclass
class Staging:
    """Puts a run's inputs into the store. Harmless to repeat; what is there undamaged is not sent again."""

    store: ObjectStore
    console: Console
    tree: Callable[[], Path]
    """Makes the training tree, if it is not there yet, and returns it."""
    weights: Path | None = None
    project: bytes | None = None
    """What `pack_project` packed."""

    def stage(self, run: RunRecord) -> None:
        """Put everything into the store. Raises StoreError; DatasetError: the dataset changed meanwhile."""
        self._stage_dataset(run)
        if self.weights is not None and run.spec.weights is not None:
            target = weights_key(run.id, run.spec.weights.sha256)
            if not self._is_whole(target):
                self._upload(target, self.weights)
        if self.project is not None and run.project is not None:
            self._put_project(project_key(run.id, run.project), self.project)

    def _is_whole(self, key: str) -> bool:
        """Whether an object has the size and etag noted when it was staged; a damaged one would waste an instance."""
        info = self.store.stat(key)
        if info is None:
            return False
        try:
            note = StagedNote.model_validate_json(self.store.read(note_key(key))[0])
        except (ObjectMissingError, ValidationError):
            return False  # an upload costs nothing, a damaged object an instance
        if (note.size, note.etag) == (info.size, info.etag):
            return True
        self.console.warning(f"{key} changed since it was staged; staging it again")
        return False

    def _upload(self, key: str, path: Path) -> None:
        info = self.store.upload(key, path)
        self.store.put(note_key(key), StagedNote(size=info.size, etag=info.etag).model_dump_json().encode())

    def _put_project(self, key: str, project: bytes) -> None:
        try:
            whole = self.store.read(key)[0] == project
        except ObjectMissingError:
            whole = False
        if not whole:
            self.store.put(key, project)

    def _stage_dataset(self, run: RunRecord) -> None:
        """Send the shards that the store lacks, then list all: an upload that ended early goes on where it was."""
        found = {
            info.key: info
            for prefix in (SHARDS, run_key(run.id, "inputs/"))
            for info in self.store.list(prefix)
        }
        shared, own = dataset_keys(run)
        doubtful = set[str]()
        for key in (own, shared):
            listed = self._listed(key)
            changed = {one.key for one in listed if _changed(one, found.get(one.key))}
            if listed and not changed:
                return
            doubtful |= changed
        if damaged := doubtful & found.keys():
            self.console.warning(
                f"{', '.join(sorted(damaged))} changed since it was staged; staging it again"
            )
        with tempfile.TemporaryDirectory(prefix="offload-") as scratch:
            sending = _Sending(self.store, run.id, self.tree(), Path(scratch), found, frozenset(doubtful))
            self.console.note(sending.summary())
            body = StagedDataset(shards=sending.send()).model_dump_json().encode()
        try:
            if not sending.is_own:
                self.store.create(shared, body)
                return
        except ObjectExistsError:
            pass  # The role may not replace it, so the run gets its own.
        self.store.put(own, body)

    def _listed(self, key: str) -> tuple[StagedShard, ...]:
        try:
            return StagedDataset.model_validate_json(self.store.read(key)[0]).shards
        except (ObjectMissingError, ValidationError):
            return ()


def _changed(shard: StagedShard, found: ObjectInfo | None) -> bool:
    return found is None or (shard.size, shard.etag) != (found.size, found.etag)


class _Sending:
    """Brings the shards of one tree to the store, a few at a time.

    A shard that is in the store is not sent again if it has the right size: its name says what is in it, and the
    instance verifies every file. One that changed after it was listed is left as it is, and the run gets its own copy: the role
    may not replace it.
    """

    def __init__(
        self,
        store: ObjectStore,
        run: str,
        tree: Path,
        scratch: Path,
        found: Mapping[str, ObjectInfo],
        doubtful: frozenset[str],
    ) -> None:
        self._store, self._run, self._tree, self._scratch = store, run, tree, scratch
        self._found, self._doubtful = found, doubtful
        self._shards = {f"{shard_id(shard)}.tar": shard for shard in shards_of(tree)}
        self._sizes = {name: packed_size(shard) for name, shard in self._shards.items()}
        self.is_own = False
        """Whether the run has a shard of its own."""

    def summary(self) -> str:
        """Say how much is to be sent."""
        sizes = [size for name, size in self._sizes.items() if not self._is_there(name)]
        kept = len(self._sizes) - len(sizes)
        return f"staging the dataset: {human_bytes(sum(sizes))}" + (
            f"; {kept} of its {len(self._sizes)} shards are in the store" if kept else ""
        )

    def send(self) -> tuple[StagedShard, ...]:
        """Send what is missing; return all shards. Raises StoreError, DatasetError."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return tuple(pool.map(self._staged, self._shards.items()))

    def _is_there(self, name: str) -> bool:
        info, key = self._found.get(SHARDS + name), SHARDS + name
        return info is not None and info.size == self._sizes[name] and key not in self._doubtful

    def _staged(self, item: tuple[str, Shard]) -> StagedShard:
        name, shard = item
        info = self._found.get(SHARDS + name)
        if info is None or not self._is_there(name):
            path = self._scratch / name
            pack_files(self._tree, shard, path)
            info = self._sent(name, path, create=info is None)
            path.unlink()
        return StagedShard(key=info.key, size=info.size, etag=info.etag)

    def _sent(self, name: str, path: Path, *, create: bool) -> ObjectInfo:
        if create:
            try:
                return self._store.upload(SHARDS + name, path, create=True)
            except ObjectExistsError:
                pass  # another driver's, and damaged
        self.is_own = True
        return self._store.upload(run_key(self._run, f"inputs/{name}"), path)
