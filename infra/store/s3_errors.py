"""Translates botocore's exceptions into StoreErrors, each with its remedy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions as aws

from gpu_offload.infra.aws.errors import CloudError
from gpu_offload.infra.environment import half_credential
from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectMissingError,
    StoreCredentialsError,
    StoreDeniedError,
    StoreError,
    StoreMissingError,
    StoreUnreachableError,
)

RENEW = (
    "get fresh credentials (in a workflow: `permissions: id-token: write` and a role to assume) and run again"
)

COLLISIONS = ("ConditionalRequestConflict", "OperationAborted")
"""Codes of a write that met another one at the same time; S3 wants it again."""

CONTESTS = ("PreconditionFailed", "NoSuchUpload")
"""Codes of an upload that came second, or whose completion went through while its reply was lost."""

CODES: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchBucket": (
        StoreMissingError,
        "there is no such bucket; create it, or correct store.url, store.region and store.endpoint-url",
    ),
    "InvalidBucketName": (StoreMissingError, "no bucket can have this name; correct store.url"),
    **dict.fromkeys(("NoSuchKey", "404"), (ObjectMissingError, "there is no such object in the store")),
    "AccessDenied": (
        StoreDeniedError,
        "the store says no (or, without s3:ListBucket, has no such object); give the role the right to it",
    ),
    "AllAccessDisabled": (StoreDeniedError, "all access to this bucket is disabled; ask its owner"),
    "AccountProblem": (StoreDeniedError, "the account has a problem; see its billing page"),
    **dict.fromkeys(
        ("ExpiredToken", "TokenRefreshRequired"),
        (StoreCredentialsError, f"the credentials have expired; {RENEW}"),
    ),
    "InvalidToken": (StoreCredentialsError, f"the session token is not valid here; {RENEW}"),
    "InvalidAccessKeyId": (
        StoreCredentialsError,
        "the store does not know this access key; check AWS_ACCESS_KEY_ID, and that store.endpoint-url is its server",
    ),
    "SignatureDoesNotMatch": (
        StoreCredentialsError,
        "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY and this machine's clock",
    ),
    "RequestTimeTooSkewed": (
        StoreCredentialsError,
        "this machine's clock is off by more than 15 minutes; set it (timedatectl set-ntp true) and run again",
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        (StoreMissingError, "the bucket is in another region; set store.region"),
    ),
    "SlowDown": (StoreUnreachableError, "the store is overloaded; run again in a minute"),
    "InternalError": (StoreUnreachableError, "the store failed; run again in a minute"),
    "ServiceUnavailable": (StoreUnreachableError, "the store is unavailable; run again in a minute"),
    "RequestTimeout": (StoreUnreachableError, "the connection is too slow or was cut; run again"),
    **dict.fromkeys(
        (*COLLISIONS, *CONTESTS),
        (StoreUnreachableError, "it collides with other writers; run again in a minute"),
    ),
    "NotImplemented": (
        StoreError,
        "this server lacks what we need of S3: conditional writes (If-None-Match, If-Match), uploads in parts, ListObjectsV2",
    ),
    "QuotaExceeded": (StoreError, "the store is full; `offload models` shows what could go"),
    "EntityTooLarge": (StoreError, "the object is larger than this store takes"),
}
"""Error code of S3 (and of the servers that speak it) -> our error and what to do."""

KEY = (
    "the KMS key that encrypts the bucket cannot be used: enable it, and let the role use it (kms:GenerateDataKey, "
    "kms:Decrypt)"
)

UNREACHABLE = (
    aws.EndpointConnectionError,
    aws.ConnectTimeoutError,
    aws.ProxyConnectionError,
    aws.HTTPClientError,
    aws.IncompleteReadError,
)
"""The server could not be reached, or the connection broke. Not SSLError: a certificate does not get better."""


def code_of(error: aws.ClientError) -> str:
    """Return the service's error code; the HTTP status where the reply had no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: aws.ClientError) -> int:
    """Return the HTTP status of the reply, 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def collided(error: Exception) -> bool:
    """Whether a write met another one at the same time."""
    return isinstance(error, aws.ClientError) and code_of(error) in COLLISIONS


def contested(error: Exception) -> bool:
    """Whether an upload met another one, came second, or went through while its reply was lost."""
    return isinstance(error, aws.ClientError) and code_of(error) in {*COLLISIONS, *CONTESTS}


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn what botocore raises inside into a StoreError that says where, what and what to do."""
    try:
        yield
    except CloudError as error:  # from fetching credentials
        raise StoreCredentialsError(f"{where}: {error}") from error
    except aws.BotoCoreError as error:
        raise _translated(where, error) from error
    except aws.ClientError as error:
        code, status = code_of(error), status_of(error)
        kind, text = CODES.get(code, (None, ""))
        # S3 passes on the codes of KMS, which has dozens.
        if kind is None and code.startswith("KMS."):
            kind, text = CODES["SlowDown"] if "Throttling" in code else (StoreDeniedError, KEY)
        if kind is None:
            detail = f"{code or status}: {error.response.get('Error', {}).get('Message', '') or error}"
            kind, text = (
                (StoreUnreachableError, f"{detail}; run again in a minute")
                if status >= 500 or status == 429
                else (StoreDeniedError, detail)
                if status in {401, 403}
                else (StoreError, detail)
            )
        raise kind(f"{where}: {text} [{code or status}]") from error


class ClientSettingsError(aws.BotoCoreError):
    """What botocore raises ValueError for: an endpoint that is no URL, a variable that is no number."""

    fmt = "{why}: correct store.endpoint-url, or the variables AWS_... of the environment"


def _translated(where: str, error: Exception) -> StoreError:
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)):
        if half := half_credential(os.environ):
            return StoreCredentialsError(f"{where}: {half}")
        return StoreCredentialsError(
            f"{where}: found no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile "
            "(AWS_PROFILE), or in a workflow `permissions: id-token: write` and a role to assume"
        )
    if isinstance(error, aws.ProfileNotFound):
        return StoreCredentialsError(f"{where}: {error}: correct AWS_PROFILE")
    if isinstance(
        error, (aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.UnauthorizedSSOTokenError)
    ):
        return StoreCredentialsError(f"{where}: {error}; {RENEW}")
    if isinstance(error, aws.FlexibleChecksumError):
        return CorruptObjectError(f"{where}: {error}: damaged on its way or in the store; run again")
    if isinstance(error, aws.SSLError):
        return StoreUnreachableError(f"{where}: {error}: no trusted TLS connection; check store.endpoint-url")
    if isinstance(error, ClientSettingsError):
        return StoreUnreachableError(f"{where}: {error}")
    if isinstance(error, UNREACHABLE):
        return StoreUnreachableError(
            f"{where}: no answer ({error}); check the network and store.endpoint-url, then run again"
        )
    if isinstance(error, aws.ParamValidationError):
        return StoreError(f"{where}: {error}: correct store.url")
    return StoreError(f"{where}: {error}")
