"""Multipart uploads: a few parts at a time, in constant memory, visible only when complete."""

import hashlib
import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions as aws

from gpu_offload.infra.store.errors import CorruptObjectError
from gpu_offload.infra.store.s3_errors import status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PARALLEL = 4
MAX_PARTS = 10_000
"""S3's limit of an upload."""


def upload_parts(
    client: "S3Client", address: dict[str, Any], path: Path, *, sha256: str, part_size: int, create: bool
) -> str:
    """Upload a file in parts of 5 MiB or more, and complete if it still has this sha256; return the etag.

    With `create`, it is completed only where there is no object.

    Raises:
        CorruptObjectError: The file changed meanwhile.
        botocore.exceptions.ClientError, BotoCoreError: As they come; the upload was aborted.
    """
    # S3 takes the condition with the completion only, not with the start or a part.
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if create else {}
    part_size = max(part_size, -(-path.stat().st_size // MAX_PARTS))
    upload = client.create_multipart_upload(**address, Metadata={"sha256": sha256})["UploadId"]
    try:
        parts, sent = _send(client, {**address, "UploadId": upload}, path, part_size)
        if sent != sha256:
            raise CorruptObjectError(  # noqa: TRY301 - aborts the upload as any other error does
                f"{path}: changed while it was uploaded; nothing was stored, run again"
            )
        reply = client.complete_multipart_upload(
            **address, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
        )
    except BaseException:  # Ctrl-C, too: parts that belong to no object cost storage
        with suppress(aws.BotoCoreError, aws.ClientError):
            client.abort_multipart_upload(**address, UploadId=upload)
        raise
    return reply["ETag"]


def completes_conditionally(client: "S3Client", address: dict[str, Any]) -> bool:
    """Whether a server refuses to complete an upload with `IfNoneMatch` over this object; writes it where it does not.

    Raises:
        botocore.exceptions.ClientError, BotoCoreError: As they come; the upload was aborted.
    """
    with tempfile.NamedTemporaryFile(prefix="offload-") as file:
        file.write(b"probe")
        file.flush()
        digest = hashlib.sha256(b"probe").hexdigest()
        try:
            upload_parts(client, address, Path(file.name), sha256=digest, part_size=1 << 23, create=True)
        except aws.ClientError as error:
            if status_of(error) in {409, 412}:
                return True
            raise
    return False


def _send(
    client: "S3Client", address: dict[str, Any], path: Path, part_size: int
) -> "tuple[list[CompletedPartTypeDef], str]":
    """Send every part; return them in order and the sha256 of what was sent."""
    digest = hashlib.sha256()
    parts: list[CompletedPartTypeDef] = []
    waiting: deque[Future[CompletedPartTypeDef]] = deque()

    def send(number: int, body: bytes) -> "CompletedPartTypeDef":
        reply = client.upload_part(**address, PartNumber=number, Body=body)
        return {"ETag": reply["ETag"], "PartNumber": number}

    with ThreadPoolExecutor(PARALLEL) as pool, path.open("rb") as file:
        try:
            while body := file.read(part_size):
                digest.update(body)
                waiting.append(pool.submit(send, len(parts) + len(waiting) + 1, body))
                # At most one part more than there are threads is in memory.
                if len(waiting) > PARALLEL:
                    parts.append(waiting.popleft().result())
            parts.extend(future.result() for future in waiting)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return parts, digest.hexdigest()
