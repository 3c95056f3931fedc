"""An object store in a bucket, on AWS or on anything else that speaks the S3 API."""

import hashlib
import mimetypes
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions as aws

from gpu_offload.infra.retry import attempts
from gpu_offload.infra.store.errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
)
from gpu_offload.infra.store.files import digest_of, read_document, sha256_of, write_verified
from gpu_offload.infra.store.protocol import ObjectInfo, check_key, check_prefix
from gpu_offload.infra.store.s3_client import BucketClient
from gpu_offload.infra.store.s3_download import FIRST_S, TRIES, Download
from gpu_offload.infra.store.s3_errors import collided, contested, status_of, store_errors
from gpu_offload.infra.store.s3_multipart import completes_conditionally, upload_parts

if TYPE_CHECKING:
    import boto3

MIB = 1 << 20


class S3Store:
    """Objects below a prefix of a bucket.

    Create-once and compare-and-swap are S3's conditional writes. A file above `multipart_above` bytes goes up in
    parts and becomes visible when they are completed; `create` then puts its condition on the completion (AWS
    honours it there, MinIO depending on its version) and checks the key before it sends anything, the only protection on a
    server that ignores the condition. A process that is killed meanwhile leaves parts that are invisible but cost storage:
    give the bucket a lifecycle rule that aborts incomplete multipart uploads (our own stack has it).
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        session: "boto3.Session | None" = None,
        unsigned: bool = False,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.multipart_above = 64 * MIB
        self.part_size = 16 * MIB
        self._bucket = BucketClient(bucket, endpoint_url, region, session, unsigned=unsigned)
        self.clock = self._bucket.clock
        """The server's time, by its replies so far."""

    def region(self) -> str | None:
        """Return the region that the bucket says it is in, None where it does not answer."""
        return self._bucket.region()

    def read(self, key: str) -> tuple[bytes, str]:
        """Return content and etag. Raises ObjectMissingError."""
        with store_errors(self._where(key)):
            content = self._content(key)
            return read_document(self._where(key), content), content.etag

    def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's metadata, None where there is none."""
        head = self._head(key)
        return head and ObjectInfo(key, head["ContentLength"], head["ETag"], head["LastModified"])

    def put(self, key: str, body: bytes) -> str:
        """Write or overwrite; return the etag."""
        return self._put(key, body)

    def create(self, key: str, body: bytes) -> str:
        """Write once; return the etag. Raises ObjectExistsError where other bytes are there."""
        # Missing: what refused the write was deleted before it was read.
        for attempt in attempts(ObjectMissingError, first=FIRST_S, tries=TRIES):
            with attempt:
                try:
                    return self._put(key, body, IfNoneMatch="*")
                except ObjectChangedError:
                    found, etag = self.read(key)
                    if found == body:
                        return etag
                    raise ObjectExistsError.at(self._where(key)) from None
        raise AssertionError  # the loop returns or raises

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this etag; return the new one. Raises ObjectChangedError."""
        for condition in dict.fromkeys((etag, etag.strip('"'))):
            try:
                return self._put(key, body, IfMatch=condition)
            except ObjectMissingError:
                break
            except ObjectChangedError:
                try:
                    found, now = self.read(key)
                except ObjectMissingError:
                    break
                if found == body:
                    return now
                if now != etag:
                    raise
                # The object is as it was: Ceph before 17 takes the quotes for a part of the etag, and wants it without.
        raise ObjectChangedError.at(self._where(key))

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
        # PutObject's reply has no time, and a HEAD would cost a request.
        return ObjectInfo(key, len(body), etag, datetime.now(UTC))

    def download(self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> None:
        """Read into a temporary file, verify, then rename to `path`. Raises CorruptObjectError, ObjectMissingError."""
        where = self._where(key)
        with store_errors(where):
            write_verified(where, self._content(key), path, size=size, sha256=sha256)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix`, in key order."""
        check_prefix(prefix)
        with store_errors(self._where(prefix)):
            pages = self._bucket.reader.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self.prefix)
                    # Ceph lists milliseconds; a HEAD, which is HTTP's, has seconds.
                    modified = item["LastModified"].replace(microsecond=0)
                    yield ObjectInfo(key, item["Size"], item["ETag"], modified)

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        with store_errors(self._where(key)):
            self._bucket.writer.delete_object(**self._address(key))

    def completes_conditionally(self, key: str) -> bool:
        """Whether a large upload keeps the rule of `create`; `key` must exist and may be overwritten."""
        with store_errors(self._where(key)):
            return completes_conditionally(self._bucket.writer, self._address(key))

    def public_url(self, key: str) -> str | None:
        """Where anyone could read the object if its policy allows it."""
        with store_errors(self._where(key)):
            return self._bucket.public_url(self._key(key))

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _address(self, key: str) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self._key(key)}

    def _where(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def _head(self, key: str) -> Any:
        """HeadObject's reply, None where there is no object."""
        with store_errors(self._where(key)):
            return self._bucket.head(self._key(key))

    def _put(self, key: str, body: bytes, **condition: str) -> str:
        """PutObject; raises ObjectChangedError where the condition does not hold."""
        # An etag is no digest of the content where a bucket is encrypted by KMS or an upload had parts.
        metadata = {"sha256": hashlib.sha256(body).hexdigest()}
        # A browser shows a picture or a page only by its type.
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        with store_errors(self._where(key)):
            try:
                for attempt in attempts(collided, first=FIRST_S, tries=TRIES):
                    with attempt:
                        return self._bucket.writer.put_object(
                            **self._address(key),
                            Body=body,
                            ContentType=kind,
                            Metadata=metadata,
                            **condition,  # type: ignore[arg-type]  # IfMatch or IfNoneMatch
                        )["ETag"]
            except aws.ClientError as error:
                if status_of(error) != 412:
                    raise
                raise ObjectChangedError.at(self._where(key)) from None
        raise AssertionError  # the loop returns or raises

    def _upload_large(self, key: str, path: Path, size: int, *, create: bool) -> ObjectInfo:
        sha256 = sha256_of(path)
        with store_errors(self._where(key)):
            for attempt in attempts(contested, first=FIRST_S, tries=TRIES):
                with attempt:
                    # Before anything is sent: some servers ignore the condition of a completion.
                    if create and (found := self._same(key, size, sha256)):
                        return found
                    try:
                        etag = upload_parts(
                            self._bucket.writer,
                            self._address(key),
                            path,
                            sha256=sha256,
                            part_size=self.part_size,
                            create=create,
                        )
                    except aws.ClientError as error:
                        # Another writer was first, or our completion went through and its reply was lost: look, then decide.
                        if contested(error):
                            with suppress(*([] if create else [ObjectExistsError])):
                                if found := self._same(key, size, sha256):
                                    return found
                        raise
                    if not etag.strip('"'):  # Ceph 16 does not say
                        etag = self._head(key)["ETag"]
                    return ObjectInfo(key, size, etag, datetime.now(UTC))
        raise AssertionError  # the loop returns or raises

    def _same(self, key: str, size: int, sha256: str) -> ObjectInfo | None:
        """Return the object if it is this one, None if there is none. Raises ObjectExistsError for another."""
        head = self._head(key)
        if head is None:
            return None
        found = head["Metadata"].get("sha256") if head["ContentLength"] == size else ""
        if found is None:  # written by another tool
            with store_errors(self._where(key)):
                found = digest_of(self._content(key))
        if found != sha256:
            raise ObjectExistsError.at(self._where(key))
        return ObjectInfo(key, size, head["ETag"], head["LastModified"])

    def _content(self, key: str) -> Download:
        return Download(self._bucket.reader, self.bucket, self._key(key))
