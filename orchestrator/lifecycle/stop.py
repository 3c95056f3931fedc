"""`offload stop`: end a run now; its instances first, found by tag."""

import time
from collections.abc import Callable

from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.aws.termination import LIMIT_S, terminate_and_wait
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.lifecycle.controllers import controller_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import InstanceLeftError, InterruptedRunError
from gpu_offload.orchestrator.run.journal import Journal, JournalError
from gpu_offload.orchestrator.run.record import RunRecord, StopRequest
from gpu_offload.orchestrator.settings.load import Settings

POLL_S = 1.0
OTHER_DRIVER_S = 60.0
"""How long a live driver is given to end its run by itself, once its instances are gone."""


def stop_run(
    settings: Settings,
    store: ObjectStore,
    run: str,
    console: Console,
    *,
    reason: str = "stopped by hand",
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> tuple[str, ...]:
    """Stop a run; return the instances that were terminated. Harmless for a run that is over.

    Args:
        settings: The configuration; its regions are searched, too.
        store: Where the run's journal is.
        run: The run's id; its instances are found even where the journal has none of it.
        console: Where to tell what goes on.
        reason: For the journal.
        sleep: Waits that many seconds.
        clock: Unix seconds.

    Raises:
        InstanceLeftError: an instance would not terminate.
        CloudError: EC2 could not be asked: run it again with good credentials.
    """
    journal = Journal(store)
    try:
        record: RunRecord | None = journal.run(run)
    except JournalError as error:
        console.note(f"{error}; looking for its instances all the same")
        record = None
    if record is not None and journal.outcome(run) is None:
        journal.request_stop(run, StopRequest(at=clock(), reason=reason))
    rented = record is None or record.is_rented
    ended = _terminate(settings, record, run, console, sleep, clock) if rented else ()
    if record is not None and journal.outcome(run) is None:
        _finish(settings, store, record, console, sleep, clock)
    return ended


def _regions(settings: Settings, record: RunRecord | None) -> list[str]:
    known = {c.offer.region for c in record.candidates if c.offer.region} if record else set()
    return sorted(known or set(settings.ec2.regions))


def _terminate(
    settings: Settings,
    record: RunRecord | None,
    run: str,
    console: Console,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> tuple[str, ...]:
    """Terminate by tag, in every region that the run may have been in, and wait until it is so."""
    mark = store_mark(settings.store_url, settings.store.endpoint_url)
    done = terminate_and_wait(
        {name: Ec2(name) for name in _regions(settings, record)},
        lambda instance: instance.store in {None, mark},
        run=run,
        announce=lambda instance: console.note(f"terminating {instance.id} in {instance.zone}"),
        sleep=sleep,
        clock=clock,
    )
    for error in done.refused.values():
        raise error
    if done.left:
        states = ", ".join(f"{what} is {state}" for what, state in done.left.items())
        raise InstanceLeftError(f"run {run}: after {LIMIT_S / 60:.0f} min {states}; see the EC2 console")
    return done.ended


def _finish(
    settings: Settings,
    store: ObjectStore,
    record: RunRecord,
    console: Console,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    """Close the journal, or let the driver do it that is at work."""
    controller = controller_of(settings, store, record, console)
    until = clock() + OTHER_DRIVER_S
    try:
        while clock() < until:
            other = controller.lease.claim(store, record.id)
            if other is None:
                controller.to_end()
                return
            if controller.journal.outcome(record.id) is not None:
                return
            sleep(POLL_S)
        console.note(f"{other} still drives run {record.id} and will close it")
    except InterruptedRunError as error:
        console.note(str(error))
