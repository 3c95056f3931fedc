"""A run's report: complete, exact, and harmless whatever is written in it."""

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from report_case import evil, result
from run_case import T0, run_of

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cost.bill import Bill
from gpu_offload.orchestrator.registry.manifest import Index, IndexEntry
from gpu_offload.orchestrator.report.content import Before, Report, Span
from gpu_offload.orchestrator.report.load import gather
from gpu_offload.orchestrator.report.markdown import CHART_STYLE, report_markdown
from gpu_offload.orchestrator.report.outcome import headline
from gpu_offload.orchestrator.report.page import report_html
from gpu_offload.orchestrator.report.rows import alternative_rows, attempt_rows, cost_rows, fact_rows
from gpu_offload.orchestrator.report.svg import curves_svg, timeline_svg
from gpu_offload.orchestrator.report.text import report_text
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Outcome
from gpu_offload.orchestrator.settings.sections import StoreSettings


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.attributes += [value for _, value in attrs if value]

    def handle_data(self, data):
        self.text.append(data)


def page_of(text):
    page = Page()
    page.feed(text)
    return page


def test_the_lines_of_the_bill_add_up_to_its_total_in_every_form(report):
    *lines, total = cost_rows(report)[1:]
    assert sum(round(float(row[1]) * 1e6) for row in lines) == round(float(total[1]) * 1e6)
    as_json = report.json()["cost"]
    assert sum(round(float(line["usd"]) * 1e6) for line in as_json["lines"]) == round(
        float(as_json["total_usd"]) * 1e6
    )
    assert f"| {total[1]} |" in report_markdown(report)
    assert total[1] in "".join(page_of(report_html(report)).text)


def test_every_attempt_is_shown_with_its_refusal_and_its_reason(report):
    rows = attempt_rows(report)
    assert [(row[0], row[2], row[6]) for row in rows[1:]] == [
        ("1", "none", "refused"),
        ("2", "i-1", "finished"),
    ]


def test_it_compares_with_on_demand_with_githubs_gpu_runner_and_with_the_cpu(report):
    assert [row[0] for row in alternative_rows(report)[1:]] == [
        "the same instances on demand",
        "GitHub's GPU runner",
        "the free CPU runner",
    ]
    assert alternative_rows(report)[2][1] == "0.104000", "2 minutes at $0.052"


def test_the_timeline_has_no_gap_from_the_first_request_to_the_end(report):
    spans = [span for span in report.spans if span.attempt == 2]
    assert [span.phase for span in spans] == ["request", "set-up", "training", "ending"]
    assert all(a.end == b.start for a, b in itertools.pairwise(spans))
    assert (spans[1].end, spans[2].end, spans[3].end) == (T0 + 120, T0 + 300, T0 + 610)


def test_what_an_earlier_attempt_left_in_the_progress_is_not_of_the_later_one(report):
    """On one machine a training that resumes goes on with the same file."""
    both = {**report.events, 2: (*report.events[2], *report.events[2])}
    early = tuple(event.model_copy(update={"time": T0 - 900.0}) for event in report.events[2])
    for events in ({**report.events, 2: (*early, *report.events[2])}, both):
        assert replace(report, events=events).spans == report.spans


def test_the_page_says_why_a_version_is_not_stable(report):
    held = replace(report, candidate="worse", semver="1.2.0")
    assert "Not stable: worse" in report_html(held)
    assert headline(held).endswith("Candidate 1.2.0, not stable")
    gone = replace(held, yanked="mislabelled")
    assert headline(gone).endswith("1.2.0 was yanked")
    assert "Yanked: mislabelled" in report_html(gone)


def test_a_model_that_finds_nothing_has_its_likely_causes_in_every_form(report):
    causes = ("half of the objects are smaller than 7 px", "it trained for 9 batches")
    poor = replace(report, result=result(metrics={"map50": 0.0}, causes=causes))
    for text in (report_text(poor, width=200), report_markdown(poor), report_html(poor)):
        assert all(cause in text for cause in causes)


def test_an_open_run_has_a_report_too_with_the_curves_so_far(report):
    still = Report(report.run, T0 + 700, report.bill, report.attempts, events=report.events)
    assert still.status == "open"
    assert still.curves == {"m": (0.2, 0.30000000000000004, 0.4)}
    assert report_html(still)
    assert "not over yet" in report_markdown(still)


def test_the_page_loads_nothing_and_draws_timeline_and_curves(report):
    text = report_html(report)
    page = page_of(text)
    assert page.tags.count("svg") == 3
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(page.tags)
    assert not re.search(r"(?:src|href)=", text)
    assert "default-src 'none'" in text


def test_the_page_carries_the_picture_of_predictions_in_itself(report):
    page = page_of(text := report_html(replace(report, picture=b"\x89PNG pixels")))
    assert page.tags.count("img") == 1
    assert re.findall(r'src="([^"]*)"', text) == ["data:image/png;base64,iVBORyBwaXhlbHM="]


def test_what_is_written_into_a_run_stays_text(report):
    page = page_of(report_html(evil(report)))
    assert not {"script", "img"} & set(page.tags)
    assert not [a for a in page.attributes if a.startswith("on")]
    markdown = report_markdown(evil(report))
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "](javascript" not in markdown
    assert "\x1b" not in markdown
    assert "\u202e" not in markdown
    fenced = [b.replace(CHART_STYLE, "") for b in re.findall(r"```mermaid\n(.*?)```", markdown, re.DOTALL)]
    assert fenced
    assert not any("<" in block or ("secrets" in block and "{" in block) for block in fenced)


@given(st.text(max_size=60))
def test_no_text_ends_a_row_of_a_table(text):
    lines = report_markdown(Report(run_of(now=T0, why=text), T0, Bill(()))).split("\n")
    (where,) = (i for i, line in enumerate(lines) if line.startswith("**Where and why.**"))
    assert lines[where + 1] == ""


def test_the_facts_of_own_training_code_name_the_code_and_no_model_of_ultralytics(report):
    own = report.run.spec.model_copy(update={"entrypoint": "forest:train"})
    facts = dict(fact_rows(replace(report, run=report.run.model_copy(update={"spec": own}))))
    assert facts["model"].startswith("forest:train, ")


def test_the_page_begins_with_four_facts(report):
    text = report_html(report)
    assert text.index('class="tiles"') < text.index("<section>")
    assert text.count('class="tile"') == 4
    assert ">mAP50<" in text
    assert ">0.500<" in text


def test_the_json_is_json_and_says_everything(report):
    document = json.loads(json.dumps(report.json(), allow_nan=False))
    assert {"run", "status", "why", "estimate", "cost", "attempts", "timeline", "metrics", "curves"} <= set(
        document
    )
    assert document["attempts"][0]["reason"] == "refused"


def test_a_summary_stays_below_what_github_shows(report):
    """GitHub counts bytes, and a class may have a name of four bytes a letter; what is shown is whole."""
    per_class = {"\N{CAT FACE}" * 90 + str(n): {"map50": 0.5} for n in range(1_000)}
    result = report.result.model_copy(update={"per_class": per_class})
    text = report_markdown(replace(report, attempts=report.attempts * 4_000, result=result))
    assert len(text.encode()) < 1_000_000
    assert text.count("<details>") == text.count("</details>")
    assert text.count("```") % 2 == 0
    assert "left out" in text


@given(
    st.dictionaries(st.text(max_size=20), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), max_size=4)
)
def test_any_curves_make_a_picture(curves):
    text = curves_svg("t", curves)
    if text:
        ET.fromstring(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "", text))


EXTREME = st.one_of(
    st.floats(), st.sampled_from([0.0, 5e-324, 1e-300, 1e20, -1e20, 1e300, -1e300, 1e308, -1e308, math.inf])
)


@given(st.dictionaries(st.sampled_from("abc"), st.lists(EXTREME, max_size=5), max_size=3))
@example({"a": [1e308, -1e308]})
@example({"a": [-1e300]})
@example({"a": [-1e20, -1e20]})
def test_curves_of_extreme_values_make_a_picture_of_finite_places(curves):
    assert_finite(curves_svg("t", curves))


def assert_finite(text):
    """A legend may name any value; places are numbers."""
    places = re.findall(r'(?:points|x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)"', text)
    assert not re.search("nan|inf", " ".join(places))


@given(st.lists(st.tuples(EXTREME, EXTREME), max_size=4))
@example([(T0, math.inf)])
@example([(T0, 1e300)])
@example([(T0, 1e13)])
def test_spans_of_extreme_times_make_a_timeline(times):
    assert_finite(timeline_svg([Span(1, "training", start, end) for start, end in times]))


@given(EXTREME, st.lists(EXTREME, min_size=2, max_size=4), EXTREME)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(1e300, [1e308, -1e308], math.inf)
@example(1e12, [-1e300, -1e300], 1e13)
def test_a_report_of_extreme_numbers_is_a_report(report, at, values, now):
    curves = {"train/box_loss": values, "train/cls_loss": values, "metrics/mAP50-95(B)": values}
    odd = replace(
        report,
        now=now,
        attempts=tuple(
            replace(a, end=a.end and a.end.model_copy(update={"at": at})) for a in report.attempts
        ),
        result=report.result.model_copy(update={"curves": curves}),
    )
    drawn = re.findall(r"^  (?:y-axis|line|training|ending).*", report_markdown(odd), re.MULTILINE)
    assert not re.search(r"\b(nan|inf)\b", " ".join(drawn))
    report_html(odd)


def test_no_span_makes_no_picture():
    assert timeline_svg(()) == ""


def test_a_report_compares_with_the_version_before_it_and_not_with_a_later_one(tmp_path):
    """Viewed any time later, it says the same."""
    store = open_store(f"file:{tmp_path}")
    entries = [
        IndexEntry(version=name, created_at=at, sha256="0" * 64, size=1, metrics={"map50": value})
        for name, at, value in (
            ("old", 1.0, 0.1),
            ("last", 2.0, 0.2),
            ("mine", 4.0, 0.5),
            ("later", 9.0, 0.9),
        )
    ]
    store.put("index.json", Index(versions=tuple(entries)).model_dump_json().encode())
    run = run_of(now=3.0, version="mine")
    Journal(store).begin(run)
    Journal(store).finish(run.id, Outcome(status="published", at=5.0, version="mine"))
    found = gather(store, StoreSettings(), run.id, now=10.0)
    assert found.before == Before("last", {"map50": 0.2}, found.before.semver)


@pytest.mark.parametrize(
    ("status", "interrupted", "begins"),
    [
        ("failed", False, "Not trained: failed after 10 min on g4dn.xlarge spot, $0.04"),
        ("stopped", False, "Stopped after 10 min on"),
        (None, True, "Interrupted after 12 min on"),
        (None, False, "Training: epoch 0 of 3, 12 min on g4dn.xlarge spot, $0.04 so far"),
    ],
)
def test_a_headline_says_how_a_run_without_a_model_ended(report, status, interrupted, begins):
    outcome = report.outcome.model_copy(update={"status": status}) if status else None
    text = headline(replace(report, outcome=outcome, result=None), interrupted=interrupted)
    assert text.startswith(begins)
