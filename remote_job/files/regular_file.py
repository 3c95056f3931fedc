"""Opens files below a folder that another user can write to, and only regular files.

The training process controls its output folder. A link there could name a file of the uploader, a pipe
could keep it waiting for ever, a huge file could eat its memory.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gpu_offload.errors import OffloadError


class UnexpectedFileError(OffloadError, OSError):
    """There is something under the name, but not a plain file of the folder's owner."""


@contextlib.contextmanager
def opened(folder: Path, name: str) -> Iterator[int]:
    """Open a file of a folder for reading, by its relative path, and yield its descriptor.

    No link is followed below the folder, at any level, and nothing but a regular file is opened. Where the folder is
    another user's, so must be the file: a hard link to a file of ours is not.

    Raises:
        FileNotFoundError: There is no such file.
        UnexpectedFileError: It is a link, a pipe, a folder or another user's file.
    """
    *folders, last = name.split("/")
    if not all(part not in {"", ".", ".."} for part in (*folders, last)):
        raise UnexpectedFileError(f"{name!r} is not a name below {folder}")
    with contextlib.ExitStack() as stack:

        def step(part: str | Path, flags: int, within: int | None) -> int:
            try:
                descriptor = os.open(part, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=within)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise UnexpectedFileError(f"{folder / name}: {error.strerror}, is not read") from error
            stack.callback(os.close, descriptor)
            return descriptor

        at = top = step(folder, os.O_DIRECTORY, None)
        for part in folders:
            at = step(part, os.O_DIRECTORY | os.O_NOFOLLOW, at)
        # Without O_NONBLOCK, opening a pipe would block until a process writes to it.
        file = step(last, os.O_NOFOLLOW | os.O_NONBLOCK, at)
        found, owner = os.fstat(file), os.fstat(top).st_uid
        if not stat.S_ISREG(found.st_mode):
            raise UnexpectedFileError(f"{folder / name}: is not a regular file, is not read")
        if owner != os.geteuid() and found.st_uid != owner:
            raise UnexpectedFileError(
                f"{folder / name}: is not of the user whose folder it is in, is not read"
            )
        yield file


def read(folder: Path, name: str, *, limit: int) -> bytes:
    """Return a file's content. Raises as `opened`, and UnexpectedFileError above `limit` bytes."""
    with opened(folder, name) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        body = file.read(limit + 1)
    if len(body) > limit:
        raise UnexpectedFileError(f"{folder / name}: has more than {limit:,} bytes, is not read")
    return body


@contextlib.contextmanager
def path_of(folder: Path, name: str) -> Iterator[Path]:
    """Yield a path to this file that stays valid if its name is replaced meanwhile. Raises as `opened`."""
    with opened(folder, name) as descriptor:
        path = Path(f"/proc/self/fd/{descriptor}")
        yield (
            path if path.exists() else folder / name
        )  # No /proc: not an instance, so the training runs as the same user.
