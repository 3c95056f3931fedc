"""How a driver waits: for another driver, for what an instance says, or for time to pass."""

from collections.abc import Callable
from dataclasses import dataclass

from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.attempts import Attempts
from gpu_offload.orchestrator.run.bystander import Bystander
from gpu_offload.orchestrator.run.closing import ENDING_POLL_S
from gpu_offload.orchestrator.run.next_step import LONGEST_WAIT_S
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.step import Wait


@dataclass
class Waiting:
    """Waits for one driver of a run, and says for what; the same reason is said once."""

    run: RunRecord
    attempts: Attempts
    bystander: Bystander
    console: Console
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    _said: str = ""

    def wait(self, wait: Wait, observation: Observation) -> None:
        """Wait as a step asks; follow the instance or the other driver meanwhile."""
        if observation.driver is not None and observation.outcome is None:
            self.bystander.look(observation.driver)
            self.sleep(wait.seconds)
            return
        current, cloud = observation.current, self.attempts.cloud
        if wait.follows and cloud is not None and current is not None:
            began = self.clock()
            ended = cloud.follow(self.run, current, wait.seconds)
            if ended is not None:
                self.attempts.close(current.record.number, *ended)
            elif self.clock() - began < ENDING_POLL_S:
                self.sleep(ENDING_POLL_S)  # it has nothing to follow, and the heartbeat does not say so
            return
        # Logged once, so that a long wait is not silent but its checks are.
        tell = self.console.detail if wait.reason == self._said or wait.seconds < 30 else self.console.note
        self._said = wait.reason
        tell(f"waiting: {wait.reason}")
        self.sleep(min(wait.seconds, LONGEST_WAIT_S))
