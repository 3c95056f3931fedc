"""Verified, durable writes to local files."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from gpu_offload.infra.store.errors import CorruptObjectError

DOCUMENT = 128 << 20
"""Bytes that an object which is read into memory may have: the longest list of a registry, with room to spare."""

CHUNK = 1 << 20

HASHED_BELOW = 1 << 20
"""Bytes up to which an etag is of the content. That of a larger file is of its metadata, so that listing a store of
datasets does not read them all."""

NAMELESS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of a write that do not say of which file."""


def read_document(where: str, chunks: Iterable[bytes]) -> bytes:
    """Return chunks as one. Raises CorruptObjectError where they are more than a document can have."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > DOCUMENT:
            raise CorruptObjectError(
                f"{where}: is larger than {DOCUMENT:,} bytes, as no document is: it was replaced; delete it"
            )
    return bytes(body)


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a file from its position on."""
    return iter(lambda: file.read(CHUNK), b"")


def etag_of(body: bytes) -> str:
    """Return an etag that is of the content alone."""
    return hashlib.sha256(body).hexdigest()[:32]


def digest_of(chunks: Iterable[bytes]) -> str:
    """Return the sha256 of chunks as hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_verified(
    where: str, chunks: Iterable[bytes], path: Path, *, size: int | None, sha256: str | None
) -> None:
    """Write chunks beside `path`, verify them, then rename: `path` is the old file or the whole new one.

    Raises:
        CorruptObjectError: Size or sha256 is not what was promised; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, because a rename is atomic within one file system only; by a short name, because one has 255 bytes at most.
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    digest, length = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                length += len(chunk)
                if size is not None and length > size:
                    raise CorruptObjectError(
                        f"{where}: more than the {size:,} bytes that were promised: the object was replaced; delete it "
                        "and run again"
                    )
                file.write(chunk)
                digest.update(chunk)
            # Before the rename: after a power loss, some file systems have the new name without the content.
            file.flush()
            os.fsync(file.fileno())
        if size is not None and length != size:
            raise CorruptObjectError(
                f"{where}: {length:,} bytes instead of {size:,}: the object is damaged or incomplete; "
                "delete it and run again"
            )
        if sha256 is not None and digest.hexdigest() != sha256:
            raise CorruptObjectError(
                f"{where}: sha256 is {digest.hexdigest()} instead of {sha256}: the object is damaged or was "
                "replaced; delete it and run again"
            )
        temporary.replace(path)
    except OSError as error:
        # `write` and `fsync` know only a descriptor, and a person needs the name.
        if error.errno not in NAMELESS:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync does for a file's content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
