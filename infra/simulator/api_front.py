"""Handles each API call of a simulated cloud: counts it, applies faults, answers what moto does not."""

import base64
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field

from moto.s3.models import s3_backends

from gpu_offload.infra.simulator.admission import offerings, vcpus
from gpu_offload.infra.simulator.behaviour import Behaviour, EventLog, Leftovers
from gpu_offload.infra.simulator.call import Call, CallDecision, Reply, error_reply, json_reply, xml_reply
from gpu_offload.infra.simulator.catalogue import products, quotas, spot_price_history
from gpu_offload.infra.simulator.compute import Compute
from gpu_offload.infra.simulator.fault import FaultSyntaxError
from gpu_offload.infra.simulator.fault_book import of_run
from gpu_offload.infra.simulator.fault_injection import FaultInjection
from gpu_offload.infra.simulator.identity import Identities
from gpu_offload.infra.simulator.moto_ec2 import MotoEc2

HEARTBEAT = re.compile(r"(?:^|/)runs/([^/]+)/attempts/([^/]+)/heartbeat\.json$")
CHECKPOINT = re.compile(r"(?:^|/)runs/([^/]+)/checkpoint/manifest\.json$")
ACCESS_KEY = re.compile(rb"<AccessKeyId>([^<]+)</AccessKeyId>")
SELF_SERVED = {"DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "DescribeRegions"}
"""Slow EC2 calls that only read tables, so that they need no lock."""


@dataclass
class ApiFront:
    """Decides about each call before moto handles it. Called from any thread."""

    behaviour: Behaviour
    compute: Compute
    ec2: MotoEc2
    identities: Identities
    faults: FaultInjection
    log: EventLog
    now: Callable[[], float]
    leftovers: Callable[[], Leftovers]
    first: Callable[[Call], CallDecision | None]
    calls: Counter[str] = field(default_factory=Counter)
    runner_calls: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)
    """Once set, every call is dropped."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, call: Call) -> CallDecision:
        """Decide about a call before moto sees it; `first` is asked first."""
        return self.first(call) or self._decide(call)

    def _decide(self, call: Call) -> CallDecision:
        name = f"{call.service}.{call.operation}"
        instance = self.identities.instance_of(call.access_key)
        with self._lock:
            self.calls[name] += 1
            if instance is None:
                self.runner_calls[name] += 1
        # As on a cut network, a call gets no answer until it is healed.
        while self.faults.is_cut(instance) and not self.stopped.wait(0.05):
            pass
        if self.stopped.is_set():
            return CallDecision(drop=True)
        lose = False
        zone = self.ec2.zone_of(call) if call.operation == "RunInstances" else None
        for fault in self.faults.book.of_call(call, zone, "runner" if instance is None else "instance"):
            self.log.say("fault", name, str(fault))
            match fault.effect:
                case "delay":
                    self.stopped.wait(fault.seconds or 0.0)
                case "unreachable":
                    return CallDecision(drop=True)
                case "error":
                    code = fault.code or "InternalError"
                    return CallDecision(error_reply(call, code, f"injected fault: {fault}"), lose=lose)
                case "lost-reply":
                    lose = True
        if refusal := self.identities.check(call):
            return CallDecision(error_reply(call, *refusal), lose=lose)
        return CallDecision(self._own_answer(call), lose=lose)

    def during(self, call: Call) -> AbstractContextManager[None]:
        """Return what holds while moto handles a call."""
        if call.service in {"ec2", "ssm"}:
            self.ec2.region(call.region)
        if call.service not in {"ec2", "scheduler"} or call.operation in SELF_SERVED:
            return nullcontext()
        return self.ec2.during(call)

    def after(self, call: Call, status: int, body: bytes) -> None:
        """Note the role of a new session, and the milestones of a run in an object that was written."""
        if call.operation.startswith("AssumeRole") and (key := ACCESS_KEY.search(body)):
            self.identities.assumed(key[1].decode(), str(call.parameters.get("RoleArn", "")))
        if (
            call.service != "s3"
            or call.operation not in {"PutObject", "CompleteMultipartUpload"}
            or status >= 300
        ):
            return
        if not (found := HEARTBEAT.search(call.key) or CHECKPOINT.search(call.key)):
            return
        run, attempt = found[1], found[2] if found.lastindex == 2 else None
        one = of_run(self.compute.living(), run, attempt)
        if one is None:
            return
        self.faults.book.reached(one, "heartbeat" if attempt is not None else "checkpoint")
        # From moto, because the body of an upload in parts is not in this call.
        try:
            backend = s3_backends[self.compute.account]["aws"]
            document = json.loads(backend.get_object(call.bucket, call.key).value)
            epoch = int(document.get("epochs_completed") or 0)
        except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
            return
        # An instance wrote the document: the number may be any.
        for number in range(1, min(epoch, 10_000) + 1):
            self.faults.book.reached(one, "epoch", number)

    def control(self, method: str, path: str, body: bytes) -> Reply:
        """Answer another process: `GET state`, and `POST fault` with a line."""
        match method, path.removeprefix("/_simulator/"):
            case "GET", "state":
                return json_reply(
                    asdict(self.leftovers())
                    | {
                        "calls": dict(self.calls),
                        "runner_calls": dict(self.runner_calls),
                        "events": [[e.time, e.kind, e.subject, e.text] for e in self.log.all()],
                    }
                )
            case "POST", "fault":
                try:
                    self.faults.inject(body.decode().strip())
                except (FaultSyntaxError, UnicodeDecodeError) as error:
                    return json_reply({"error": str(error)}, 400)
                return json_reply({})
        return json_reply({"error": f"no such thing: {method} {path}"}, 404)

    def _own_answer(self, call: Call) -> Reply | None:
        """Answer what moto does not."""
        match call.service, call.operation:
            case "ec2", "DescribeSpotPriceHistory":
                return spot_price_history(call, self.compute.market, self.now(), offerings)
            case "ec2", "GetConsoleOutput":
                return self._console_output(call)
            case "servicequotas", _:
                return quotas(call, self.behaviour)
            case "pricing", _:
                return products(call, vcpus)
        return None

    def _console_output(self, call: Call) -> Reply:
        name = str(call.parameters.get("InstanceId"))
        try:
            text = self.compute.console(name)
        except KeyError:
            return error_reply(call, "InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        output = base64.b64encode(text.encode()).decode()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        return xml_reply(
            '<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>0</requestId>'
            f"<instanceId>{name}</instanceId><timestamp>{stamp}</timestamp><output>{output}</output>"
            "</GetConsoleOutputResponse>"
        )
