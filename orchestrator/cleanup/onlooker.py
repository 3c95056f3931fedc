"""Finds the next step of a run without taking its lease."""

from collections.abc import Callable

from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.lifecycle.controllers import controller_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.next_step import next_step
from gpu_offload.orchestrator.run.record import RunRecord
from gpu_offload.orchestrator.run.step import Done, OpenAttempt, Step, Terminate, Wait
from gpu_offload.orchestrator.settings.load import Settings


class Onlooker(Lease):
    """A driver that takes no lease."""

    def claim(self, store: ObjectStore, run: str) -> str | None:
        """Return the live driver's name, if there is one."""
        return self.live_driver(store, run)


def would(step: Step) -> str:
    """Describe what performing a step would do."""
    match step:
        case Terminate(instances, reason):
            return f"would terminate {', '.join(instances)}: {reason}"
        case OpenAttempt(number, offer):
            return f"would open attempt {number}: {offer.name}"
        case Wait(_, reason):
            return f"would leave it: {reason}"
        case Done():
            return "nothing to do"
        case _:
            # The step's name is a verb in the imperative: CloseAttempt, Collect, Publish ...
            words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(step).__name__)
            return f"would{words}"


def look(
    settings: Settings,
    store: ObjectStore,
    run: RunRecord,
    console: Console,
    clock: Callable[[], float],
    max_wait: float,
) -> tuple[Step, str | None]:
    """Return a run's next step, and why a driver that waits at most `max_wait` seconds would leave the run before it."""
    controller = controller_of(
        settings,
        store,
        run,
        console,
        lease=Onlooker(clock=clock),
        detach=True,
        max_wait=max_wait,
        clock=clock,
    )
    try:
        observation = controller.observer.observe()
        step = next_step(controller.prices(run, observation), observation)
        return step, controller.reason_to_detach(step, observation)
    finally:
        if controller.cloud is not None:
            controller.cloud.close()
