"""The types of settings: what a value must be on its own, and what to write where it is not.

Every refusal is a PydanticCustomError whose context holds the text and the remedy.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gpu_offload.orchestrator.duration import DURATION_PATTERN, format_duration, parse_duration

LONGEST = timedelta(days=30)
"""Nothing we start is meant to live longer; past it a length of time is rather a slip of the keyboard."""


def wrong(message: str, remedy: str) -> PydanticCustomError:
    """Return the error by which a validator refuses a value: what it is, and what to write instead."""
    # The texts are no templates: pydantic fills in what stands in braces.
    return PydanticCustomError("setting", "{text}", {"text": message, "remedy": remedy})


def _duration(value: object) -> timedelta:
    if isinstance(value, str):
        try:
            value = parse_duration(value.strip())
        except ValueError as error:
            raise (
                wrong(*str(error).split("; ", 1)) if "; " in str(error) else wrong(str(error), "write 6h")
            ) from None
    if not isinstance(value, timedelta):
        raise wrong(
            f"{value!r} has no unit", 'write it in quotes and with a unit: "90m", "6h", "1h30m", "2d"'
        )
    if value <= timedelta():
        raise wrong("a length of time of zero leaves no time to train", 'write for example "6h"')
    if value > LONGEST:
        raise wrong(
            f"{format_duration(value)} is longer than {format_duration(LONGEST)}", "write a shorter time"
        )
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise wrong("it is empty", "write a value, or leave the setting out")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise wrong("it contains a control character", "remove it")
    if value != value.strip():
        raise wrong(f"{value!r} begins or ends with a space", "remove the space")
    return value


def _path(value: str) -> str:
    if value.startswith("~"):
        raise wrong(f"{value!r}: `~` is not expanded", "write the folder relative to the configuration file")
    if "\\" in value:
        raise wrong(f"{value!r} contains a backslash", "separate folders by `/`")
    return value


@dataclass(frozen=True)
class Matching:
    """Metadata of a text type: the pattern that the whole text matches, for us and for editors alike."""

    pattern: str
    what: str
    """The noun for a message: `a region`."""
    remedy: str

    def check(self, value: str) -> str:
        """Return the value. Raises PydanticCustomError where it does not match."""
        if re.fullmatch(self.pattern, value, re.ASCII) is None:
            raise wrong(f"{value!r} is not {self.what}", self.remedy)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Listed:
    """Metadata of a list type: a check, and the keyword by which a JSON schema says the same."""

    check: Callable[[tuple[str, ...]], tuple[str, ...]]
    keyword: str
    value: object

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {self.keyword: self.value}


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise wrong(f"{value!r} is not a web address", "write https://HOST or https://HOST:PORT/PATH")
    if parts.username is not None or parts.password is not None:
        raise wrong("the address contains a user name or password", "give credentials in the environment")
    if parts.query or parts.fragment:
        raise wrong("the address contains `?` or `#`", "write it up to there")
    return value.rstrip("/")


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise wrong(f"{value!r} is there twice", "remove one")
        seen.add(value)
    return values


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise wrong("the list is empty", "name at least one, or leave the setting out")
    return values


BUILT_IN_MODEL = (
    r"(?:(?:yolov(?:3|5|6|8|9|10)|yolo(?:11|12|26))[nsmlxbtce]?(?:6?u)?"
    r"(?:-(?:seg|pose|cls|p2|p6|ghost|sppu?|tinyu?|rtdetr|oiv7|resnet\d+))*|rtdetr-(?:l|x|resnet\d+))"
)
"""Stems of the models that Ultralytics 8.4 defines or publishes for the four tasks we train."""

_WEB_WEIGHTS = r"https://[^\s#@]+\.(?:pt|pth)(?:\?[^\s#]*)?#sha256=[0-9a-f]{64}"
_STORE_KEY = r"store:(?!/)(?!(?:\S*/)?\.{1,2}(?:/|$))[^\s\\]*[^\s\\/]"
WEIGHTS_PATTERN = rf"{BUILT_IN_MODEL}\.pt|{_WEB_WEIGHTS}|{_STORE_KEY}"
MODEL_PATTERN = rf"[^:#]+\.ya?ml|{WEIGHTS_PATTERN}"
INIT_PATTERN = rf"scratch|{WEIGHTS_PATTERN}"
STORE_PATTERN = r"file:.+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/.*)?"

_WEIGHTS_REMEDY = (
    "weights are a published name (yolo11n.pt), https://HOST/FILE.pt#sha256=64 hex digits, or store:KEY "
    "for an object in the store"
)


def is_weights(model: str) -> bool:
    """Whether a `model` or `init-from` names trained weights, as opposed to a definition or `scratch`."""
    return re.fullmatch(WEIGHTS_PATTERN, model, re.ASCII) is not None


def _model(value: str) -> str:
    if re.fullmatch(MODEL_PATTERN, value, re.ASCII):
        return value
    if value.startswith("http:") or (value.startswith("https:") and "#sha256=" not in value):
        raise wrong(
            f"{value!r} could be anything", "write https://HOST/FILE.pt#sha256=64 hex digits of the file"
        )
    if re.fullmatch(BUILT_IN_MODEL, value):
        raise wrong(
            f"{value!r} lacks its ending",
            f"write {value}.yaml to start from nothing, {value}.pt from published weights",
        )
    raise wrong(
        f"{value!r} is no model", f"write a definition (yolov8n.yaml or a path to yours); {_WEIGHTS_REMEDY}"
    )


def _init_from(value: str) -> str:
    if re.fullmatch(INIT_PATTERN, value, re.ASCII):
        return value
    raise wrong(f"{value!r} is nothing to start from", f"write scratch; {_WEIGHTS_REMEDY}")


def _store_url(value: str) -> str:
    if value.startswith("file:"):
        path = value.removeprefix("file:")
        if not path or (path.startswith("//") and not path.startswith("///")):
            raise wrong(f"{value!r} names no folder", "write file:FOLDER or file:/ABSOLUTE/FOLDER")
        return "file:" + _path("/" + path.lstrip("/") if path.startswith("/") else path)
    if re.fullmatch(STORE_PATTERN, value, re.ASCII) is None:
        raise wrong(f"{value!r} is no store", "write file:FOLDER or s3://BUCKET/PREFIX")
    prefix = value.removeprefix("s3://").partition("/")[2].rstrip("/")
    if prefix and not all(part not in {"", ".", ".."} for part in prefix.split("/")):
        raise wrong(f"the prefix {prefix!r} has an empty, `.` or `..` part", "write s3://BUCKET/PREFIX")
    if re.search(r"[\s?#\\]", prefix):
        raise wrong(
            f"the prefix {prefix!r} has a character that breaks addresses", "use letters, digits, - _ . /"
        )
    return value.rstrip("/")


def _cidr(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=True)
    except ValueError as error:
        raise wrong(f"{value!r} is no address range: {error}", "write for example 203.0.113.7/32") from None
    if network.prefixlen == 0:
        raise wrong("the whole internet could reach the instance", "write your own address with /32")
    return value


def _plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    return isinstance(value, bool | int | str)


def _hyperparameter(value: object) -> object:
    if not _plain(value):
        raise wrong(
            f"{value} is neither text, number, true or false, nor a list or table of them",
            "write one of these; what you leave out keeps its default",
        )
    return value


def _pattern(pattern: str) -> Any:
    """Tell editors of a pattern that a validator of ours holds."""
    return Field(json_schema_extra={"pattern": f"^(?:{pattern})$"})


Count = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
Hyperparameter = Annotated[
    Any,
    AfterValidator(_hyperparameter),
    Field(json_schema_extra={"type": ["string", "number", "boolean", "array", "object"]}),
]

Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"minLength": 1})]
Path = Annotated[Text, AfterValidator(_path)]
Model = Annotated[Text, AfterValidator(_model), _pattern(MODEL_PATTERN)]
InitFrom = Annotated[Text, AfterValidator(_init_from), _pattern(INIT_PATTERN)]
Entrypoint = Annotated[
    Text,
    Matching(
        r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", "package.module:function", "write mine.train:main"
    ),
]
Device = Annotated[
    Text, Matching(r"auto|cpu|mps|cuda(?::\d+)?", "a device", "write auto, cpu, cuda, cuda:0 or mps")
]
StoreUrl = Annotated[Text, AfterValidator(_store_url), _pattern(STORE_PATTERN)]
HttpUrl = Annotated[Text, AfterValidator(_http_url), _pattern(r"https?://\S+")]
Region = Annotated[Text, Matching(r"[a-z]{2,}(?:-[a-z]+)+-\d+", "a region", "write for example us-east-1")]
InstanceType = Annotated[
    Text, Matching(r"[a-z0-9-]+\.[a-z0-9-]+", "an instance type", "write for example g4dn.xlarge")
]
Image = Annotated[
    Text,
    Matching(
        r"ami-[0-9a-f]{8}(?:[0-9a-f]{9})?|/[A-Za-z0-9_./-]+",
        "an image",
        "write ami-0123456789abcdef0, or the path of a public SSM parameter: /aws/service/...",
    ),
]
Subnet = Annotated[Text, Matching(r"subnet-[0-9a-f]{8,17}", "a subnet", "write subnet-0123456789abcdef0")]
ProfileName = Annotated[
    Text, Matching(r"[\w+=,.@-]{1,128}", "the name of an instance profile", "write its name, not its ARN")
]
RoleArn = Annotated[
    Text,
    Matching(
        r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+",
        "the ARN of a role",
        "write arn:aws:iam::123456789012:role/NAME",
    ),
]
Cidr = Annotated[Text, AfterValidator(_cidr)]

Distinct = Listed(_distinct, "uniqueItems", True)
"""Metadata of a list: nothing is there twice."""
NotEmpty = Listed(_not_empty, "minItems", 1)
"""Metadata of a list: something is there."""
