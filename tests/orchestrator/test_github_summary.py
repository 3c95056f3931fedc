"""The job summary: what a reader needs, in the order of need, and never more than GitHub keeps."""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_case import report as plan_report
from report_case import EVIL, evil, result

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.github.section import FEW_ROWS, LIMIT, SummaryContext, SummarySection, fitted
from gpu_offload.orchestrator.github.small_summaries import (
    clean_up_summary,
    done_summary,
    kept_summary,
    plan_sentence,
    plan_summary,
    rollback_summary,
    tend_summary,
    trouble_summary,
)
from gpu_offload.orchestrator.github.summary import metric_changes, run_summary
from gpu_offload.orchestrator.registry.manifest import IndexEntry
from gpu_offload.orchestrator.registry.promote import Moved
from gpu_offload.orchestrator.report.content import Before
from gpu_offload.orchestrator.report.rows import SMALL_USD, cost_rows, estimate_rows
from gpu_offload.remote_job.result import Artifact

PARTS = ("### Trained in", "|  | expected | actual |", "longer than estimated", "**Where and why.**", "#### Metrics", "xychart-beta",
         "#### Cost", "#### It could have cost", "#### Attempts", "gantt", "Estimate and actual", "Facts")  # fmt: skip


def test_a_pull_request_reads_in_one_sentence_what_merging_it_would_train():
    text = plan_sentence(plan_report(), proposed=True)
    assert re.match(r"Merging this will train for .+ \(at most .+\) on ", text)
    assert plan_summary(plan_report(), proposed=True).startswith("### Merging this will train")


def test_what_is_trained_already_is_said_first():
    text = plan_sentence(plan_report(already_trained="abc"), proposed=False)
    assert text == "This trains nothing: version abc has the same data and settings"


def test_a_summary_is_complete_and_in_the_order_of_need(report):
    text = run_summary(report, SummaryContext(because="the plan said so"))
    places = [text.index(part) for part in PARTS]
    assert places == sorted(places)
    assert "the plan said so" in text


def test_metrics_are_held_against_the_version_before():
    rows = metric_changes(
        {"map50": 0.6, "loss": 0.5, "recall": 0.3, "new": 1.0},
        Before("abc", {"map50": 0.5, "loss": 0.4, "recall": 0.3}),
    )
    assert rows[0][1] == "before"
    assert ("map50", "0.5000", "0.6000", "+0.1000", "better") in rows
    assert ("loss", "0.4000", "0.5000", "+0.1000", "worse") in rows
    assert ("recall", "0.3000", "0.3000", "+0.0000", "the same") in rows
    assert ("new", "", "1.0000", "", "new") in rows


def test_the_first_version_says_that_there_is_none_to_compare_with(report):
    text = run_summary(report, SummaryContext())
    assert "| mAP50 | first version |" in text
    assert "This is the first version" in text


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (
            SummaryContext(can_resume=True, trouble="it was told to end"),
            "run this workflow again: it carries on",
        ),
        (SummaryContext(moves="too slow; it moves to g4dn.xlarge"), "goes on from the last checkpoint"),
        (SummaryContext(detached=True), "the scheduled `tend` collects"),
    ],
)
def test_a_summary_says_what_to_do_next(report, context, words):
    assert words in run_summary(report, context)


def test_where_nothing_is_to_be_done_no_next_step_is_named(report):
    assert "**Next:**" not in run_summary(report, SummaryContext(model_url="https://m.example.org/m.pt"))


def test_the_heading_says_outcome_time_place_money_quality_and_version(report):
    context = SummaryContext(before=Before("abc", {"map50": 0.4}), moved=True)
    heading = html.unescape(run_summary(report, context).split("\n")[0])
    assert re.fullmatch(
        r"### Trained in 10 min on g4dn.xlarge spot, \$0\.04\. mAP50 0\.500 \(was 0\.400\)\. Stable is now a{16}",
        heading,
    )


def test_time_cost_and_quality_are_held_against_what_was_expected_not_against_the_limit(report):
    """The estimate is 2 s at $0.20 an hour; the limit of $1.00 is no expectation."""
    text = html.unescape(run_summary(report, SummaryContext(before=Before("abc", {"map50": 0.4}))))
    rows = {line.split("|")[1].strip(): line for line in reversed(text.splitlines()) if line.startswith("|")}
    assert "| 2.0 s (1.0 s to 3.0 s) | 10 min |" in rows["time"].replace("\xa0", " ")
    assert "| $0.004 (at most $0.004) | $0.04 |" in rows["cost"]
    assert "$1.00" not in rows["cost"]
    assert "| 0.400 before | 0.500 |" in rows["mAP50"]


def test_a_missed_estimate_says_what_took_the_time(report):
    text = run_summary(report, SummaryContext())
    assert "longer than estimated: 1 earlier attempt took" in text
    late = int(report.seconds - report.run.estimate.likely) // 60
    assert f"{late} min" in text.partition(" longer than estimated")[0][-12:].replace("\xa0", " ")
    assert "what followed them took" in text.partition("longer than estimated")[2].partition("\n")[0]
    fitting = replace(report, run=report.run.model_copy(update={"estimate": Interval(60, 500, 900)}))
    assert "than estimated" not in run_summary(fitting, SummaryContext())
    nearly = Interval(60, 500, report.seconds - 0.1)
    told = replace(report, run=report.run.model_copy(update={"estimate": nearly}))
    assert "than estimated" not in run_summary(told, SummaryContext()), "the table shows the same time twice"
    assert "inside the interval" in estimate_rows(told)[1][3], "and says the same of it"
    sooner = replace(report, run=report.run.model_copy(update={"estimate": Interval(6000, 9000, 9900)}))
    assert "shorter than estimated; 1 earlier attempt took" in run_summary(sooner, SummaryContext()), (
        "which is no reason"
    )


def test_the_heading_of_a_rollback_names_the_version_that_is_stable_again():
    entry = IndexEntry(version="a" * 16, semver="1.0.0", created_at=0, sha256="0" * 64, size=1, metrics={})
    done = Moved("stable again", entry, {"stable": entry.version}, changed=True)
    assert rollback_summary(done).startswith("### Rolled back: stable is 1.0.0 again")
    assert rollback_summary(replace(done, changed=False)).startswith("### Nothing to roll back")
    withdrawn = replace(done, done="withdrawn", aliases={"stable": "b" * 16})
    assert rollback_summary(withdrawn).startswith("### Rolled back\n"), "the version is not stable"


def test_a_rollback_is_a_heading_of_its_own():
    text = done_summary("v1", SummaryContext(before=Before("v2", {})), moved=True)
    assert text.startswith("### Rolled back: stable is v1 again, it was v2")
    assert done_summary("v1", SummaryContext(), moved=False).startswith("### Already trained: version v1")
    assert "Not stable: too weak" in done_summary("v1", SummaryContext(candidate="too weak"), moved=False)


def test_costs_under_a_tenth_of_a_cent_are_one_line(report):
    lines = tuple(replace(report.bill.lines[0], label=f"item {n}", usd=Decimal("0.0004")) for n in range(3))
    bill = replace(report.bill, lines=(*lines, *report.bill.lines))
    small = [line for line in bill.lines if line.usd < SMALL_USD]
    rows = cost_rows(replace(report, bill=bill))
    assert len(rows) == 3 + len(bill.lines) - len(small)
    assert rows[-2][0] == f"{len(small)} items under a tenth of a cent"
    assert Decimal(rows[-2][1]) == sum(line.usd for line in small)


def test_a_summary_distinguishes_a_model_that_learnt_nothing(report):
    poor = replace(report, result=result(metrics={"map50": 0.001}))
    assert "learnt next to nothing" in run_summary(poor, SummaryContext(model_url="https://x/m.pt"))
    known = replace(report, result=result(metrics={"map50": 0.0}, causes=("no training image shows F",)))
    assert "Likely causes:\n\n- no training image shows F\n" in run_summary(known, SummaryContext())


def test_a_model_that_is_kept_by_a_later_job_is_said_to_be(report):
    text = run_summary(report, SummaryContext(model_url="https://x/m.pt", kept=True))
    assert "**Model:** <https://x/m.pt> (once the job `keep` is done)" in text
    model = Artifact(name="model.pt", size=6_200_000, sha256="0" * 64)
    told = kept_summary("https://x", model, "1.2.0", "https://x/m.pt", "", stable=True)
    assert told.startswith("### Kept: version 1.2.0")
    assert "[model.pt](https://x/m.pt)" in told
    assert "offload pull model.pt --from https://x" in told
    assert "![predictions]" not in told
    told = kept_summary("https://x", model, "1.2.0", "https://x/m.pt", "", stable=False)
    assert told.startswith("### Kept: candidate 1.2.0")
    assert "--version 1.2.0 --from" in told
    forest = Artifact(name="model.joblib", size=1, sha256="0" * 64)
    told = kept_summary("https://x", forest, "a", "https://x/m", "https://x/p.png", stable=True)
    assert "![predictions](https://x/p.png)" in told
    assert "offload pull model.joblib --from https://x" in told


def test_a_failed_run_points_at_its_log(report):
    failed = replace(report, outcome=report.outcome.model_copy(update={"status": "failed"}), result=None)
    text = run_summary(failed, SummaryContext(trouble="no memory"))
    assert text.startswith("### Not trained: failed after")
    assert "[!CAUTION]" in text
    assert "no memory" in text
    assert "offload logs abc-1" in text
    told = run_summary(
        failed,
        SummaryContext(
            trouble="no memory (the whole log: /runner/log.txt)", log="epoch 1\n</pre><script>x\n"
        ),
    )
    assert "<pre>\nepoch 1\n&lt;/pre&gt;&lt;script&gt;x\n</pre>" in told
    assert "offload logs" not in told
    assert "/runner" not in told


def test_a_clean_up_says_what_it_had_to_do():
    text = clean_up_summary(1, [f"i-{n}" for n in range(FEW_ROWS + 3)])
    assert "terminated" in text
    assert "and 3 more" in text


def test_pictures_are_shown_where_they_are_public(report):
    text = run_summary(report, SummaryContext(pictures_url="https://m.example.org/a b)](x).png"))
    assert "![predictions](https://m.example.org/a%20b%29%5D%28x%29.png)" in text


def outside_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def test_what_others_wrote_is_inert_wherever_it_stands(report):
    context = SummaryContext(
        because=EVIL,
        reason=EVIL,
        trouble=EVIL,
        log=EVIL,
        before=Before(EVIL, {"map50": 0.1}),
        model_url="https://x/" + EVIL,
    )
    for text in (
        run_summary(evil(report), context),
        trouble_summary(EVIL),
        done_summary(EVIL, context, moved=True),
        tend_summary(EVIL, [EVIL]),
    ):
        assert "<script" not in text
        assert "<img" not in text
        assert "](javascript" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "${{" not in outside_code(text)


def huge(report, *, classes, attempts, words, epochs):
    many = {f"class {i} {'ü' * words}": {"map50": 0.5, "precision": 0.25} for i in range(classes)}
    curves = {f"metrics/m{i}(B)": tuple(0.001 * j for j in range(epochs)) for i in range(30)}
    record = report.run.model_copy(update={"why": "why " * words * 100, "commit": "é" * words * 1000})
    long = tuple(
        replace(a, end=a.end and a.end.model_copy(update={"message": "no capacity " * words}))
        for a in report.attempts
    )
    return replace(
        report,
        run=record,
        attempts=long * attempts,
        result=result(per_class=many, curves=curves),
    )


def test_a_summary_of_anything_fits_and_is_shortened_not_cut(report):
    whole = huge(report, classes=20_000, attempts=200, words=200, epochs=5000)
    text = run_summary(whole, SummaryContext(trouble="x" * 3_000_000))
    assert len(text.encode()) <= LIMIT
    assert text.count("```") % 2 == 0
    assert text.count("<details>") == text.count("</details>")
    for part in ("### Trained", "**Where and why.**"):
        assert part in text
    assert "`offload report` has" in text


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(20_000, 200_000), classes=st.integers(0, 1500), words=st.integers(0, 40))
def test_the_least_important_gives_way_first(report, limit, classes, words):
    text = run_summary(
        huge(report, classes=classes, attempts=3, words=words, epochs=300), SummaryContext(), limit=limit
    )
    assert len(text.encode()) <= limit
    for part in ("### Trained", "**Where and why.**"):
        assert part in text
    assert text.count("```") % 2 == 0
    assert text.count("<details>") == text.count("</details>")


def test_what_weighs_more_stays_longer():
    sections = [SummarySection(("important" * 10, "i"), 2), SummarySection(("trifle" * 10, "t"), 1)]
    assert fitted(sections, 100) == "important" * 10 + "\n\nt\n"
    assert fitted(sections, 5) == "i\n\nt\n"
    with pytest.raises(ValueError, match="the shortest summary"):
        fitted(sections, 3)


def test_a_plan_for_no_place_says_so():
    plan = plan_report()
    nothing = replace(plan, decision=replace(plan.decision, option=None, where="none", why="too dear"))
    assert "will train nowhere" in plan_sentence(nothing, proposed=True)


@pytest.mark.process
def test_mermaid_itself_reads_the_diagrams(report):
    modules = os.environ.get("GPU_OFFLOAD_NODE_MODULES")
    if not modules or shutil.which("node") is None:
        pytest.skip("GPU_OFFLOAD_NODE_MODULES names no folder where npm installed mermaid and jsdom")
    found = []
    for told in (report, evil(report), huge(report, classes=3, attempts=2, words=3, epochs=500)):
        found += re.findall(r"```mermaid\n(.*?)```", run_summary(told, SummaryContext()), flags=re.DOTALL)
    script = Path(__file__).parent / "mermaid_parse.mjs"
    done = subprocess.run(
        ["node", str(script), modules],
        input=json.dumps(found),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"gantt", "xychart"}
