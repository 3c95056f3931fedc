"""An object's content from S3, read on where a connection breaks."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import botocore.exceptions as aws

from gpu_offload.infra.retry import attempts
from gpu_offload.infra.store.errors import CorruptObjectError
from gpu_offload.infra.store.files import CHUNK
from gpu_offload.infra.store.s3_errors import UNREACHABLE, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TRIES, FIRST_S = 6, 0.1
"""Attempts on a download that breaks off; seconds before the second one."""


class Download:
    """Yields an object's content in chunks. `etag` is known once the first chunk, or the end, has come."""

    def __init__(self, client: "S3Client", bucket: str, name: str) -> None:
        self.etag = ""
        self._client = client
        self._bucket = bucket
        self._name = name
        self._offset = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield chunks. Raises CorruptObjectError where the object was replaced meanwhile, botocore's errors else."""
        for attempt in attempts(UNREACHABLE, first=FIRST_S, tries=TRIES):
            with attempt:
                yield from self._rest()

    def _rest(self) -> Iterator[bytes]:
        size = None
        # The condition keeps the rest of another object from being appended.
        resume: dict[str, Any] = (
            {"Range": f"bytes={self._offset}-", "IfMatch": self.etag} if self._offset else {}
        )
        try:
            reply = self._client.get_object(Bucket=self._bucket, Key=self._name, **resume)
            self.etag, size = reply["ETag"], self._offset + reply["ContentLength"]
            with closing(reply["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK):
                    self._offset += len(chunk)
                    yield chunk
        except UNREACHABLE:
            # A connection that broke after the last byte has lost nothing, and a range without bytes is refused.
            if self._offset != size:
                raise
        except aws.ClientError as error:
            if status_of(error) != 412:
                raise
            raise CorruptObjectError(
                f"s3://{self._bucket}/{self._name}: it was replaced while it was read; run again"
            ) from None
