"""The types of settings: constraints on single values; each refusal is a PydanticCustomError with its remedy."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from gpu_offload.orchestrator.settings.address import (
    STORE_PATTERN,
    check_cidr,
    check_http_url,
    check_path,
    check_store_url,
)
from gpu_offload.orchestrator.settings.dimension import check_dimension
from gpu_offload.orchestrator.settings.duration import DURATION_PATTERN, check_duration, format_duration
from gpu_offload.orchestrator.settings.fault import wrong
from gpu_offload.orchestrator.settings.model_name import (
    INIT_PATTERN,
    MODEL_PATTERN,
    check_init_from,
    check_model,
)
from gpu_offload.remote_job.spec import SWITCHES


def _text(value: str) -> str:
    if not value.strip():
        raise wrong("it is empty", "write a value, or leave the setting out")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise wrong("it contains a control character", "remove it")
    if value != value.strip():
        raise wrong(f"{value!r} begins or ends with a space", "remove the space")
    return value


# Compared by identity: `Annotated` needs a hash, and a dict has none.
@dataclass(frozen=True, eq=False)
class Checked:
    """Metadata of a type: a check, and the keywords by which a JSON schema says the same."""

    check: Callable[[Any], Any]
    keywords: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | self.keywords


def _pattern(pattern: str) -> dict[str, Any]:
    return {"pattern": f"^(?:{pattern})$"}


def _matching(pattern: str, what: str, remedy: str) -> Checked:
    """Return metadata of a text that matches a pattern as a whole; `what` is its noun in a message."""

    def check(value: str) -> str:
        # Digits and letters of other scripts are none to AWS.
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise wrong(f"{value!r} is not {what}", remedy)
        return value

    return Checked(check, _pattern(pattern))


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise wrong(f"{twice[0]!r} is there twice", "remove one")
    return values


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise wrong("the list is empty", "name at least one, or leave the setting out")
    return values


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


def _fold(value: str) -> str:
    part, parts = map(int, value.split("/"))
    if parts < 2 or part > parts:
        raise wrong(f"{value!r} is not one of two or more parts", 'write "1/5" for the first of five')
    return value


def _gpus(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 16):
        return value
    raise wrong(f"{value!r} is no number of GPUs of one machine", 'write 1, 4, 8 or "auto"')


def _ray_resources(values: dict[str, float]) -> dict[str, float]:
    for name, amount in values.items():
        if name in {"CPU", "GPU", "memory"}:
            raise wrong(f"{name} has a setting of its own", "write ray.cpus, ray.gpus or ray.memory-gib")
        if amount <= 0 or (amount > 1 and amount != int(amount)):
            raise wrong(f"{name} = {amount:g} is no amount", "write a whole number, or a fraction of one")
    return values


def _speed(values: dict[str, bool]) -> dict[str, bool]:
    for name in values:
        if name not in SWITCHES:
            raise wrong(f"{name} is no switch", f"write {', '.join(SWITCHES)}")
    return values


Count = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Gpus = Annotated[
    int | Literal["auto"],
    PlainValidator(_gpus),
    WithJsonSchema({"type": ["integer", "string"], "enum": ["auto", *range(1, 17)]}),
]
Goal = Literal["maximize", "minimize"]

ExportFormat = Literal["onnx", "safetensors"]
"""The formats of `remote_job.yolo.exports`."""
Duration = Annotated[
    timedelta,
    BeforeValidator(check_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
Hyperparameter = Annotated[
    Any,
    AfterValidator(_hyperparameter),
    Field(json_schema_extra={"type": ["string", "number", "boolean", "array", "object"]}),
]

Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"minLength": 1})]
Path = Annotated[Text, AfterValidator(check_path)]
Model = Annotated[Text, Checked(check_model, _pattern(MODEL_PATTERN))]
InitFrom = Annotated[Text, Checked(check_init_from, _pattern(INIT_PATTERN))]
Entrypoint = Annotated[
    Text,
    _matching(
        r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", "package.module:function", "write mine.train:main"
    ),
]
Fold = Annotated[
    Text,
    _matching(r"[1-9]\d*/[1-9]\d*", "a part of parts", 'write "1/5" for the first of five'),
    AfterValidator(_fold),
]
Dimension = Annotated[
    Any, AfterValidator(check_dimension), Field(json_schema_extra={"type": ["string", "array"]})
]
Device = Annotated[
    Text, _matching(r"auto|cpu|mps|cuda(?::\d+)?|\d+", "a device", "write auto, cpu, cuda, cuda:0, 0 or mps")
]
StoreUrl = Annotated[Text, Checked(check_store_url, _pattern(STORE_PATTERN))]
HttpUrl = Annotated[Text, Checked(check_http_url, _pattern(r"https?://\S+"))]
Region = Annotated[Text, _matching(r"[a-z]{2,}(?:-[a-z]+)+-\d+", "a region", "write for example us-east-1")]
InstanceType = Annotated[
    Text, _matching(r"[a-z0-9-]+\.[a-z0-9-]+", "an instance type", "write for example g4dn.xlarge")
]
Image = Annotated[
    Text,
    _matching(
        r"ami-[0-9a-f]{8}(?:[0-9a-f]{9})?|/[A-Za-z0-9_./-]+",
        "an image",
        "write ami-0123456789abcdef0, or the path of a public SSM parameter: /aws/service/...",
    ),
]
Subnet = Annotated[Text, _matching(r"subnet-[0-9a-f]{8,17}", "a subnet", "write subnet-0123456789abcdef0")]
ProfileName = Annotated[
    Text, _matching(r"[\w+=,.@-]{1,128}", "the name of an instance profile", "write its name, not its ARN")
]
RoleArn = Annotated[
    Text,
    _matching(
        r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+",
        "the ARN of a role",
        "write arn:aws:iam::123456789012:role/NAME",
    ),
]
Cidr = Annotated[Text, AfterValidator(check_cidr)]
RayAddress = Annotated[
    Text,
    _matching(
        r"auto|https?://\S+|(?:ray://)?(?:[\w.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}",
        "the address of a Ray cluster",
        "write auto, HOST:6379, ray://HOST:10001, or for its Jobs API https://HOST",
    ),
]
RayResources = Annotated[dict[Text, Number], AfterValidator(_ray_resources)]
Speed = Annotated[dict[str, Flag], AfterValidator(_speed)]

Distinct = Checked(_distinct, {"uniqueItems": True})
"""Metadata of a list: no element twice."""
NotEmpty = Checked(_not_empty, {"minItems": 1})
"""Metadata of a list: not empty."""
