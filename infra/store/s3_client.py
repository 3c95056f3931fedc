"""The S3 client of one bucket: opened when first used, unsigned without credentials, in the dialect of its server."""

import os
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import botocore
import botocore.exceptions as aws

from gpu_offload.infra.aws.client_config import client_config
from gpu_offload.infra.store.clock import ServerClock
from gpu_offload.infra.store.s3_credentials import is_elsewhere, open_store_session
from gpu_offload.infra.store.s3_errors import ClientSettingsError, code_of, status_of

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client

ELSEWHERE: dict[str, Any] = {
    "s3": {"addressing_style": "path"},
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
"""Outside AWS one address serves all buckets, and some servers refuse the checksum trailers of newer SDKs."""


@dataclass
class BucketClient:
    """Access to one bucket. Without any credentials, requests go out unsigned: that reads what is public."""

    bucket: str
    endpoint_url: str | None
    region_name: str | None
    session: "boto3.Session | None"
    unsigned: bool = False
    clock: ServerClock = field(default_factory=ServerClock)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _anonymous: bool = False
    _seen: bool = False

    @property
    def reader(self) -> "S3Client":
        """The client."""
        with self._lock:  # making a client is not safe between threads; using it is
            return self._client

    @property
    def writer(self) -> "S3Client":
        """The client. Raises NoCredentialsError where there are none, instead of sending an unsigned write."""
        client = self.reader
        if self._anonymous:
            raise aws.NoCredentialsError
        return client

    @cached_property
    def _client(self) -> "S3Client":
        try:
            return self._opened()
        except ValueError as error:
            raise ClientSettingsError(why=str(error)) from error

    def _opened(self) -> "S3Client":
        session = self.session or open_store_session(self.endpoint_url, self.region_name)
        self._anonymous = self.unsigned or session.get_credentials() is None
        settings: dict[str, Any] = {"signature_version": botocore.UNSIGNED} if self._anonymous else {}

        def client(*, elsewhere: bool) -> "S3Client":
            return session.client(
                "s3",
                endpoint_url=self.endpoint_url,
                region_name=self.region_name or session.region_name or "us-east-1",
                config=client_config(**settings, **(ELSEWHERE if elsewhere else {})),
            )

        # Only the client knows its endpoint, which may come from a profile, too. A guess saves a second client.
        guess = is_elsewhere(self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))
        made = client(elsewhere=guess)
        if (right := is_elsewhere(made.meta.endpoint_url)) != guess:
            made = client(elsewhere=right)
        made.meta.events.register("after-call.s3", self._learn_time)
        return made

    def _learn_time(self, http_response: Any = None, **_: object) -> None:
        """Learn the server's time from a reply."""
        if http_response is not None:
            self.clock.learn(http_response.headers.get("Date"))

    def head(self, name: str) -> Any:
        """Return HeadObject's reply, None where there is no object. Raises NoSuchBucket where the bucket is missing."""
        try:
            return self.reader.head_object(Bucket=self.bucket, Key=name)
        except aws.ClientError as error:
            if status_of(error) == 404:
                self._check()  # a HEAD answers 404 for a missing bucket, too
                return None
            if status_of(error) not in {400, 403}:
                raise
        # A HEAD has no body to say why. A GET has; it is closed unread if it succeeds after all.
        try:
            reply = self.reader.get_object(Bucket=self.bucket, Key=name)
        except aws.ClientError as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise
        reply["Body"].close()
        return reply

    def _check(self) -> None:
        """Raise NoSuchBucket where the bucket is missing, which HEAD of an object does not say; asks once."""
        if self._seen:
            return
        try:
            self.reader.head_bucket(Bucket=self.bucket)
        except aws.ClientError as error:
            if status_of(error) == 404:
                error.response["Error"]["Code"] = "NoSuchBucket"
                raise
        self._seen = True

    def region(self) -> str | None:
        """Return the bucket's region, which AWS sends even with a refusal."""
        try:
            return self.reader.head_bucket(Bucket=self.bucket).get("BucketRegion")
        except aws.ClientError as error:
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            return headers.get("x-amz-bucket-region")
        except aws.BotoCoreError:
            return None

    def public_url(self, name: str) -> str:
        """Return the web address of an object by its full name in the bucket."""
        endpoint = self.reader.meta.endpoint_url
        # A bucket with a dot in its name is below no certificate of AWS's.
        if not is_elsewhere(endpoint) and "." not in self.bucket:
            return f"https://{self.bucket}.{urlsplit(endpoint).netloc}/{quote(name)}"
        return f"{endpoint.rstrip('/')}/{self.bucket}/{quote(name)}"
