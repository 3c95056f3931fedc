"""Maps error codes of AWS and exceptions of botocore to our errors."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions as aws

from gpu_offload.infra.aws.errors import (
    AccountError,
    CloudError,
    CredentialsError,
    DeniedError,
    EndpointError,
    ExistsError,
    ExpiredCredentialsError,
    InUseError,
    InvalidRequestError,
    MissingError,
    NoCapacityError,
    NoCredentialsError,
    NotOfferedError,
    NotYetVisibleError,
    ProtectedError,
    QuotaError,
    ServerFaultError,
    ThrottledError,
    TokenMismatchError,
)
from gpu_offload.infra.environment import half_credential

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
        ProtectedError: "OperationNotPermitted",
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
"""AWS's error code -> error class. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""

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
"""Remedies by code, where the error class's own is too general."""

ENCODED = re.compile(r"\s*Encoded authorization failure message:\s*(\S+)\s*")


@contextmanager
def aws_errors(operation: str) -> Iterator[None]:
    """Turn botocore's exceptions into a CloudError that names the operation: "launching g4dn.xlarge in us-east-1a"."""
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
    except ValueError as error:
        # botocore's own settings: an endpoint that is no URL, a variable that is no number. Others are faults of ours.
        frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
        if not any(name.startswith("botocore.") for name in frames):
            raise
        raise CloudError(
            f"{operation}: {error}",
            remedy="correct the variables AWS_... of the environment, or the AWS config file",
        ) from error


def from_reply(operation: str, code: str, message: str, status: int = 0) -> CloudError:
    """Return the error for an answer of AWS. An unknown code is judged by its form and the HTTP status."""
    if code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted" or "service-linked role" in message:
        kind: type[CloudError] = DeniedError
        code = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
    elif code == "InvalidParameterValue" and "iam instance profile" in message.lower():
        # A new profile reaches EC2 with a delay; a wrong name looks the same, so retries must be bounded.
        kind = NotYetVisibleError
    else:
        kind = CODES.get(code) or _guess(code, status)
    remedy = REMEDIES.get(code, "")
    if found := ENCODED.search(message):
        # The reason is readable with a permission of its own only, so AWS does not send it in plain text.
        message = ENCODED.sub(" ", message).strip()
        command = f"aws sts decode-authorization-message --encoded-message {found[1]}"
        remedy = f"{kind.default_remedy}; an administrator reads the reason with: {command}"
    return kind(f"{operation}: {message or code or f'HTTP status {status}'}", code=code, remedy=remedy)


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
        if half := half_credential(os.environ):
            return CredentialsError(operation, code=name, remedy=half)
        return NoCredentialsError(text, code=name)
    if isinstance(error, (aws.ProfileNotFound, aws.CredentialRetrievalError, aws.ConfigParseError)):
        return CredentialsError(text, code=name)
    if isinstance(error, (aws.TokenRetrievalError, aws.UnauthorizedSSOTokenError, aws.SSOTokenLoadError)):
        return ExpiredCredentialsError(text, code=name)
    if isinstance(error, aws.SSLError):  # before its base class
        return EndpointError(
            text, code=name, remedy="no trusted TLS connection; check AWS_ENDPOINT_URL and any proxy"
        )
    if isinstance(error, (aws.ConnectionError, aws.HTTPClientError)):
        return EndpointError(text, code=name)
    if isinstance(error, (aws.NoRegionError, aws.InvalidRegionError)):
        return InvalidRequestError(text, code=name, remedy="set `region`, or AWS_REGION")
    if isinstance(error, aws.ParamValidationError):
        return InvalidRequestError(text, code=name)
    return CloudError(text, code=name)
