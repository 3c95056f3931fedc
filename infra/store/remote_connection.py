"""The connection of a store to the files of another machine or service, through fsspec."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from gpu_offload.errors import OffloadError
from gpu_offload.infra.store.errors import (
    ObjectMissingError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
    StoreUrlError,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SAID = 300
"""Characters of what a library says."""

PROTOCOLS = (
    "abfs", "az", "box", "dropbox", "ftp", "gcs", "gdrive", "gs", "hdfs", "memory", "oci", "smb", "webdav", "webdavs",
)  # fmt: skip
"""Protocols of fsspec that lead away from this machine's files. Others open a folder, an archive or a repository that a
checkout may hold, and what a checkout holds is never a store; `memory` is empty in each process."""


class RemoteConnection:
    """A file system and the store's folder in it, `root`; one that was lost is opened again at the next use."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # paramiko's SFTP connection serves one thread at a time. Reentrant: a write reads what is there.
        self._turn = threading.RLock()
        parts = urlsplit(url)
        self._protocol = parts.scheme.removeprefix("fsspec+")
        if parts.password or parts.query or parts.fragment:
            raise StoreUrlError(
                f"store {parts.scheme}://{parts.hostname}: write it without a password, `?` and `#`"
            )
        if self._protocol not in ("sftp", *PROTOCOLS):
            raise StoreUrlError(
                f"store {url!r}: fsspec+{self._protocol} is not a store of another machine; write file:FOLDER for a folder, "
                f"or one of {', '.join(f'fsspec+{name}' for name in PROTOCOLS if name != 'memory')}"
            )
        self._options: dict[str, Any] = {}
        self.root = unquote(parts.path).rstrip("/")
        if self._protocol == "sftp":
            if not parts.hostname or not self.root:
                raise StoreUrlError(f"store {url!r}: write sftp://USER@HOST/PATH")
            try:
                self._options = {"host": parts.hostname, "port": parts.port or 22}
            except ValueError as error:
                raise StoreUrlError(f"store {url!r}: {error}; write sftp://USER@HOST:PORT/PATH") from error
            if parts.username:
                self._options["username"] = unquote(parts.username)
        elif self._protocol == "memory":
            self.root = f"/{parts.netloc}{self.root}"
        else:
            self._find(url.removeprefix("fsspec+"))

    def _find(self, url: str) -> None:
        """Read an address as its protocol does: some begin a path with a host, others with a bucket or a drive."""
        with self._installed():
            import fsspec

            kind = fsspec.get_filesystem_class(self._protocol)
            self._options = dict(kind._get_kwargs_from_urls(url))  # noqa: SLF001 - as fsspec.core.url_to_fs does
            self.root = str(kind._strip_protocol(url)).rstrip("/")  # noqa: SLF001
        if not self.root:
            raise StoreUrlError(
                f"store {self.url!r} names no folder: write fsspec+{self._protocol}://HOST/PATH"
            )

    @contextmanager
    def _installed(self) -> Iterator[None]:
        try:
            yield
        except StoreError:  # from `PinnedSftp`
            raise
        except (ImportError, ValueError) as error:
            raise StoreUrlError(
                f"store {self.url}: {error}; pip install 'gpu-offload[fsspec]', and what brings {self._protocol}"
            ) from error
        except Exception as error:  # the libraries below fsspec have their own errors
            raise StoreUnreachableError(
                f"store {self.url}: {_said(error)}; check the address, the server, and that this user may use it"
            ) from error

    @cached_property
    def files(self) -> "AbstractFileSystem":
        """The file system, connected. Raises StoreUrlError where nothing installed speaks the protocol."""
        with self._installed():
            if self._protocol == "sftp":
                from gpu_offload.infra.store.sftp import PinnedSftp

                return PinnedSftp(**self._options)
            import fsspec

            return fsspec.filesystem(self._protocol, **self._options)
        raise AssertionError  # it returns or raises

    @contextmanager
    def errors(self, key: str) -> Iterator[None]:
        """Take a turn on the connection; raise what goes wrong with an object as a StoreError."""
        where = f"{self.url}/{key}"
        try:
            with self._turn:
                yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectMissingError.at(where) from error
        except FileExistsError as error:
            raise StoreError(f"{where}: an object cannot be another object's folder") from error
        except PermissionError as error:
            raise StoreDeniedError(f"{where}: {error}: give this user access to the folder") from error
        except OffloadError:
            raise
        except Exception as error:  # paramiko, ftplib and each library below fsspec have their own errors
            self.__dict__.pop("files", None)  # from the cached property: the next call connects anew
            raise StoreUnreachableError(
                f"{where}: {_said(error)}; check that the server is up, and run the command again"
            ) from error


def _said(error: Exception) -> str:
    """Return what an error of a library says, in a line."""
    return " ".join(str(error).split())[:SAID] or type(error).__name__
