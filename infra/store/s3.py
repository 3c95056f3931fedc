"""An object store in a bucket, on AWS or on anything else that speaks the S3 API."""

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, urlsplit

import botocore
import botocore.exceptions as aws
from botocore.config import Config

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreUnreachableError,
)
from gpu_offload.infra.store.files import sha256_of, write_verified
from gpu_offload.infra.store.protocol import ObjectInfo, check_key, check_prefix
from gpu_offload.infra.store.s3_credentials import open_store_session
from gpu_offload.infra.store.s3_errors import UNREACHABLE, code_of, status_of, store_errors
from gpu_offload.infra.store.s3_multipart import upload_parts

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client

Names: TypeAlias = list[str]
"""Said out here, because inside the class `list` is the method."""

MIB = 1 << 20
CHUNK = MIB
TRIES = 6
"""Attempts on a conflict of two conditional writes at the same time, and on a download that breaks off."""


class S3Store:
    """Objects below a prefix of a bucket.

    Create-once and compare-and-swap are S3's conditional writes. A file above `multipart_above` bytes goes up in
    parts and becomes visible when they are completed; `create` then puts its condition on the completion (AWS
    and MinIO honour it there) and looks before it sends anything, which is all that is left on a server that
    ignores the condition. A process killed meanwhile leaves parts that nobody sees but that cost storage: give
    the bucket a lifecycle rule that aborts incomplete multipart uploads (our own stack has it).

    Without any credentials, requests go out unsigned: that reads what is public.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        session: "boto3.Session | None" = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.multipart_above = 64 * MIB
        self.part_size = 16 * MIB
        self._endpoint_url = endpoint_url
        self._region = region
        self._session = session
        self._lock = threading.Lock()
        self._bucket_seen = False
        self._anonymous = False

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        etags: list[str] = []
        with store_errors(self._where(key)):
            body = b"".join(self._chunks(key, etags))
        return body, etags[-1]

    def stat(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None where there is none."""
        head = self._head(key)
        return head and ObjectInfo(key, head["ContentLength"], head["ETag"], head["LastModified"])

    def put(self, key: str, body: bytes) -> str:
        """Write, whatever was there; return the etag."""
        return self._put(key, body)

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""
        try:
            return self._put(key, body, IfNoneMatch="*")
        except ObjectChangedError:
            found, etag = self.read(key)
            if found == body:
                return etag
            raise self._exists(key) from None

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""
        try:
            return self._put(key, body, IfMatch=etag)
        except ObjectMissingError:
            raise ObjectChangedError(
                f"{self._where(key)}: somebody deleted it in between; read again and decide again"
            ) from None
        except ObjectChangedError:
            with suppress(ObjectMissingError):
                found, new = self.read(key)
                if found == body:
                    return new
            raise

    def upload(self, key: str, path: Path, *, create: bool = False) -> ObjectInfo:
        """Write a file, streaming; with `create`, once, under the rule of `create`."""
        try:
            size = path.stat().st_size
            if size > self.multipart_above:
                return self._upload_large(key, path, size, create=create)
            body = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error
        etag = self.create(key, body) if create else self.put(key, body)
        return ObjectInfo(key, len(body), etag, datetime.now(UTC))

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        where = self._where(key)
        with store_errors(where):
            write_verified(where, self._chunks(key, []), path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order."""
        check_prefix(prefix)
        with store_errors(self._where(prefix)):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self.prefix)
                    yield ObjectInfo(key, item["Size"], item["ETag"], item["LastModified"])

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        with store_errors(self._where(key)):
            self._writer().delete_object(Bucket=self.bucket, Key=self._key(key))

    def public_url(self, key: str) -> str | None:
        """Where anyone could read the object if its policy allows it."""
        with store_errors(self._where(key)):
            endpoint = urlsplit(self._client.meta.endpoint_url)
        path = quote(self._key(key))
        if endpoint.hostname and endpoint.hostname.endswith(".amazonaws.com") and "." not in self.bucket:
            return f"https://{self.bucket}.{endpoint.netloc}/{path}"
        return f"{endpoint.geturl().rstrip('/')}/{self.bucket}/{path}"

    # ---------------------------------------------------------------------------------------- inside

    @cached_property
    def _made(self) -> "S3Client":
        session = self._session or open_store_session(self._endpoint_url, self._region)
        self._anonymous = session.get_credentials() is None
        settings: dict[str, Any] = {
            "connect_timeout": 5,
            "read_timeout": 30,
            "retries": {"mode": "standard", "total_max_attempts": 5},
        }
        if self._anonymous:
            settings["signature_version"] = botocore.UNSIGNED
        client: S3Client = session.client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=self._region or session.region_name or "us-east-1",
            config=Config(**settings),
        )
        if not str(urlsplit(client.meta.endpoint_url).hostname).endswith(".amazonaws.com"):
            # Others have one address for all buckets, and some refuse the checksum trailers of newer SDKs.
            client = session.client(
                "s3",
                endpoint_url=self._endpoint_url,
                region_name=self._region or session.region_name or "us-east-1",
                config=Config(
                    **settings,
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return client

    @property
    def _client(self) -> "S3Client":
        with self._lock:  # making a client is not safe between threads; using it is
            return self._made

    def _writer(self) -> "S3Client":
        client = self._client
        if self._anonymous:
            raise aws.NoCredentialsError
        return client

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _where(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def _exists(self, key: str) -> ObjectExistsError:
        return ObjectExistsError(f"{self._where(key)}: it exists with other content and is written only once")

    def _head(self, key: str) -> Any:
        """HeadObject's reply, None where there is no object."""
        address: dict[str, Any] = {"Bucket": self.bucket, "Key": self._key(key)}
        with store_errors(self._where(key)):
            try:
                return self._client.head_object(**address)
            except aws.ClientError as error:
                if status_of(error) == 404:
                    self._check_bucket()
                    return None
                if status_of(error) not in {400, 403}:
                    raise
            # A HEAD has no body to say why. A GET has; it is closed unread if it succeeds after all.
            try:
                reply = self._client.get_object(**address)
            except aws.ClientError as error:
                if code_of(error) == "NoSuchKey":
                    return None
                raise
            reply["Body"].close()
            return reply

    def _check_bucket(self) -> None:
        """Tell a missing bucket from a missing object, which HEAD does not: once, at the first missing object."""
        if self._bucket_seen:
            return
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except aws.ClientError as error:
            if status_of(error) == 404:
                error.response["Error"]["Code"] = "NoSuchBucket"
                raise
        self._bucket_seen = True

    def _put(self, key: str, body: bytes, **condition: str) -> str:
        """PutObject; raises ObjectChangedError where the condition does not hold."""
        metadata = {"sha256": hashlib.sha256(body).hexdigest()}
        with store_errors(self._where(key)):
            for attempt in range(TRIES):
                try:
                    reply = self._writer().put_object(
                        Bucket=self.bucket,
                        Key=self._key(key),
                        Body=body,
                        Metadata=metadata,
                        **condition,  # type: ignore[arg-type]  # IfMatch or IfNoneMatch
                    )
                except aws.ClientError as error:
                    if status_of(error) == 412:
                        raise ObjectChangedError(
                            f"{self._where(key)}: somebody wrote it in between; read again and decide again"
                        ) from None
                    if code_of(error) not in {"ConditionalRequestConflict", "OperationAborted"}:
                        raise
                    _pause(attempt)
                else:
                    return reply["ETag"]
        raise StoreUnreachableError(
            f"{self._where(key)}: {TRIES} writes collided with other writers; run again in a minute"
        )

    def _upload_large(self, key: str, path: Path, size: int, *, create: bool) -> ObjectInfo:
        sha256 = sha256_of(path)
        address = {"Bucket": self.bucket, "Key": self._key(key)}
        with store_errors(self._where(key)):
            for attempt in range(TRIES):
                if create and (found := self._same(key, size, sha256)):
                    return found
                try:
                    etag = upload_parts(
                        self._writer(), address, path, sha256=sha256, part_size=self.part_size, create=create
                    )
                except aws.ClientError as error:
                    # 412: somebody was first. NoSuchUpload: our completion went through and its reply was lost.
                    # 409: two at the same time, and S3 wants the parts again. Each time: look, then decide.
                    if code_of(error) not in {
                        "PreconditionFailed",
                        "NoSuchUpload",
                        "ConditionalRequestConflict",
                    }:
                        raise
                    with suppress(*([] if create else [ObjectExistsError])):
                        if found := self._same(key, size, sha256):
                            return found
                    _pause(attempt)
                else:
                    return ObjectInfo(key, size, etag, datetime.now(UTC))
        raise StoreUnreachableError(
            f"{self._where(key)}: {TRIES} uploads collided with other writers; run again in a minute"
        )

    def _same(self, key: str, size: int, sha256: str) -> ObjectInfo | None:
        """Return the object if it is this one, None if there is none. Raises ObjectExistsError for another."""
        head = self._head(key)
        if head is None:
            return None
        found = head["Metadata"].get("sha256") if head["ContentLength"] == size else ""
        if found is None:  # written by somebody else's tool
            digest = hashlib.sha256()
            with store_errors(self._where(key)):
                for chunk in self._chunks(key, []):
                    digest.update(chunk)
            found = digest.hexdigest()
        if found != sha256:
            raise self._exists(key)
        return ObjectInfo(key, size, head["ETag"], head["LastModified"])

    def _chunks(self, key: str, etags: Names) -> Iterator[bytes]:
        """Yield an object's content, going on where a connection broke; `etags` gets the object's etag."""
        offset, size = 0, None
        for attempt in range(TRIES):
            resume: dict[str, Any] = {"Range": f"bytes={offset}-", "IfMatch": etags[-1]} if offset else {}
            try:
                reply = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **resume)
                etags.append(reply["ETag"])
                size = offset + reply["ContentLength"]
                with closing(reply["Body"]) as body:
                    for chunk in body.iter_chunks(CHUNK):
                        offset += len(chunk)
                        yield chunk
            except UNREACHABLE:
                if offset == size:
                    return
                if attempt == TRIES - 1:
                    raise
                _pause(attempt)
            except aws.ClientError as error:
                if status_of(error) != 412:
                    raise
                raise CorruptObjectError(
                    f"{self._where(key)}: somebody replaced it while it was read; run again"
                ) from None
            else:
                return


def _pause(attempt: int) -> None:
    """Wait before another attempt: 0.1 s and doubling, by chance between half and all of it."""
    time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - spreads racers, keeps no secret
