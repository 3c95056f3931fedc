"""Fires the one-time schedules that moto stores, whose target terminates instances."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from moto.scheduler.models import scheduler_backends

from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.stack_roles import StackRoles

TERMINATE = re.compile(r"arn:aws[\w-]*:scheduler:::aws-sdk:ec2:terminateInstances", re.IGNORECASE)
ONCE = re.compile(r"at\((.+)\)")


@dataclass
class ScheduleRunner:
    """Runs moto's schedules at their time."""

    account: str
    now: Callable[[], float]
    terminate: Callable[[str, list[str]], None]
    say: Callable[[str, str], None]
    roles: StackRoles | None = None
    _done: set[str] = field(default_factory=set)

    def names(self) -> tuple[str, ...]:
        """Every schedule that is there."""
        return tuple(sorted(schedule.name for _, _, schedule in self._all()))

    def fire(self) -> None:
        """Run every enabled schedule whose time has come, and remove those that say so."""
        for region, group, schedule in list(self._all()):
            due = due_time(schedule.schedule_expression, schedule.schedule_expression_timezone)
            # A schedule that is made again under the same name is another one.
            key = f"{schedule.arn}@{schedule.creation_date}"
            if schedule.state != "ENABLED" or due is None or due > self.now() or key in self._done:
                continue
            self._done.add(key)
            self.say(schedule.name, "fires")
            self._perform(region, schedule)
            if schedule.action_after_completion == "DELETE":
                group.schedules.pop(schedule.name, None)

    def _perform(self, region: str, schedule: Any) -> None:
        target = schedule.target
        if not TERMINATE.fullmatch(target.get("Arn", "")):
            self.say(schedule.name, f"target not simulated: {target.get('Arn')}")
            return
        try:
            ids = [str(name) for name in json.loads(target.get("Input") or "{}")["InstanceIds"]]
            form = {f"InstanceId.{number}": name for number, name in enumerate(ids, start=1)}
            # Without an access key: the scheduler acts by its role alone.
            call = Call("ec2", "TerminateInstances", region, "", form)
            if self.roles is not None and (no := self.roles.denied(str(target.get("RoleArn")), call)):
                self.say(schedule.name, f"its role is denied {no.action} on {no.resource}")
                return
            self.terminate(region, ids)
        except (KeyError, TypeError, ValueError) as error:
            self.say(schedule.name, f"its input does not say which instances: {error!r}")

    def _all(self) -> Iterator[tuple[str, Any, Any]]:
        if self.account not in scheduler_backends:
            return
        for region, backend in list(scheduler_backends[self.account].items()):
            for group in list(backend.schedule_groups.values()):
                for schedule in list(group.schedules.values()):
                    yield region, group, schedule


def due_time(expression: str, timezone: str | None) -> float | None:
    """Unix time of `at(2026-11-22T21:00:00)` in a time zone; None for rates and crons, which are not simulated."""
    if not (match := ONCE.fullmatch(expression.strip())):
        return None
    at = datetime.fromisoformat(match[1])
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone or "UTC"))).timestamp()
