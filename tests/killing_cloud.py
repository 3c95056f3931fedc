"""A simulated cloud that kills the process that calls it."""

import os
import signal

from gpu_offload.infra.simulator.call import CallDecision
from gpu_offload.infra.simulator.cloud import SimulatedCloud


class Killing(SimulatedCloud):
    """A simulated cloud that kills a driver when it asks for something, before or after that is done."""

    victim = None
    point = ("", "")
    done_first = False
    happened = False

    def before(self, call):
        operation, ending = self.point
        mine = self.identities.instance_of(call.access_key) is None
        if self.victim and mine and call.operation == operation and call.key.endswith(ending):
            victim, self.victim, self.happened = self.victim, None, True
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait(60)
            if not self.done_first:
                return CallDecision(drop=True)
        return super().before(call)
