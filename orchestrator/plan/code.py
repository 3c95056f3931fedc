"""The user's training code: the files that the entrypoint imports below the project root, read without running them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gpu_offload.infra.store.files import sha256_of
from gpu_offload.orchestrator.plan.code_reader import CodeReader, External, included_files, python_files
from gpu_offload.orchestrator.plan.project import PlanningError, UnknownNameError

MAX_BYTES = 50 * 2**20
"""Upper limit for code and included files together; datasets and weights have places of their own."""


@dataclass(frozen=True)
class Code:
    """What an entrypoint needs."""

    files: Mapping[str, Path]
    """The project's own files, by their path below the root."""
    externals: tuple[External, ...] = ()
    """Modules from elsewhere that an import outside of any condition asks for; no standard library."""
    faults: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """One digest of all files and their paths."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{sha256_of(self.files[name])}\n".encode())
        return digest.hexdigest()


def read_code(root: Path, entrypoint: str, include: Sequence[str] = ()) -> Code:
    """Follow the imports of an entrypoint (`package.module:function`) through the files below `root`.

    The whole package of the entrypoint counts, of other packages what is imported. Computed imports are not seen:
    `include` names such files, and data files, by path or pattern. Raises PlanningError: no such module, or the files
    are too large.
    """
    reader = CodeReader(root.resolve())
    module, _, function = entrypoint.partition(":")
    first = module.split(".")[0]
    if not reader.follow(module) or first not in reader.own:
        raise UnknownNameError(
            f"training.entrypoint: there is no module {module} in {root} (looked for {first}.py and {first}/)"
        )
    # A package may load its modules by name, which no import statement shows.
    if (root / first).is_dir():
        for path in python_files(root / first):
            reader.add(path)
    reader.drain()
    faults = [*reader.faults, *reader.function_faults(module, function)]
    files = {path.relative_to(reader.root).as_posix(): path for path in sorted(reader.files)}
    for pattern in include:
        found = dict(included_files(reader.root, pattern))
        if not found:
            faults.append(f"training.include: {pattern!r} matches no file below {root}")
        files |= found
    size = sum(path.stat().st_size for path in files.values())
    if size > MAX_BYTES:
        largest = max(files, key=lambda name: files[name].stat().st_size)
        raise PlanningError(
            f"training code and training.include are {size / 2**20:.0f} MiB, more than {MAX_BYTES >> 20} MiB; the "
            f"largest file is {largest}. Put data into the dataset, and weights into training.init-from"
        )
    return Code(files, tuple(reader.externals.values()), tuple(faults))
