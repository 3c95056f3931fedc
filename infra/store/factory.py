"""Opens a store by its URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpu_offload.infra.http import UnsafeAddressError, check_address, shown
from gpu_offload.infra.store.errors import StoreUrlError
from gpu_offload.infra.store.protocol import ObjectStore

USAGE = "write file:FOLDER, s3://BUCKET/PREFIX, sftp://USER@HOST/PATH, or https://HOST/PATH to read only"


def open_store(
    url: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    base: Path | None = None,
    unsigned: bool = False,
) -> ObjectStore:
    """Open a store; nothing is read, written or asked yet.

    Args:
        url: `file:FOLDER`, `s3://BUCKET[/PREFIX]`, `sftp://USER@HOST/PATH`, `fsspec+PROTOCOL://PATH`,
            `hf://OWNER/REPOSITORY`, or `https://HOST/PATH` to read what a store has made public.
        endpoint_url: Another server that speaks the S3 API (R2, MinIO, Ceph); None for AWS, or for what
            `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` says. Only for `s3:`.
        region: The bucket's region; None for what the environment says. Only for `s3:`.
        base: What a relative folder is relative to; None for the current directory.
        unsigned: Read public objects without credentials, even if this machine has some. Only for `s3:`.

    Raises:
        StoreUrlError: The URL is none of these.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreUrlError(f"store {shown(url)!r}: {error}; {USAGE}") from error
    if parts.scheme == "s3":
        return _bucket(url, endpoint_url, region, unsigned=unsigned)
    if endpoint_url or region:
        raise StoreUrlError(
            f"store {shown(url)!r}: endpoint-url and region belong to an s3: store; leave them out, or write s3://BUCKET"
        )
    if parts.scheme == "file":
        from gpu_offload.infra.store.folder import FolderStore

        return FolderStore(_folder(url, base or Path.cwd()))
    if parts.scheme == "sftp" or parts.scheme.startswith("fsspec+"):
        from gpu_offload.infra.store.remote_files import RemoteFiles

        return RemoteFiles(url)
    if parts.scheme == "hf":
        return _hub(url)
    if parts.scheme in {"https", "http"}:
        from gpu_offload.infra.store.web import WebStore

        return WebStore(url)
    raise StoreUrlError(f"store {shown(url)!r}: {USAGE}")


def _bucket(url: str, endpoint_url: str | None, region: str | None, *, unsigned: bool) -> ObjectStore:
    """Return the bucket of an `s3:` URL. Raises StoreUrlError."""
    from gpu_offload.infra.store.s3 import S3Store

    parts = urlsplit(url)
    if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreUrlError(
            f"store {shown(url)!r}: write s3://BUCKET or s3://BUCKET/PREFIX, without `@`, `?` and `#`"
        )
    if endpoint_url and endpoint_url.startswith("http:"):
        try:
            check_address(endpoint_url)
        except UnsafeAddressError as error:
            raise StoreUrlError(
                f"store {url!r}: the endpoint {shown(endpoint_url)} is not https: anyone on the network could read the "
                "keys' signatures and change what is stored; write https://"
            ) from error
    return S3Store(
        parts.netloc, parts.path.strip("/"), endpoint_url=endpoint_url, region=region, unsigned=unsigned
    )


def _folder(url: str, base: Path) -> Path:
    """Return the folder of a `file:` URL. Raises StoreUrlError."""
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise StoreUrlError(f"store {url!r} names a host: write file:FOLDER or file:///FOLDER")
    # `file:a b` is a path as one types it; `file:///a%20b` is a URL.
    path = unquote(parts.path) if url.startswith("file://") else url.removeprefix("file:")
    if not path:
        raise StoreUrlError(f"store {url!r} names no folder: write, for example, file:.offload")
    return base / path


def _hub(url: str) -> ObjectStore:
    """Return a repository of the Hugging Face Hub. Raises StoreUrlError, also where its client is not installed."""
    try:
        from gpu_offload.infra.store.hub import HubStore
    except ImportError as error:
        raise StoreUrlError(f"store {shown(url)!r}: {error}; pip install 'gpu-offload[hub]'") from error
    return HubStore(url)
