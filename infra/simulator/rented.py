"""An instance of the simulated cloud: moto's record with states that we set, its host and its market."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.instances import Instance, InstanceState
from moto.ec2.responses._base_response import EC2BaseResponse

from gpu_offload.infra.simulator.call import Call
from gpu_offload.infra.simulator.host import Machine

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopped": 80}
RUN_TAG, ATTEMPT_TAG = "gpu-offload:run", "gpu-offload:attempt"

USER = "Client.UserInitiatedShutdown", "User initiated shutdown"
ITSELF = "Client.InstanceInitiatedShutdown", "Instance initiated shutdown"
RECLAIMED = "Server.SpotInstanceTermination", "Spot instance termination"


class _State(InstanceState):  # type: ignore[misc]  # moto is not typed
    """A state that we have set."""

    def __init__(self, name: str) -> None:
        super().__init__(name, STATES[name])


def _show_state(state: Any) -> Any:
    """The state in RunInstances' reply: moto always says `pending`, also for a repeated launch."""
    return state if isinstance(state, _State) else {"Code": 0, "Name": "pending"}


# moto's serializer asks this function for the value at this place of the reply.
EC2BaseResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER["RunInstances.Reservation.Instances.Instance.State"] = (
    _show_state
)


class HonestInstance(Instance):  # type: ignore[misc]  # moto is not typed
    """moto's instance, with a status check that fails when its host is dead, and a spot request."""

    impaired = False
    spot_instance_request_id: str | None = None

    @property
    def system_status(self) -> dict[str, Any]:
        """See moto."""
        return self._status(super().system_status)

    @property
    def instance_status(self) -> dict[str, Any]:
        """See moto."""
        return self._status(super().instance_status)

    def _status(self, status: dict[str, Any]) -> dict[str, Any]:
        if not self.impaired or self.state != "running":
            return status
        return {"Status": "impaired", "Details": [{"Name": "reachability", "Status": "failed"}]}


@dataclass(slots=True)
class Rented:
    """A launched instance."""

    instance: Any
    region: str
    launched: float
    """Unix time, seconds."""
    user_data: bytes
    born_in: Call
    """The call that launched it, and sees it at once."""
    host: Machine
    role: str | None
    unseen: int
    """Number of further calls that do not see it."""
    missed_by: object = None
    """The last call that did not see it. The object itself, because ids of objects are used again."""
    visible_at: float = 0.0
    """Monotonic seconds."""
    console: str = ""
    credentials: dict[str, str] | None = None
    credentials_end: float = 0.0
    reclaim_at: float | None = None
    rebalance_at: float | None = None

    @property
    def id(self) -> str:
        """Its id at EC2."""
        return str(self.instance.id)

    @property
    def spot(self) -> bool:
        """Whether AWS may take it back."""
        return bool(self.instance.lifecycle == "spot")

    @property
    def max_price(self) -> float | None:
        """USD/h above which AWS takes a spot instance back; None where the launch named no price."""
        named = self.born_in.parameters.get("InstanceMarketOptions.SpotOptions.MaxPrice")
        return float(named) if self.spot and named else None

    @property
    def state(self) -> str:
        """EC2's name of its state."""
        return str(self.instance.state)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return {str(tag["key"]): str(tag["value"]) for tag in self.instance.get_tags()}

    def impair(self) -> None:
        """Let its status checks fail from now on; the state stays `running`, and so does the bill."""
        self.instance.impaired = True

    def become(self, name: str, at: float, code: str = "", message: str = "") -> None:
        """Change the state at `at` (Unix seconds), for one of EC2's reasons."""
        self.instance._state = _State(name)  # noqa: SLF001  moto has no other way in
        self.instance.state_reason.code = code or ("pending" if name == "pending" else "")
        self.instance.state_reason.message = f"{code}: {message}" if code else name
        if code and name in {"shutting-down", "stopped"}:
            # EC2 gives the time of a transition in this form only.
            who = "User" if code.startswith("Client") else "Service"
            when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
            self.instance._reason = f"{who} initiated ({when})"  # noqa: SLF001  the same
            self.instance.reason_when_ended = self.instance._reason  # noqa: SLF001  the same
        elif name == "terminated":
            self.instance._reason = self.instance.reason_when_ended  # noqa: SLF001  the same
