"""Lengths of time as people write them: `90m`, `1h30m`, `2d`."""

import re
from datetime import timedelta

from gpu_offload.orchestrator.settings.fault import wrong

DURATION_PATTERN = r"^(?=.)(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"
"""Days, hours, minutes, seconds: each at most once, in this order, at least one."""

LONGEST = timedelta(days=30)
"""The longest duration of a setting: a longer one is likely a typing error."""

_SECONDS = (86400, 3600, 60, 1)


def parse_duration(text: str) -> timedelta:
    """Read a length of time such as `6h`, `1h30m` or `2d`. Raises ValueError: it is not one, or too long to count."""
    match = re.fullmatch(DURATION_PATTERN, text, flags=re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a length of time such as 1h30m")
    try:
        return timedelta(
            seconds=sum(
                int(part[:-1]) * unit for part, unit in zip(match.groups(), _SECONDS, strict=True) if part
            )
        )
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{text[:20]}... is longer than any clock can count") from error


def format_duration(length: timedelta) -> str:
    """Write a length of time, rounded down to seconds, as `parse_duration` reads it: `1h30m`, `0s`."""
    rest = length // timedelta(seconds=1)
    parts = []
    for unit, name in zip(_SECONDS, "dhms", strict=True):
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def check_duration(value: object) -> timedelta:
    """Validate a duration of a setting. Raises PydanticCustomError with a remedy."""
    if isinstance(value, str):
        try:
            value = parse_duration(value.strip())
        except ValueError as error:
            raise wrong(str(error), "write 6h") from None
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
