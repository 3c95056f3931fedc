"""One request to the simulated cloud, and AWS's errors in the forms of their services."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import uuid4
from xml.sax.saxutils import escape

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
STATUS = {
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "InvalidAccessKeyId"), 403
    ),
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket"), 404),
    **dict.fromkeys(("InternalError", "InternalFailure"), 500),
    **dict.fromkeys(("RequestLimitExceeded", "SlowDown", "ServiceUnavailable", "Unavailable"), 503),
}
"""Statuses other than 400. No capacity is 400 here: with 500 the SDK would silently try again."""

EXPIRED = {"ec2": "RequestExpired", "s3": "ExpiredToken", "sts": "ExpiredToken", "iam": "ExpiredToken"}
"""Error code of an expired session; elsewhere `ExpiredTokenException`."""
DENIED = {"ec2": "UnauthorizedOperation", "s3": "AccessDenied", "sts": "AccessDenied", "iam": "AccessDenied"}

_SCHEDULER = {"POST": "CreateSchedule", "PUT": "UpdateSchedule", "DELETE": "DeleteSchedule"}
_S3_QUERIES = (
    "policy", "versioning", "lifecycle", "publicAccessBlock", "encryption", "cors", "tagging", "acl",
)  # fmt: skip
_MAX_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Call:
    """An API request. `parameters` is the form, the JSON document, or S3's query and conditions."""

    service: str
    operation: str
    region: str
    access_key: str
    parameters: dict[str, Any]
    bucket: str = ""
    key: str = ""

    @property
    def zone(self) -> str | None:
        """The availability zone that a launch asks for by name; a subnet's zone is not known here."""
        return self.parameters.get("Placement.AvailabilityZone")

    @property
    def instance_type(self) -> str | None:
        """The type that a launch asks for."""
        return self.parameters.get("InstanceType")

    @property
    def profile(self) -> str:
        """The instance profile of a launch, by its name; empty for none."""
        form = self.parameters
        return str(
            form.get("IamInstanceProfile.Name") or form.get("IamInstanceProfile.Arn", "").rpartition("/")[2]
        )


def values_of(form: Mapping[str, Any], name: str, field: str = "") -> list[str]:
    """Return the numbered values of a form's parameter (`InstanceId.1`, `Tag.1.Key`), or its only one."""
    end = f".{field}" if field else ""
    numbered = [str(form[f"{name}.{i}{end}"]) for i in range(1, len(form) + 1) if f"{name}.{i}{end}" in form]
    return numbered or ([str(form[name])] if name in form else [])


def read_call(environ: dict[str, Any], default_region: str) -> Call:
    """Parse a request; a form or JSON body is read and put back for moto."""
    access_key, region, service = _signer(environ)
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    path = environ.get("PATH_INFO", "")
    parameters: dict[str, Any] = {}
    bucket = key = ""
    content_type = environ.get("CONTENT_TYPE", "")
    # AWS's protocols: JSON names the operation in a header, EC2 and IAM in a form, REST by method and path.
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        operation = target.rpartition(".")[2]
        parameters = _json(_body(environ))
    elif content_type.startswith("application/x-www-form-urlencoded") and service != "s3":
        parameters = dict(parse_qsl(_body(environ).decode(errors="replace"), keep_blank_values=True))
        operation = parameters.get("Action", "?")
        service = service or "sts"  # AssumeRoleWithWebIdentity is not signed
    elif service == "scheduler":
        name = path.removeprefix("/schedules").strip("/")
        operation = _SCHEDULER.get(environ["REQUEST_METHOD"], "GetSchedule" if name else "ListSchedules")
        parameters = _json(_body(environ)) | ({"Name": name} if name else {})
    else:
        service = "s3"
        bucket, _, key = unquote(path.lstrip("/")).partition("/")
        operation = _s3_operation(environ["REQUEST_METHOD"], bucket, key, query)
        conditions = {"if-none-match": "HTTP_IF_NONE_MATCH", "if-match": "HTTP_IF_MATCH"}
        parameters = query | {name: environ[key] for name, key in conditions.items() if key in environ}
    return Call(service, operation, region or default_region, access_key, parameters, bucket, key)


def _signer(environ: dict[str, Any]) -> tuple[str, str, str]:
    """Access key, region and service out of a version 4 signature, in the header or in the query."""
    header = environ.get("HTTP_AUTHORIZATION", "")
    query = environ.get("QUERY_STRING", "")
    found = CREDENTIAL.search(header) or CREDENTIAL.search(unquote(query))
    if not found:
        return "", "", ""
    key, region, service = found.groups()
    return key, region, service.lower()


def _body(environ: dict[str, Any]) -> bytes:
    length = min(int(environ.get("CONTENT_LENGTH") or 0), _MAX_BODY)
    body: bytes = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _s3_operation(method: str, bucket: str, key: str, query: dict[str, str]) -> str:
    if not bucket:
        return "ListBuckets"
    if not key:
        part = next((q for q in _S3_QUERIES if q in query), "")
        name = f"Bucket{part[:1].upper()}{part[1:]}" if part else "Bucket"
        listing = "ListObjectsV2" if "list-type" in query else "ListObjects"
        if method == "POST" and "delete" in query:
            return "DeleteObjects"
        verbs = {"PUT": "Put" if part else "Create", "DELETE": "Delete", "HEAD": "Head", "GET": "Get"}
        return listing if method == "GET" and not part else verbs.get(method, "Post") + name
    multipart = "uploadId" in query
    return {
        ("POST", True): "CompleteMultipartUpload",
        ("PUT", True): "UploadPart",
        ("DELETE", True): "AbortMultipartUpload",
        ("GET", True): "ListParts",
        ("POST", False): "CreateMultipartUpload",
        ("PUT", False): "PutObject",
        ("GET", False): "GetObject",
        ("HEAD", False): "HeadObject",
        ("DELETE", False): "DeleteObject",
    }.get((method, multipart), f"{method}Object")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is not moto's."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]

    @property
    def status_line(self) -> str:
        """As WSGI wants it."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return f"{self.status} Unknown"


@dataclass(frozen=True, slots=True)
class CallDecision:
    """What becomes of a call: our reply or moto's, and whether it is delivered."""

    reply: Reply | None = None
    drop: bool = False
    """Close the connection without handling the call."""
    lose: bool = False
    """Handle the call, then close the connection without a reply."""


def xml_reply(text: str, status: int = 200) -> Reply:
    """An XML document."""
    body = ('<?xml version="1.0" encoding="UTF-8"?>\n' + text).encode()
    return Reply(status, body, (("Content-Type", "text/xml;charset=UTF-8"),))


def json_reply(document: object, status: int = 200, error: str | None = None) -> Reply:
    """A JSON document, with the error's name in the header that the SDK reads."""
    headers = [("Content-Type", "application/x-amz-json-1.1")]
    if error:
        headers.append(("x-amzn-ErrorType", error))
    return Reply(status, json.dumps(document).encode(), tuple(headers))


def error_reply(call: Call, code: str, message: str) -> Reply:
    """An error in the form of the service that was called."""
    status = STATUS.get(code, 400)
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.service == "ec2":
        return xml_reply(
            f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{uuid4()}</RequestID></Response>",
            status,
        )
    if call.service == "s3":
        return xml_reply(f"<Error>{inner}<RequestId>{uuid4()}</RequestId></Error>", status)
    if call.service in {"sts", "iam", "cloudformation"}:
        return xml_reply(
            f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>{uuid4()}</RequestId>"
            "</ErrorResponse>",
            status,
        )
    return json_reply({"__type": code, "message": message, "Message": message}, status, code)
