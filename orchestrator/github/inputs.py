"""The action's inputs, as the environment brings them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from gpu_offload.errors import UsageError

PREFIX = "GPU_OFFLOAD_INPUT_"

Command = Literal["plan", "train", "pack", "keep", "find-revert", "rollback", "stop", "tend"]
COMMANDS: tuple[str, ...] = get_args(Command)

SHORTHANDS = {
    "instance-type": "ec2.instance-types",
    "market": "ec2.market",
    "max-cost-usd": "limits.max-cost-usd",
    "deadline": "limits.deadline",
}
"""Inputs that override a setting: the form in which a person starts a workflow."""

_CALIBRATE = {"auto": None, "true": True, "false": False}

INSTALLED = "GPU_OFFLOAD_INSTALLED_S"
"""Not an input: how long the action's own installation took, in seconds; empty where it installed nothing."""


class InputsError(UsageError):
    """Inputs are missing or invalid; the text names all of them."""


@dataclass(frozen=True, slots=True)
class WorkflowInputs:
    """What a workflow asks for."""

    command: Command
    directory: Path = Path()
    config: Path | None = None
    settings: tuple[str, ...] = ()
    """Overrides, `SECTION.KEY=VALUE`."""
    on: Literal["auto", "cpu", "ec2"] = "auto"
    calibrate: bool | None = None
    measured_later: bool = False
    may_rent: bool = True
    launched_later: bool = False
    detach: bool = False
    run: str = ""
    training_key: str = ""
    role: str = ""
    reason: str = ""
    because: str = ""
    """The plan's reason, where an earlier job decided."""
    packed: Path = Path()
    """The folder that `pack` wrote."""
    to: str = ""
    withdraw: str = ""
    """The versions that `find-revert` found to be reverted, the newest first, with a space between them."""
    token: str = field(default="", repr=False)
    python: str = ""
    """An environment that holds the software already: nothing is installed."""
    installed_s: float = 0.0
    """Seconds that the action has spent on installing what this command needs."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "WorkflowInputs":
        """Read the inputs. Raises InputsError with all that is wrong."""

        def given(name: str) -> str:
            return environment.get(PREFIX + name.upper().replace("-", "_"), "").strip()

        faults = []

        def one_of(name: str, known: tuple[str, ...], default: str) -> str:
            value = given(name) or default
            if value not in known:
                faults.append(f"{name} is {value!r}, not one of {', '.join(known)}")
            return value

        command = one_of("command", COMMANDS, "plan")
        on = one_of("on", ("auto", "cpu", "ec2"), "auto")
        calibrate = one_of("calibrate", ("auto", "true", "false"), "auto")
        others: dict[str, Any] = {}
        for each in fields(cls):
            name = each.name.replace("_", "-")
            if each.type is bool:
                others[each.name] = one_of(name, ("true", "false"), str(each.default).lower()) == "true"
            elif each.type is str:
                others[each.name] = given(name)
        if faults:
            raise InputsError("the action's inputs: " + "; ".join(faults))
        settings = [line.strip() for line in given("set").splitlines() if line.strip()]
        for name, setting in SHORTHANDS.items():
            value = given(name)
            if value and value != "auto":
                # As JSON, because a quote in the input would end the text and begin a setting of its own.
                settings.append(f"{setting}={json.dumps([value]) if name == 'instance-type' else value}")
        return cls(
            command=cast("Command", command),
            directory=Path(given("directory") or "."),
            config=Path(given("config")) if given("config") else None,
            settings=tuple(settings),
            on=cast("Literal['auto', 'cpu', 'ec2']", on),
            calibrate=_CALIBRATE[calibrate],
            packed=Path(given("packed") or "."),
            installed_s=float(environment.get(INSTALLED) or 0),
            **others,
        )
