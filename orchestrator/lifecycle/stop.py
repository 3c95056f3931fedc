"""`offload stop`: ends a run now, first its instances, found by tag."""

import time
from collections.abc import Callable, Sequence

from gpu_offload.infra.aws.ec2 import Ec2, Instance
from gpu_offload.infra.aws.errors import NoCredentialsError
from gpu_offload.infra.aws.tags import store_mark
from gpu_offload.infra.aws.termination import LIMIT_S, terminate_and_wait
from gpu_offload.infra.store.clock import clock_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.orchestrator.backends.ec2_instances import left_running
from gpu_offload.orchestrator.lifecycle.controllers import controller_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.backend import InstanceLeftError, InterruptedRunError
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.liveness import may_appear_until
from gpu_offload.orchestrator.run.observation import ObservedAttempt
from gpu_offload.orchestrator.run.record import RunRecord, StopRequest, run_key
from gpu_offload.orchestrator.settings.load import Settings

POLL_S = 1.0
OTHER_DRIVER_S = 60.0
"""How long another live driver may take to close the run, once its instances are gone."""


def stop_run(
    settings: Settings,
    store: ObjectStore,
    run: str,
    console: Console,
    *,
    reason: str = "stopped by hand",
) -> tuple[str, ...]:
    """Stop a run, over or not; return the instances that were terminated, found by tag in all configured regions.

    Raises InstanceLeftError: an instance would not terminate, or EC2 refused or could not be asked.
    """
    journal, clock = Journal(store), clock_of(store)
    unknown: JournalError | None = None
    try:
        record: RunRecord | None = journal.run(run)
    except JournalError as error:
        console.note(f"{error}; looking for its instances all the same")
        record, unknown = None, error
    # A record that this version cannot read can have a driver that can.
    exists = record is not None or store.stat(run_key(run, "run.json")) is not None
    if exists and (record is None or journal.outcome(run) is None):
        # Written before the attempts are read: a driver that is about to launch sees it, or is seen.
        journal.request_stop(run, StopRequest(at=clock(), reason=reason))
    rented = record is None or record.is_rented
    try:
        ended = _terminate(settings, store, record, run, console, clock) if rented else ()
    except NoCredentialsError:
        if unknown is not None:  # without an account there are no instances
            raise unknown from None
        raise
    if record is not None and journal.outcome(run) is None:
        _finish(settings, store, record, console, clock)
    return ended


def _regions(settings: Settings, record: RunRecord | None) -> list[str]:
    known = {c.offer.region for c in record.candidates if c.offer.region} if record else set()
    return sorted(known or set(settings.ec2.regions))


def _terminate(
    settings: Settings,
    store: ObjectStore,
    record: RunRecord | None,
    run: str,
    console: Console,
    clock: Callable[[], float],
) -> tuple[str, ...]:
    """Terminate by tag, in every region that the run may have been in, and wait until it is so."""
    mark = store_mark(settings.store_url, settings.store.endpoint_url)
    journal, is_noted = Journal(store), False

    def nothing_may_appear(found: Sequence[Instance]) -> bool:
        nonlocal is_noted
        if record is None:
            return True
        shown = {i.attempt for i in found}
        hidden = [a for a in _attempts(journal, run) if a.record.number not in shown]
        left = max((may_appear_until(a) for a in hidden), default=0.0) - clock()
        if left > 0 and not is_noted:
            is_noted = True
            console.note(
                f"run {run} may have launched an instance that EC2 does not show yet; looking for {left:.0f} s more"
            )
        return left <= 0

    asked: dict[str, Instance] = {}

    def announce(instance: Instance) -> None:
        asked[instance.id] = instance
        console.note(f"terminating {instance.id} in {instance.zone}")

    done = terminate_and_wait(
        {name: Ec2(name) for name in _regions(settings, record)},
        lambda instance: instance.store in {None, mark},  # runs of another store can have the same name
        run=run,
        until=nothing_may_appear,
        announce=announce,
        clock=clock,
    )
    denied = [error for error in done.refused.values() if isinstance(error, NoCredentialsError)]
    if record is None and denied:
        raise denied[0]
    if done.refused:
        raise InstanceLeftError(
            "\n".join(str(left_running(asked.get(name), error, run)) for name, error in done.refused.items())
        )
    if done.left:
        states = ", ".join(f"{what} is {state}" for what, state in done.left.items())
        raise InstanceLeftError(f"run {run}: after {LIMIT_S / 60:.0f} min {states}; see the EC2 console")
    return done.ended


def _attempts(journal: Journal, run: str) -> tuple[ObservedAttempt, ...]:
    try:
        return journal.attempts(run)
    except JournalError:
        return ()


def _finish(
    settings: Settings, store: ObjectStore, record: RunRecord, console: Console, clock: Callable[[], float]
) -> None:
    """Close the run, or let the driver do so that is at work on it."""
    controller = controller_of(settings, store, record, console, clock=clock)
    until = clock() + OTHER_DRIVER_S
    try:
        while clock() < until:
            other = controller.lease.claim(store, record.id)
            if other is None:
                controller.to_end()
                return
            if controller.journal.outcome(record.id) is not None:
                return
            time.sleep(POLL_S)
        console.note(f"{other} still drives run {record.id} and will close it")
    except InterruptedRunError as error:
        console.note(str(error))
