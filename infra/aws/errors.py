"""Errors of AWS calls, each with its remedy and where a retry makes sense."""

from typing import ClassVar, Literal

from gpu_offload.errors import OffloadError

Retry = Literal["same", "elsewhere", "never"]
"""Whether a failed call is worth repeating as it is, worth another offer (zone, type, market), or neither."""


class CloudError(OffloadError):
    """A call to AWS failed or was refused.

    Attributes:
        retry: What a caller can do about it.
        remedy: What a person can do about it; a sentence without a full stop.
        code: AWS's error code; the exception's name where no reply came.
    """

    retry: ClassVar[Retry] = "never"
    default_remedy: ClassVar[str] = "see the message and AWS's documentation of this error code"

    def __init__(self, text: str, *, code: str = "", remedy: str = "") -> None:
        self.remedy = remedy or self.default_remedy
        self.code = code
        super().__init__(f"{text}{f' [{code}]' if code else ''}: {self.remedy}")


class NoCapacityError(CloudError):
    """No capacity of this type in this zone and market at the moment."""

    retry = "elsewhere"
    default_remedy = "another zone, type, market or region may have some; or try again later"


class NotOfferedError(CloudError):
    """This zone does not offer this type."""

    retry = "elsewhere"
    default_remedy = "take another zone or type; `offload plan` lists what is offered where"


class QuotaError(CloudError):
    """A quota of the account is used up. No other offer helps before AWS raises it or instances end."""

    default_remedy = (
        "ask AWS for more at https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas: "
        "'All G and VT Spot Instance Requests' (L-3819A6DF) for spot, 'Running On-Demand G and VT instances' "
        "(L-DB2E81BA) for on demand; it counts vCPUs, 4 suffice for a g4dn.xlarge, and each region has its own"
    )


class NotYetVisibleError(CloudError):
    """AWS does not know the resource: it was made a moment ago, or it is gone."""

    retry = "same"
    default_remedy = "ask again in some seconds: AWS knows a new resource late; otherwise it is gone"


class MissingError(CloudError):
    """The resource does not exist."""

    default_remedy = "check its name and the region"


class ExistsError(CloudError):
    """The resource exists already."""

    default_remedy = "find the existing one and use it"


class InUseError(CloudError):
    """The resource is still in use, or between two states."""

    retry = "same"
    default_remedy = (
        "wait until what uses it has ended (an instance terminates within minutes), then try again"
    )


class ThrottledError(CloudError):
    """Too many calls in too little time."""

    retry = "same"
    default_remedy = "wait some seconds; if it persists, something else in the account calls AWS in a loop"


class ServerFaultError(CloudError):
    """AWS failed. Whether it carried out the call is unknown."""

    retry = "same"
    default_remedy = "try again; https://health.aws.amazon.com shows outages"


class DeniedError(CloudError):
    """The credentials are valid but do not allow this."""

    default_remedy = "give the role this right; `offload bootstrap` prints what each role needs"


class ProtectedError(CloudError):
    """The instance has termination protection, which gpu-offload never turns on."""

    default_remedy = (
        "turn its protection off (aws ec2 modify-instance-attribute --no-disable-api-termination --instance-id ID), then "
        "run the same command again; the timer inside it powers it off all the same, at its end"
    )


class CredentialsError(CloudError):
    """AWS does not accept the credentials."""

    default_remedy = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and that this machine's clock is right"


class ExpiredCredentialsError(CredentialsError):
    """The credentials have expired."""

    default_remedy = (
        "get fresh ones and run again; in a workflow, name the role to the command (AWS_ROLE_ARN) with `permissions: "
        "id-token: write`, so that it can renew them itself; check that this machine's clock is right"
    )


class NoCredentialsError(CredentialsError):
    """There are no credentials."""

    default_remedy = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; in a workflow, AWS_ROLE_ARN with "
        "`permissions: id-token: write`"
    )


class AccountError(CloudError):
    """EC2 is disabled for the account."""

    default_remedy = (
        "see the account's billing and support pages; a new account is verified within four hours"
    )


class InvalidRequestError(CloudError):
    """The request is invalid; repeating it does not help."""

    default_remedy = "correct the setting that the message names"


class NoNetworkError(InvalidRequestError):
    """A zone has no subnet to launch in."""

    default_remedy = "make a default subnet there, or set ec2.subnet"


class TokenMismatchError(InvalidRequestError):
    """The launch's token was used before, with other parameters: the instance of that launch exists."""

    default_remedy = "find the run's instance by its tag; if it is gone, begin a new attempt"


class EndpointError(CloudError):
    """No answer came. Whether AWS carried out the call is unknown."""

    retry = "same"
    default_remedy = "check the network, the region's name and AWS_ENDPOINT_URL, then run again"
