"""The outcome of a run in one sentence and three rows, the same in every rendering."""

from gpu_offload.orchestrator.cost.prices import expected_cost
from gpu_offload.orchestrator.output.metrics import is_share, named
from gpu_offload.orchestrator.output.units import human_cost, human_duration, human_money, human_number
from gpu_offload.orchestrator.registry.semver import promotion_hint
from gpu_offload.orchestrator.report.content import Before, Report
from gpu_offload.orchestrator.report.rows import Rows, expected_time, is_inside
from gpu_offload.orchestrator.run.activity import idle_text
from gpu_offload.orchestrator.run.pace import traffic_of
from gpu_offload.remote_job.result import LEARNT_NOTHING

WORTH_A_WORD_S = 5.0
"""Seconds outside of an estimate that need no explanation."""


def headline(
    report: Report,
    before: Before | None = None,
    *,
    moved: bool = False,
    interrupted: bool = False,
    leaving: bool = False,
) -> str:
    """Say in one line how a run went: outcome, time, place, money, quality against `before`, version.

    `moved`: it has just become stable. `interrupted`: the same command would continue it. `leaving`: it moves
    from the runner to an instance.
    """
    time, where = human_duration(report.seconds), place(report)
    spent = f"{time} on {where}, {money(report)}"
    if report.status == "published":
        quality = quality_text(report, before)
        return f"Trained in {spent}. {f'{quality}. ' if quality else ''}{_standing(report, moved=moved)}"
    done, of = epochs(report)
    reached = f"after epoch {done} of {of}, " if done else "after "
    if leaving:
        return f"Moves to an instance {reached}{spent}"
    if interrupted or report.is_idle:
        return f"Interrupted {reached}{spent}"
    if report.status == "open":
        return f"Training: epoch {done} of {of}, {spent} so far"
    return f"{'Stopped' if report.status == 'stopped' else 'Not trained: failed'} {reached}{spent}"


def _standing(report: Report, *, moved: bool) -> str:
    if report.yanked is not None:
        return f"{report.name} was yanked"
    if report.candidate:
        return f"Candidate {report.name}, not stable"
    return f"Stable is now {report.name}" if moved else f"Version {report.name}"


def glance_rows(report: Report, before: Before | None = None) -> Rows:
    """Time, cost and quality, expected and actual."""
    rows: Rows = [
        ("", "expected", "actual"),
        ("time", expected_time(report.run.estimate), human_duration(report.seconds)),
        ("cost", expected_money(report), money(report)),
    ]
    done, of = epochs(report)
    if report.status != "published":
        rows.append(("epochs", f"of {of}", str(done)))
    if (quality := _quality(report, before)) is not None:
        name, value, old = quality
        rows.append((name, f"{old} before" if old else "first version", value))
    return rows


def explained(report: Report) -> str:
    """Say why a run ended without a version, what an open one waits for, or what is wrong with its version; else empty."""
    if report.is_idle:
        text = idle_text(report.run.id)
        return f"{text[0].upper()}{text[1:]}."
    if report.outcome is not None and report.status != "published":
        return f"Why: {report.outcome.message}" if report.outcome.message else ""
    begin, *causes = likely_causes(report)
    parts = [f"{begin} {'; '.join(causes)}." if causes else begin]
    if report.yanked is not None:
        parts.insert(0, f"Yanked: {report.yanked}.")
    elif report.candidate:
        parts.insert(0, f"Not stable: {report.candidate}. {promotion_hint(report.name)}.")
    return " ".join(part for part in parts if part)


def likely_causes(report: Report) -> tuple[str, ...]:
    """Return a sentence if the model finds next to nothing, then its likely causes; an empty first text if it finds things."""
    causes = report.result.causes if report.result else ()
    name, best = next(iter(report.metrics.items()), ("", 1.0))
    if causes:
        return ("It finds next to nothing. Likely causes:", *causes)
    nothing = is_share(name) and best < LEARNT_NOTHING
    return ("It has learnt next to nothing: train longer, or look at the labels." if nothing else "",)


def tiles(report: Report, before: Before | None = None) -> list[tuple[str, str, str]]:
    """Return the four facts that a reader looks for first: name, value, and what to compare it with."""
    words = {"published": "Trained", "open": "Training", "stopped": "Stopped", "failed": "Not trained"}
    # An open run at which nothing works is not training.
    words |= {"open": "Interrupted"} if report.is_idle else {}
    rows = glance_rows(report, before)[1:]
    facts = [(name, actual, expected) for name, expected, actual in rows]
    shown = [
        (name, value, f"expected {note}" if note and name in {"time", "cost"} else note)
        for name, value, note in facts
    ]
    outcome = ("outcome", words.get(report.status, report.status), f"on {place(report)}")
    return [outcome, *shown[:2], shown[-1]] if len(shown) > 2 else [outcome, *shown]


def quality_text(report: Report, before: Before | None) -> str:
    """Return the main metric, and what it was before: `mAP50 0.371 (was 0.310)`."""
    if (quality := _quality(report, before)) is None:
        return ""
    name, value, old = quality
    return f"{name} {value}{f' (was {old})' if old else ''}"


def _quality(report: Report, before: Before | None) -> tuple[str, str, str] | None:
    """Return name and value of the main metric, and its value before, empty for none; None without a metric."""
    before = before or report.before
    best = next(iter(report.metrics.items()), None)
    if best is None:
        return None
    old = named(before.metrics).get(best[0]) if before else None
    return best[0], human_number(best[1]), "" if old is None else human_number(old)


def place(report: Report) -> str:
    """Return where the last attempt trained."""
    if not report.attempts:
        return "no machine"
    offer = report.attempts[-1].record.offer
    if offer.where == "cpu":
        return "the GitHub runner" if report.run.repository else "this CPU"
    if offer.where == "ray":
        return offer.name
    return " ".join(word for word in (offer.instance_type, offer.market) if word)


def money(report: Report) -> str:
    """Return what the run cost."""
    return human_cost(report.bill.total, " ".join(a.record.offer.where for a in report.attempts))


def expected_money(report: Report) -> str:
    """Return the plan's estimate of the cost on the chosen offer."""
    chosen = next(iter(report.run.candidates), None)
    if chosen is None:
        return ""
    if not chosen.offer.usd_per_hour:
        return "free"
    run = report.run
    traffic = traffic_of(run, None).usd(chosen.offer.region, run.spec.epochs)
    likely, high = expected_cost(chosen.offer, run.estimate, volume_gib=run.volume_gib, traffic_usd=traffic)
    return f"{human_money(likely)} (at most {human_money(high)})"


def epochs(report: Report) -> tuple[int, int]:
    """Return the epochs done and wanted."""
    done = max((a.epochs_completed for a in report.attempts), default=0)
    return (report.result.epochs_completed if report.result else done), report.run.spec.epochs


def missed(report: Report) -> str:
    """Say why a run took longer or shorter than its estimate; empty if it was inside, or is not published."""
    estimate = report.run.estimate
    if is_inside(report) or report.status != "published" or not report.spans:
        return ""
    # What took the time is the reason of a longer run only.
    word, separator = ("longer", ":") if report.seconds > estimate.high else ("shorter", ";")
    parts = []
    if report.run.installed_s >= 1:
        parts.append(f"the job's installation took {human_duration(report.run.installed_s)}")
    last = max(span.attempt for span in report.spans)
    earlier = [span for span in report.spans if span.attempt < last]
    if earlier:
        lost = max(s.end for s in earlier) - min(s.start for s in earlier)
        count = len({s.attempt for s in earlier})
        parts.append(f"{count} earlier attempt{'s' if count > 1 else ''} took {human_duration(lost)}")
    for phase, text in (
        ("request", "waiting for an instance"),
        ("set-up", "set-up"),
        ("training", "the epochs"),
        ("ending", "what followed them"),
    ):
        took = sum(s.end - s.start for s in report.spans if s.attempt == last and s.phase == phase)
        if took >= 1:
            parts.append(f"{text} took {human_duration(took)}")
    miss = abs(report.seconds - estimate.likely)
    return (
        f"{human_duration(miss)} {word} than estimated{separator} {', '.join(parts)}."
        if parts and miss >= WORTH_A_WORD_S
        else ""
    )
