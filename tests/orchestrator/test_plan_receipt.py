"""The receipt: what a person reads before anything is spent."""

import html
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from plan_case import report

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import cpu_offer
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.output.markdown import escape_markdown
from gpu_offload.orchestrator.output.units import human_bytes, human_duration, human_money
from gpu_offload.orchestrator.plan.decision import decide, judge
from gpu_offload.orchestrator.plan.option import Limits
from gpu_offload.orchestrator.plan.receipt import receipt_markdown, receipt_text


def test_a_receipt_is_a_table_then_why_then_what_would_change_it():
    text = receipt_text(report())
    lines = text.splitlines()
    assert lines[0] == "Dataset 0123456789ab: 301 train, 76 val images, 29.5 MB; training fedcba987654"
    assert re.match(r"\s+where\s+time\s+at most\s+cost\s+at most\s+fits", lines[2])
    assert re.match(r">\s+this CPU\s+3 h 10\s+3 h 53\s+free\s+yes", lines[3])
    table, why, changes, rests = (
        text.index(x) for x in ("this CPU", "The free CPU does it", "What would", "Based on")
    )
    assert table < why < changes < rests


def test_a_receipt_says_what_to_expect_of_a_run_that_may_wait_for_spot():
    line = "Expected $0.31, worst case $0.74; waits for spot until 14:20 UTC at most, then on demand."
    assert line in receipt_text(report(forecast=line), width=200)
    assert "waits for spot until 14:20 UTC" in receipt_markdown(report(forecast=line))


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_receipt_fits_the_terminal(width, everything):
    """Reasons and notes are of any length; lines are not."""
    long = "a reason of many words " * 20
    options = tuple(replace(o, reason=long, feasible=False) for o in report().options)
    text = receipt_text(report(options=options, notes=(long,)), width=width, everything=everything)
    assert max(map(len, text.splitlines())) <= width


def test_a_receipt_shows_the_cpu_and_the_best_gpu_and_the_rest_on_request():
    plan = report()
    few, every = receipt_text(plan), receipt_text(plan, everything=True, width=200)
    assert f"and {len(plan.options) - 2} more places: offload plan --all" in few
    best = min((o for o in plan.options if o.where == "ec2"), key=lambda o: o.cost_likely)
    assert best.offer.name in few
    assert all(option.offer.name in every for option in plan.options)
    assert few.count("prices:") == 1
    limits = Limits(3600, 1.0)
    options = tuple(judge(offer, Interval(1500, 1800, 3000), limits) for offer in TABLE)
    dearest = options[-1]
    chosen = report(options=options, decision=replace(decide(options, limits), option=dearest))
    row = next(line for line in receipt_text(chosen).splitlines() if line.startswith(">"))
    assert dearest.offer.name in row


def test_a_training_that_is_there_already_is_said_first():
    assert "version 1.2.0 (v7)." in receipt_text(report(already_trained="v7", semver="1.2.0"))
    text = receipt_text(report(already_trained="v7"))
    assert text.index("Already trained: version v7") < text.index("this CPU")
    assert "What would change" not in text
    assert "Already trained: version v7" in receipt_markdown(report(already_trained="v7"))
    text = receipt_text(report(already_trained="0123456789abcdef", semver="10.20.30"))
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_that_fits_says_what_to_do():
    limits = Limits(60, 0.0)
    options = (judge(cpu_offer(4), Interval(8000, 11_400, 14_000), limits),)
    plan = report(options=options, decision=decide(options, limits, epochs=20))
    assert "Nothing fits" in receipt_text(plan)
    assert "Fewer epochs" in receipt_text(plan)
    assert receipt_markdown(plan).startswith("### Plan: nothing fits\n")


def test_control_characters_from_elsewhere_never_reach_a_log():
    text = receipt_text(report(notes=("evil \x1b[31m::error::\r\n::set-output name=x::y\u202e",)))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert not any(line.startswith("::") for line in text.splitlines())


def test_markdown_from_elsewhere_is_inert():
    hostile = "<img src=x onerror=alert(1)> [a](javascript:b) | ![c](d) `e` @team #1 https://evil **f**\n# g"
    page = receipt_markdown(report(notes=(hostile,), already_trained=hostile))
    assert "<img" not in page
    assert "](" not in page
    assert "@team" not in page
    assert "https://" not in page
    assert "\n# g" not in page


def test_markdown_has_a_table_with_as_many_cells_in_every_row():
    page = receipt_markdown(report())
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"\|", row)) for row in rows}) == 1
    assert any("free" in row for row in rows)
    assert "$0.00" not in page
    assert "****" not in page, "an empty cell is not bold"
    assert len(rows) == 2 * 2 + 4 + 6
    at_once = page[: page.index("<details>")]
    assert len([line for line in at_once.splitlines() if line.startswith("|")]) == 2 + 4
    assert at_once.count("→") == 1


@pytest.mark.parametrize("render", [receipt_text, receipt_markdown])
def test_a_receipt_names_where_its_prices_are_from_and_of_when(render):
    basis = "AWS price pages 2026-11-22T20:00Z"
    options = tuple(replace(o, offer=replace(o.offer, price_basis=basis)) for o in report().options)
    text = html.unescape(render(report(options=options)))
    assert basis in text.partition("Based on")[2]
    assert basis not in render(report(options=options[:1]))


@given(st.text())
@example("see WWW.evil.example")
def test_escaped_text_holds_no_markdown_and_shows_as_it_was(text):
    escaped = escape_markdown(text)
    assert not re.search(r"[\\`*_{}\[\]+!|~@$<>\n\r]|(?i:www\.)", escaped)
    assert "://" not in escaped or not re.search(r"\w://", escaped)
    shown = html.unescape(escaped)
    assert len(shown) == len(text)
    assert all(b in {a, " "} for a, b in zip(text, shown, strict=False))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (4.23, "4.2 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (720, "12 min"),
        (3599, "1 h"),
        (11_400, "3 h 10"),
        (21_600, "6 h"),
        (26_424, "7 h 20"),
        (187_200, "2 d 4 h"),
        (172_800, "2 d"),
        (float("inf"), "without end"),
        (-42, "-42 s"),
    ],
)
def test_durations_are_written_as_people_say_them(seconds, text):
    assert human_duration(seconds) == text


@given(st.floats(0, 1e8))
def test_durations_never_round_to_an_impossible_sixty(seconds):
    assert not re.search(r"\b60 (s|min)|h 60|d 24 h", human_duration(seconds))


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.21, "$0.21"),
        (0, "$0.00"),
        (0.004, "$0.004"),
        (0.0001, "<$0.001"),
        (Decimal("12.345"), "$12.35"),
        (-0.5, "-$0.50"),
        (0.0099, "$0.01"),
        (float("nan"), "no price"),
    ],
)
def test_money_is_written_to_the_cent_and_small_amounts_are_not_hidden(usd, text):
    assert human_money(usd) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (812, "812 B"), (999_600, "1.0 MB"), (1_400_000_000, "1.4 GB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes_are_written_in_decimal_units(count, text):
    assert human_bytes(count) == text


def test_gpus_that_cannot_be_rented_are_a_sentence_not_a_table():
    plan = report()
    options = tuple(
        o if o.where == "cpu" else replace(o, feasible=False, reason="the store is a folder")
        for o in plan.options
    )
    assert "g4dn" not in receipt_text(report(options=options)).partition("The free CPU")[0]
    text = receipt_markdown(report(options=options))
    assert "No GPU can be rented: the store is a folder." in text
    assert "g4dn" not in text.partition("What would change")[0].partition("Why.")[2].partition("\n")[2]
