"""Errors of object stores."""

from typing import ClassVar, Self

from gpu_offload.errors import OffloadError


class StoreError(OffloadError):
    """The store could not do what was asked; the text says where and what to do."""


class ObjectError(StoreError):
    """An object is not as the caller takes it to be."""

    fault: ClassVar[str]

    @classmethod
    def at(cls, where: str) -> Self:
        """Return the error for the object at `where`."""
        return cls(f"{where}: {cls.fault}")


class ObjectMissingError(ObjectError):
    """There is no such object."""

    fault = "there is no such object in the store"


class ObjectExistsError(ObjectError):
    """`create` found another object under the key."""

    fault = "it exists with other content and is written only once"


class ObjectChangedError(ObjectError):
    """`replace` found that another writer was faster."""

    fault = "another writer changed or deleted it in between; read again and decide again"


class CorruptObjectError(StoreError):
    """The content does not match the expected size or sha256."""


class StoreUrlError(StoreError):
    """The store's URL is not one that `open_store` understands."""


class ObjectKeyError(StoreError):
    """A key that could mean something else in a folder or a URL: absolute, `..`, hidden, control characters."""


class StoreMissingError(StoreError):
    """There is no such bucket."""


class StoreDeniedError(StoreError):
    """The store denies access to these credentials."""


class StoreCredentialsError(StoreError):
    """No credentials, expired ones, or ones that the store does not know."""


class StoreUnreachableError(StoreError):
    """The store did not answer, or answered that it is unable to."""


class StoreReadOnlyError(StoreError):
    """A web address can be read from; it cannot be written to or listed."""
