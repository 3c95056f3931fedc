"""What can go wrong between us and AWS: botocore's exceptions become ours, each with what to do and where to retry."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import botocore.exceptions as aws

Retry = Literal["same", "elsewhere", "never"]
"""Whether a failed call is worth repeating as it is, worth another offer (zone, type, market), or neither."""


class CloudError(Exception):
    """AWS could not or would not do what was asked.

    Attributes:
        retry: What a caller may do about it.
        remedy: What a person may do about it; a sentence without a full stop.
        code: AWS's error code; the exception's name where no reply came.
        encoded: EC2's encoded reason for a refusal, for `aws sts decode-authorization-message`; mostly empty.
    """

    retry: ClassVar[Retry] = "never"
    default_remedy: ClassVar[str] = "see the message and AWS's documentation of this error code"

    def __init__(self, text: str, *, code: str = "", remedy: str = "", encoded: str = "") -> None:
        self.remedy = remedy or self.default_remedy
        self.code = code
        self.encoded = encoded
        super().__init__(f"{text}{f' [{code}]' if code else ''}: {self.remedy}")


class NoCapacityError(CloudError):
    """Nothing of this type is free in this zone and market at the moment."""

    retry = "elsewhere"
    default_remedy = "another zone, type, market or region may have some; or try again later"


class NotOfferedError(CloudError):
    """This zone never has this type."""

    retry = "elsewhere"
    default_remedy = "take another zone or type; `offload plan` lists what is offered where"


class QuotaError(CloudError):
    """The account may not have so much of it. No other offer of the account helps before AWS raises the quota."""

    default_remedy = (
        "ask AWS for more at https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas: "
        "'All G and VT Spot Instance Requests' (L-3819A6DF) for spot, 'Running On-Demand G and VT instances' "
        "(L-DB2E81BA) for on demand; it counts vCPUs, 4 suffice for a g4dn.xlarge, and each region has its own"
    )


class NotYetVisibleError(CloudError):
    """AWS does not know the resource: not yet (right after it was made), or not any more."""

    retry = "same"
    default_remedy = "AWS takes seconds to know what was just made; ask again, or it is gone"


class MissingError(CloudError):
    """There is no such thing."""

    default_remedy = "check its name and the region"


class ExistsError(CloudError):
    """There is one already."""

    default_remedy = "find the existing one and use it"


class InUseError(CloudError):
    """Something still needs the resource, or it is between two states."""

    retry = "same"
    default_remedy = "what uses it goes first (an instance takes up to minutes to terminate); then try again"


class ThrottledError(CloudError):
    """Too many calls in too little time."""

    retry = "same"
    default_remedy = "wait some seconds; if it stays so, something else in the account calls AWS in a loop"


class ServerFaultError(CloudError):
    """AWS failed. Whether it did what was asked is unknown."""

    retry = "same"
    default_remedy = "try again; https://health.aws.amazon.com shows outages"


class DeniedError(CloudError):
    """The credentials are good, and do not allow this."""

    default_remedy = "give the role this right; `offload bootstrap` prints what each role needs"


class CredentialsError(CloudError):
    """AWS does not accept the credentials."""

    default_remedy = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and that this machine's clock is right"


class ExpiredCredentialsError(CredentialsError):
    """The credentials were good once."""

    default_remedy = (
        "get fresh ones and run again; in a workflow, name the role to the command (AWS_ROLE_ARN) with `permissions: "
        "id-token: write`, so that it can renew them itself; check that this machine's clock is right"
    )


class NoCredentialsError(CredentialsError):
    """There are none."""

    default_remedy = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; in a workflow, AWS_ROLE_ARN with "
        "`permissions: id-token: write`"
    )


class AccountError(CloudError):
    """The account as a whole may not use EC2 now."""

    default_remedy = (
        "see the account's billing and support pages; a new account is verified within four hours"
    )


class InvalidRequestError(CloudError):
    """We asked for something that cannot be; asking again is no use."""

    default_remedy = "correct the setting that the message names"


class TokenMismatchError(InvalidRequestError):
    """The launch's token was used before, with other parameters: the instance of that launch exists."""

    default_remedy = "find the run's instance by its tag; if it is gone, begin a new attempt"


class EndpointError(CloudError):
    """No answer came. Whether AWS did what was asked is unknown."""

    retry = "same"
    default_remedy = "check the network, the region's name and AWS_ENDPOINT_URL, then run again"


CODES: dict[str, type[CloudError]] = {
    code: kind
    for kind, codes in {
        NoCapacityError: (
            "InsufficientInstanceCapacity InsufficientHostCapacity InsufficientCapacityOnHost InsufficientCapacity "
            "InsufficientReservedInstanceCapacity InsufficientVolumeCapacity InsufficientFreeAddressesInSubnet "
            "InsufficientAddressCapacity ReservationCapacityExceeded UnfulfillableCapacity SpotMaxPriceTooLow"
        ),
        NotOfferedError: "Unsupported UnsupportedInstanceType InstanceTypeNotSupported",
        QuotaError: (
            "VcpuLimitExceeded MaxSpotInstanceCountExceeded InstanceLimitExceeded SpotInstanceCountLimitExceeded "
            "VolumeLimitExceeded MaxVolumeCountExceeded SecurityGroupLimitExceeded RulesPerSecurityGroupLimitExceeded "
            "AddressLimitExceeded NetworkInterfaceLimitExceeded ServiceQuotaExceededException LimitExceededException "
            "MaxSpotFleetRequestCountExceeded"
        ),
        NotYetVisibleError: (
            "InvalidInstanceID.NotFound InvalidGroup.NotFound InvalidGroupId.NotFound "
            "InvalidSecurityGroupID.NotFound InvalidVolume.NotFound InvalidSpotInstanceRequestID.NotFound "
            "InvalidNetworkInterfaceID.NotFound"
        ),
        MissingError: "ResourceNotFoundException NoSuchResourceException ParameterNotFound NoSuchEntity",
        ExistsError: "ConflictException InvalidGroup.Duplicate InvalidPermission.Duplicate EntityAlreadyExists",
        InUseError: (
            "DependencyViolation InvalidGroup.InUse VolumeInUse IncorrectState IncorrectInstanceState "
            "ConcurrentTagAccess ResourceInUseException"
        ),
        ThrottledError: (
            "RequestLimitExceeded Throttling ThrottlingException ThrottledException RequestThrottled "
            "RequestThrottledException TooManyRequestsException EC2ThrottledException SlowDown BandwidthLimitExceeded "
            "PriorRequestNotComplete"
        ),
        ServerFaultError: (
            "InternalError InternalFailure InternalServerException InternalServiceError ServerInternal "
            "ServiceUnavailable ServiceUnavailableException Unavailable RequestTimeout"
        ),
        DeniedError: "UnauthorizedOperation AccessDenied AccessDeniedException NotAuthorized UnauthorizedException",
        CredentialsError: (
            "AuthFailure InvalidClientTokenId InvalidAccessKeyId UnrecognizedClientException SignatureDoesNotMatch "
            "InvalidSignatureException IncompleteSignature MissingAuthenticationToken InvalidIdentityToken "
            "IDPRejectedClaim IDPCommunicationError RequestTimeTooSkewed"
        ),
        ExpiredCredentialsError: "ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired",
        AccountError: "PendingVerification OptInRequired Blocked AccountProblem SubscriptionRequiredException",
        TokenMismatchError: "IdempotentParameterMismatch",
        InvalidRequestError: (
            "InvalidAMIID.Malformed InvalidAMIID.NotFound InvalidAMIID.Unavailable InvalidParameterValue "
            "InvalidParameterCombination InvalidParameter InvalidParameterDependency MissingParameter "
            "UnknownParameter InvalidSubnetID.NotFound InvalidSubnet VPCIdNotSpecified DefaultVpcDoesNotExist "
            "InvalidInstanceID.Malformed InvalidUserData.Malformed InvalidBlockDeviceMapping InvalidSnapshot.NotFound "
            "UnsupportedOperation InvalidAction InvalidInput ValidationError ValidationException "
            "InvalidParameterException MalformedPolicyDocument InvalidGroupId.Malformed"
        ),
    }.items()
    for code in codes.split()
}
"""AWS's error code -> our error. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""

REMEDIES = {
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": (
        "an account needs this role before its first spot instance; once, as an administrator: "
        "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
    ),
    "InvalidAMIID.NotFound": "no such image in this region; images have another id in each; correct `image`",
    "InvalidAMIID.Malformed": "an image's id looks like ami-0123456789abcdef0; correct `image`",
    "InvalidAMIID.Unavailable": "the image is not ready or was withdrawn; choose another `image`",
    "SpotMaxPriceTooLow": "the spot price is above the highest price we would pay; take another offer, or on demand",
    "InvalidSubnetID.NotFound": "no such subnet in this region; correct `subnet`",
    "DefaultVpcDoesNotExist": "the region has no default network; make one with: aws ec2 create-default-vpc",
    "VPCIdNotSpecified": "the region has no default network; make one with: aws ec2 create-default-vpc",
    "SecurityGroupLimitExceeded": "delete security groups that nothing uses; `offload tend` deletes those of ended runs",
    "VolumeLimitExceeded": "delete volumes that nothing uses; `offload tend` shows ours",
    "InvalidIdentityToken": (
        "the account has no OIDC provider for token.actions.githubusercontent.com, or it expects another audience; "
        "`offload bootstrap` makes it"
    ),
    "OptInRequired": "this region must be enabled in the account first, or the account is not fully signed up",
}
"""What to do, where the kind of error does not say it well enough."""

ENCODED = re.compile(r"\s*Encoded authorization failure message:\s*(\S+)\s*")

UNREACHABLE = (
    aws.EndpointConnectionError,
    aws.ConnectTimeoutError,
    aws.ReadTimeoutError,
    aws.ConnectionClosedError,
    aws.ProxyConnectionError,
    aws.HTTPClientError,
)


@contextmanager
def aws_errors(operation: str) -> Iterator[None]:
    """Turn what botocore raises inside into a CloudError.

    Args:
        operation: What we were doing, for the message: "launching g4dn.xlarge in us-east-1a".
    """
    try:
        yield
    except aws.ClientError as error:
        raise from_reply(
            operation,
            str(error.response.get("Error", {}).get("Code", "")),
            str(error.response.get("Error", {}).get("Message", "")),
            int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
        ) from error
    except aws.BotoCoreError as error:
        raise _from_botocore(operation, error) from error


def from_reply(operation: str, code: str, message: str, status: int = 0) -> CloudError:
    """Make the error for what AWS answered. A code that nobody knows is judged by its form and the HTTP status."""
    if code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted" or "service-linked role" in message:
        kind: type[CloudError] = DeniedError
        code = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
    elif code == "InvalidParameterValue" and "iam instance profile" in message.lower():
        # IAM is slow to tell EC2 of a new profile; a wrong name looks just the same, so retries must be bounded.
        kind = NotYetVisibleError
    else:
        kind = CODES.get(code) or _guess(code, status)
    found = ENCODED.search(message)
    remedy = REMEDIES.get(code, "")
    if found:
        message = ENCODED.sub(" ", message).strip()
        remedy = f"{kind.default_remedy}; `aws sts decode-authorization-message` explains the refusal"
    return kind(
        f"{operation}: {message or code or f'HTTP status {status}'}",
        code=code,
        remedy=remedy,
        encoded=found[1] if found else "",
    )


def _guess(code: str, status: int) -> type[CloudError]:
    if code.startswith("Insufficient"):
        return NoCapacityError
    if code.endswith(("LimitExceeded", "CountExceeded")):
        return QuotaError
    if "Throttl" in code or status == 429:
        return ThrottledError
    if status >= 500:
        return ServerFaultError
    if status in {401, 403}:
        return DeniedError
    if code.startswith(("Invalid", "Missing", "Malformed", "Unknown")):
        return InvalidRequestError
    return CloudError


def _from_botocore(operation: str, error: Exception) -> CloudError:
    name = type(error).__name__
    text = f"{operation}: {error}"
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)):
        return NoCredentialsError(text, code=name)
    if isinstance(error, (aws.ProfileNotFound, aws.CredentialRetrievalError, aws.ConfigParseError)):
        return CredentialsError(text, code=name)
    if isinstance(error, (aws.TokenRetrievalError, aws.UnauthorizedSSOTokenError, aws.SSOTokenLoadError)):
        return ExpiredCredentialsError(text, code=name)
    if isinstance(error, aws.SSLError):
        return EndpointError(
            text, code=name, remedy="no trusted TLS connection; check AWS_ENDPOINT_URL and any proxy"
        )
    if isinstance(error, UNREACHABLE):
        return EndpointError(text, code=name)
    if isinstance(error, (aws.NoRegionError, aws.InvalidRegionError)):
        return InvalidRequestError(text, code=name, remedy="set `region`, or AWS_REGION")
    if isinstance(error, aws.ParamValidationError):
        return InvalidRequestError(text, code=name)
    return CloudError(text, code=name)
