"""What every run promises, checked at the end of a crash case."""

import re
from collections import Counter

from crash_scenario import RUN, STALL_S, VERSION, model_of, sha_of
from crash_world import World

from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import STABLE, model_key
from gpu_offload.orchestrator.run.attempt_use import ended_of
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.refusals import REFUSAL_LASTS_S


def broken_promises(world: World, *, status: str | None = "published") -> list[str]:
    """Return which promises a case broke, once its last driver has ended.

    Args:
        world: After `play`.
        status: How the run had to end; None where several ends are right.
    """
    scenario, store, journal = world.scenario, world.store, Journal(world.store)
    documents = journal.read(RUN)
    broken = []

    alive = [m.id for m in world.machines if m.lives(world.now)]
    if alive:
        broken.append(f"leak: {alive} still run when all drivers have ended")
    for machine in world.machines:
        end = machine.stopping_at if machine.stopping_at is not None else world.now
        gap = _without_driver(world)
        if end > machine.expires_at + 30 + gap:
            broken.append(f"leak: {machine.id} ran {end - machine.expires_at:.0f} s past its end")
    for attempt in documents.attempts:
        here = attempt.record.offer.where == "cpu" and attempt.end is not None
        if (
            here
            and attempt.end.at > attempt.record.expires_at + 90 + _without_driver(world)
            and not world.stalls
        ):
            broken.append("time: a training on the CPU ran past its deadline")
    if world.groups:
        broken.append(f"leftovers: {sorted(world.groups)}")

    if documents.outcome is None:
        broken.append("open: the run has no outcome")
    elif status is not None and documents.outcome.status != status:
        broken.append(
            f"outcome: {documents.outcome.status} ({documents.outcome.message}), it had to be {status}"
        )
    if any(a.end is None for a in documents.attempts):
        broken.append("open: an attempt was never closed")
    if not world.settled:
        broken.append("cost: the run was never settled")

    status = status or (documents.outcome.status if documents.outcome else None)
    manifest = publish.manifest_of(store, VERSION)
    times = store.written[model_key(VERSION, "manifest.json")]
    listed = [e.version for e in publish.versions(store)]
    if status == "published":
        if times != 1 or listed != [VERSION]:
            broken.append(f"publish: the manifest was written {times} times, and the index lists {listed}")
        if documents.collected is None:
            broken.append("publish: what was published was never verified")
        if world.rented_while_publishing and not world.stalls:
            broken.append("cost: an instance was kept while the model was published")
        alias = publish.alias_of(store, STABLE)
        if alias is None or alias.version != VERSION:
            broken.append("publish: stable does not mean the version")
    elif times:
        broken.append("publish: a run that was not to publish did")
    if manifest is not None:
        body = store.objects.get(model_key(VERSION), (b"", "", 0))[0]
        if sha_of(body) != manifest.model.sha256:
            broken.append("publish: the published model is not the one its manifest names")
        if not any(sha_of(model_of(n)) == manifest.model.sha256 for n in range(1, 20)):
            broken.append("publish: no training made the published model")

    interruptions = max(0, world.trainings - 1) + world.stalls
    again = sum(world.epochs_begun.values()) - scenario.epochs
    if again > interruptions + world.lost_uploads:
        broken.append(f"lost: {again} epochs were begun again after {interruptions} interruptions")

    if not world.stalls and world.most_alive > 1:
        broken.append(f"surplus: {world.most_alive} instances lived at once")
    reasons = Counter(a.end.reason for a in documents.attempts if a.end is not None)
    lives = world.deaths + world.stalls + reasons["reclaimed"] + len(scenario.silent) + bool(scenario.mute_s)
    lives += len(scenario.outsider)
    lives += (
        reasons["overrun"]
        + reasons["moved"]
        + reasons["expired"]
        + world.denials
        + bool(scenario.dies_at)
        + bool(scenario.dies_at and scenario.deaf)  # an epoch that the store missed counts as progress later
        + 2 * bool(scenario.crowded)
    )
    # A crowded quota is asked for again every 20 minutes; two of these are in `lives`.
    asked_again = sum(max(0, int(until // REFUSAL_LASTS_S) - 1) for until in scenario.crowded.values())
    refusals = asked_again + sum(scenario.refused.values()) + len(scenario.quota)
    if len(documents.attempts) > 1 + lives + refusals:
        broken.append(f"attempts: {len(documents.attempts)}")
    if len(world.machines) > 1 + lives:
        broken.append(f"surplus: {len(world.machines)} instances for {lives} deaths and reclaims")

    alike = Counter()
    best = 0
    for a in documents.attempts:
        epochs = a.heartbeat.epochs_completed if a.heartbeat is not None else 0
        if epochs > best:
            alike, best = Counter(), epochs
        if a.end is not None and a.end.reason in {"died", "failed", "expired"} and a.host is not None:
            alike[a.end.reason, a.heartbeat is None or re.sub(r"\d+", "", a.end.message)] += 1
    if any(n > 2 for n in alike.values()):
        broken.append(f"repeats: {dict(alike)} without progress")

    real = sum(
        (m.stopping_at if m.stopping_at is not None else world.now) - m.launched_at for m in world.machines
    )
    booked = {a.host.instance_id: a for a in documents.attempts if a.host is not None}
    unbooked = [m.id for m in world.machines if m.id not in booked]
    if unbooked and not world.stalls:
        broken.append(f"cost: {unbooked} are in no account")
    accounted = sum(ended_of(a, world.now)[0] - a.host.launched_at for a in documents.attempts if a.host)
    usd = sum(
        ((m.stopping_at or world.now) - m.launched_at) / 3600 * m.offer.usd_per_hour
        for m in world.machines
        if not (m.reclaimed and m.stopping_at - m.launched_at < 3600)
    )
    if not world.stalls and usd > scenario.max_cost_usd * 1.01 + _without_driver(world) / 3600:
        broken.append(f"money: ${usd:.2f} of ${scenario.max_cost_usd:.2f} were spent")
    if not world.stalls and accounted < real - 5:
        broken.append(f"cost: {accounted:.0f} of {real:.0f} seconds were accounted for")
    return broken


def _without_driver(world: World) -> float:
    """Return how long no driver may have looked; then only the dead-man timer could end an instance."""
    if world.scenario.dead_man:
        return 0.0
    gaps = world.scenario.restart_s * world.deaths + STALL_S * 2 * world.stalls
    return gaps + (3600 if world.scenario.detach else 0)
