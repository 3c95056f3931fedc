"""A fault is one line: what goes wrong, where, when, and how often.

    api:OPERATION:error=CODE | delay=SECONDS | lost-reply    [:zone= :region= :type= :who= :key= :times= :after= :for=]
    instance:reclaim[:notice=SECONDS | :no-notice]           [:zone= :region= :type= :times= :after= :attempt=]
    instance:power-loss | crash | slow-disk | full-disk      [the same]
    network:cut[:heal=SECONDS] | slow=RATE[:heal=SECONDS]    [the same]
    store:unreachable                                        [:for= :after=]
    token:expire                                             [:who=runner|instance|all :for= :after=]
    market:rise=FACTOR                                       [:zone= :region= :type= :for= :after=]

OPERATION is a name of the AWS API, or a pattern (`*`, `Describe*`, `s3.PutObject`). A duration is `10s`, `2m`,
`500ms` or a plain number of seconds; a rate is `1mbit`, `256kbit`. `after=` is a duration (since the launch of
the instance; since the injection for `api`, `store` and `token`), or `running`, `heartbeat`, `checkpoint`,
`epoch=N`, which are read from what the instance writes into the store. `times=` is how often: 1 by default
for instances and networks, without end for API calls.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gpu_offload.errors import OffloadError

Target = Literal["api", "instance", "network", "store", "token", "market"]

EFFECTS: dict[str, tuple[str, ...]] = {
    "api": ("error", "delay", "lost-reply"),
    "instance": ("reclaim", "power-loss", "crash", "slow-disk", "full-disk"),
    "network": ("cut", "slow"),
    "store": ("unreachable",),
    "token": ("expire",),
    "market": ("rise",),
}
VALUED = {"error", "delay", "slow", "rise"}
"""Effects that are written `effect=value`."""

_PLACE = ("zone", "region", "type", "times", "after")
OPTIONS: dict[str, tuple[str, ...]] = {
    "api": (*_PLACE, "who", "key", "for"),
    "instance": (*_PLACE, "attempt"),
    "network": (*_PLACE, "attempt", "heal"),
    "store": ("for", "after"),
    "token": ("who", "for", "after"),
    "market": ("zone", "region", "type", "for", "after"),
}
WHO = ("runner", "instance", "all")
MILESTONES = ("running", "heartbeat", "checkpoint")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_DURATION_UNIT = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)(k|m|g)?bit")
_RATE_UNIT = {None: 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


class FaultSyntaxError(OffloadError, ValueError):
    """One or more lines are not faults; the text says what is wrong with each."""


@dataclass(frozen=True, slots=True)
class When:
    """The moment a fault comes into force: so many seconds, or a milestone, after the launch or injection."""

    seconds: float = 0.0
    milestone: str | None = None
    """`running`, `heartbeat`, `checkpoint` or `epoch`."""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One line, parsed. Fields that the effect does not use keep their defaults."""

    target: Target
    effect: str
    operation: str = "*"
    code: str | None = None
    seconds: float | None = None
    """Length of a delay."""
    bits_per_second: float | None = None
    factor: float = 1.0
    """Factor of spot prices."""
    notice: float | None = None
    """Seconds between the metadata notice and the end; None takes the cloud's; 0 gives none."""
    after: When = When()
    lasts: float | None = None
    """Seconds until it is over (`for=`, `heal=`); None for ever."""
    times: int | None = None
    zone: str | None = None
    region: str | None = None
    instance_type: str | None = None
    attempt: int | None = None
    """The value of the instance's tag `gpu-offload:attempt`."""
    who: str | None = None
    """The owner of the calls or credentials: instances, or all other callers; None for `all` calls, for `runner` credentials."""
    key: str = "*"
    """Pattern of the object's key."""
    text: str = ""
    """The line it came from."""

    def __str__(self) -> str:
        return self.text or f"{self.target}:{self.effect}"


def seconds_of(text: str) -> float:
    """Parse a duration, in seconds. Raises ValueError."""
    if not (match := _DURATION.fullmatch(text)):
        raise ValueError(f"{text!r} is not a duration such as 10s, 2m or 500ms")
    return float(match[1]) * _DURATION_UNIT[match[2]]


def rate_of(text: str) -> float:
    """Parse a rate, in bits per second. Raises ValueError."""
    if not (match := _RATE.fullmatch(text)) or not float(match[1]):
        raise ValueError(f"{text!r} is not a rate such as 1mbit or 256kbit")
    return float(match[1]) * _RATE_UNIT[match[2]]


def factor_of(text: str) -> float:
    """Parse the factor of a rise of prices. Raises ValueError."""
    if not (re.fullmatch(r"\d+(?:\.\d+)?", text) and float(text)):
        raise ValueError(f"{text!r} is not a factor such as 1.5")
    return float(text)


def when_of(text: str) -> When:
    """Parse the value of `after=`. Raises ValueError."""
    if text in MILESTONES:
        return When(milestone=text)
    if text.startswith("epoch="):
        return When(milestone="epoch", epoch=_count(text.removeprefix("epoch=")))
    try:
        return When(seconds=seconds_of(text))
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a duration nor one of {', '.join(MILESTONES)}, epoch=N"
        ) from None


def parse(text: str) -> InjectedFault:
    """Read one line. Raises FaultSyntaxError, naming every mistake in it."""
    faults: list[str] = []
    target, _, rest = text.strip().partition(":")
    if target not in EFFECTS:
        raise FaultSyntaxError(f"{text!r}: starts with none of {', '.join(EFFECTS)}")
    words = rest.split(":") if rest else []
    fields: dict[str, object] = {"target": target, "text": text.strip()}
    if target == "api":
        fields["operation"] = words.pop(0) if words else ""
        if not re.fullmatch(r"[A-Za-z0-9*?.\-]+", str(fields["operation"])):
            faults.append("names no operation: api:OPERATION:EFFECT")
    effect, _, value = words.pop(0).partition("=") if words else ("", "", "")
    if effect not in EFFECTS[target]:
        faults.append(f"{effect!r} is none of the effects of {target}: {', '.join(EFFECTS[target])}")
    elif (effect in VALUED) != bool(value):
        faults.append(f"{effect} takes {'a value: ' + effect + '=...' if effect in VALUED else 'no value'}")
    elif value:
        _collect(faults, fields, effect, value)
    fields["effect"] = effect
    _options(target, effect, words, fields, faults)
    if faults:
        raise FaultSyntaxError(f"{text!r}: " + "; ".join(faults))
    # A fault of API calls hits every call, and an instance is hit once.
    if target in {"instance", "network"}:
        fields.setdefault("times", 1)
    return InjectedFault(**fields)  # type: ignore[arg-type]


def parse_all(lines: Iterable[str]) -> tuple[InjectedFault, ...]:
    """Read several lines. Raises FaultSyntaxError with the mistakes of all of them."""
    parsed: list[InjectedFault] = []
    wrong: list[str] = []
    for line in lines:
        try:
            parsed.append(parse(line))
        except FaultSyntaxError as error:
            wrong.append(str(error))
    if wrong:
        raise FaultSyntaxError("\n".join(wrong))
    return tuple(parsed)


def _options(
    target: str, effect: str, words: list[str], fields: dict[str, object], faults: list[str]
) -> None:
    """Read what follows the effect into `fields`, mistakes into `faults`."""
    seen: set[str] = set()
    for word in words:
        name, equals, value = word.partition("=")
        allowed = (*OPTIONS[target], *(("notice", "no-notice") if effect == "reclaim" else ()))
        if name not in allowed:
            faults.append(f"{name!r} is none of the options of {target}: {', '.join(allowed)}")
        elif name in seen:
            faults.append(f"{name} is given twice")
        elif name == "no-notice":
            fields["notice"] = 0.0
            if equals:
                faults.append("no-notice takes no value")
        elif not value:
            faults.append(f"{name} needs a value: {name}=...")
        else:
            _collect(faults, fields, name, value)
        seen.add(name)
    if {"notice", "no-notice"} <= seen:
        faults.append("notice and no-notice exclude each other")


def _who(text: str) -> str:
    if text not in WHO:
        raise ValueError(f"{text!r} is none of {', '.join(WHO)}")
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError(f"{text!r} is not a number from 1 on")
    return int(text)


_READERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "error": ("code", str),
    "delay": ("seconds", seconds_of),
    "slow": ("bits_per_second", rate_of),
    "rise": ("factor", factor_of),
    "notice": ("notice", seconds_of),
    "after": ("after", when_of),
    "for": ("lasts", seconds_of),
    "heal": ("lasts", seconds_of),
    "zone": ("zone", str),
    "key": ("key", str),
    "region": ("region", str),
    "type": ("instance_type", str),
    "times": ("times", _count),
    "attempt": ("attempt", _count),
    "who": ("who", _who),
}


def _collect(faults: list[str], fields: dict[str, object], name: str, value: str) -> None:
    """Read one `name=value` into `fields`, or its mistake into `faults`."""
    field, read = _READERS[name]
    try:
        fields[field] = read(value)
    except ValueError as error:
        faults.append(f"{name}: {error}")
