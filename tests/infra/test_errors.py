"""Every refusal of AWS's has a type, says what to do, and says where a retry makes sense."""

import boto3
import botocore.exceptions as aws
import pytest

from gpu_offload.infra.aws import errors
from gpu_offload.infra.aws.error_codes import aws_errors, from_reply
from gpu_offload.infra.aws.errors import CloudError

TABLE = [
    ("InsufficientInstanceCapacity", 500, "NoCapacityError", "elsewhere"),
    ("InsufficientHostCapacity", 500, "NoCapacityError", "elsewhere"),
    ("UnfulfillableCapacity", 400, "NoCapacityError", "elsewhere"),
    ("SpotMaxPriceTooLow", 400, "NoCapacityError", "elsewhere"),
    ("InsufficientFreeAddressesInSubnet", 400, "NoCapacityError", "elsewhere"),
    ("InsufficientSomethingNewCapacity", 500, "NoCapacityError", "elsewhere"),
    ("Unsupported", 400, "NotOfferedError", "elsewhere"),
    ("MaxSpotInstanceCountExceeded", 400, "QuotaError", "never"),
    ("VcpuLimitExceeded", 400, "QuotaError", "never"),
    ("InstanceLimitExceeded", 400, "QuotaError", "never"),
    ("SomethingNewLimitExceeded", 400, "QuotaError", "never"),
    ("InvalidInstanceID.NotFound", 400, "NotYetVisibleError", "same"),
    ("InvalidGroup.NotFound", 400, "NotYetVisibleError", "same"),
    ("RequestLimitExceeded", 503, "ThrottledError", "same"),
    ("Throttling", 400, "ThrottledError", "same"),
    ("SomethingNewThrottled", 400, "ThrottledError", "same"),
    ("", 429, "ThrottledError", "same"),
    ("InternalError", 500, "ServerFaultError", "same"),
    ("", 502, "ServerFaultError", "same"),
    ("DependencyViolation", 400, "InUseError", "same"),
    ("UnauthorizedOperation", 403, "DeniedError", "never"),
    ("AccessDeniedException", 400, "DeniedError", "never"),
    ("", 403, "DeniedError", "never"),
    ("AuthFailure", 401, "CredentialsError", "never"),
    ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", 403, "DeniedError", "never"),
    ("InvalidClientTokenId", 403, "CredentialsError", "never"),
    ("ExpiredToken", 400, "ExpiredCredentialsError", "never"),
    ("RequestExpired", 400, "ExpiredCredentialsError", "never"),
    ("IdempotentParameterMismatch", 400, "TokenMismatchError", "never"),
    ("InvalidAMIID.NotFound", 400, "InvalidRequestError", "never"),
    ("InvalidAMIID.Malformed", 400, "InvalidRequestError", "never"),
    ("InvalidSomethingNew", 400, "InvalidRequestError", "never"),
    ("PendingVerification", 400, "AccountError", "never"),
    ("OptInRequired", 401, "AccountError", "never"),
    ("ResourceNotFoundException", 404, "MissingError", "never"),
    ("ConflictException", 409, "ExistsError", "never"),
    ("SomethingNew", 400, "CloudError", "never"),
]


@pytest.mark.parametrize(
    ("code", "status", "kind", "retry"), TABLE, ids=lambda value: str(value) or "no-code"
)
def test_an_answer_of_aws_has_its_type_and_says_what_to_do(code, status, kind, retry):
    reply = {"Error": {"Code": code, "Message": "the text"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(CloudError) as caught, aws_errors("launching g5.xlarge in us-east-1a"):
        raise aws.ClientError(reply, "RunInstances")
    error = caught.value
    assert (type(error).__name__, error.retry, error.code) == (kind, retry, code)
    assert str(error).startswith("launching g5.xlarge in us-east-1a: the text")
    assert error.remedy
    assert error.remedy in str(error)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (aws.NoCredentialsError(), "NoCredentialsError"),
        (aws.PartialCredentialsError(provider="env", cred_var="x"), "NoCredentialsError"),
        (aws.ProfileNotFound(profile="x"), "CredentialsError"),
        (aws.TokenRetrievalError(provider="sso", error_msg="x"), "ExpiredCredentialsError"),
        (aws.EndpointConnectionError(endpoint_url="https://x"), "EndpointError"),
        (aws.ConnectTimeoutError(endpoint_url="https://x"), "EndpointError"),
        (aws.ReadTimeoutError(endpoint_url="https://x"), "EndpointError"),
        (aws.ConnectionClosedError(endpoint_url="https://x"), "EndpointError"),
        (aws.SSLError(endpoint_url="https://x", error="x"), "EndpointError"),
        (aws.NoRegionError(), "InvalidRequestError"),
        (aws.ParamValidationError(report="x"), "InvalidRequestError"),
        (aws.BotoCoreError(), "CloudError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_botocore_raises_by_itself_has_its_type_too(raised, kind):
    with pytest.raises(CloudError) as caught, aws_errors("asking"):
        raise raised
    assert type(caught.value).__name__ == kind


def test_the_remedy_of_an_encoded_refusal_is_the_command_that_reads_it():
    message = (
        "You are not authorized to perform this operation. Encoded authorization failure message: abcDEF-123"
    )
    error = from_reply("launching", "UnauthorizedOperation", message, 403)
    assert str(error).count("abcDEF-123") == 1
    assert "decode-authorization-message --encoded-message abcDEF-123" in error.remedy


def test_a_quota_error_says_how_to_get_more():
    error = from_reply("launching", "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", 400)
    assert "L-3819A6DF" in error.remedy
    assert "servicequotas" in error.remedy


def test_the_first_spot_instance_of_an_account_needs_a_role_and_the_error_gives_the_command():
    error = from_reply(
        "launching",
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances.",
        403,
    )
    assert "create-service-linked-role" in error.remedy


def test_a_new_instance_profile_that_ec2_does_not_know_yet_is_worth_a_retry():
    error = from_reply(
        "launching", "InvalidParameterValue", "Value (x) for parameter iamInstanceProfile.name is invalid. "
        "Invalid IAM Instance Profile name", 400
    )  # fmt: skip
    assert error.retry == "same"


def test_what_is_no_error_of_aws_passes_as_it_is():
    with pytest.raises(ZeroDivisionError), aws_errors("dividing"):
        raise ZeroDivisionError


def test_every_error_says_what_to_do():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CloudError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        assert kind("x").remedy
        assert kind.retry in {"same", "elsewhere", "never"}
        assert kind.__name__.endswith("Error")


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_ENDPOINT_URL_EC2", "nowhere"), ("AWS_ENDPOINT_URL", "http://[::1")]
)
def test_a_setting_that_botocore_cannot_use_is_an_error_and_our_own_mistake_is_not_hidden(
    monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(CloudError, match="asking EC2") as refused, aws_errors("asking EC2"):
        boto3.Session().client("ec2", region_name="us-east-1")
    assert "AWS_" in refused.value.remedy
    with pytest.raises(ValueError, match="ours"), aws_errors("asking EC2"):
        raise ValueError("ours")
