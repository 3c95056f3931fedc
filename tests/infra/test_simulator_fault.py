"""The grammar of faults: one line, read whole or refused with every mistake named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.infra.simulator.fault import EFFECTS, FaultSyntaxError, When, parse, parse_all


def test_an_api_error_names_operation_code_and_place():
    fault = parse("api:RunInstances:error=InsufficientInstanceCapacity:zone=us-east-1a:times=1")
    assert (fault.target, fault.operation, fault.effect) == ("api", "RunInstances", "error")
    assert (fault.code, fault.zone, fault.times) == ("InsufficientInstanceCapacity", "us-east-1a", 1)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("api:*:delay=2s", "seconds", 2.0),
        ("api:Describe*:delay=500ms", "seconds", 0.5),
        ("api:TerminateInstances:lost-reply:times=1", "times", 1),
        ("api:TerminateInstances:lost-reply", "times", None),
        ("instance:reclaim:notice=120s", "notice", 120.0),
        ("instance:reclaim:no-notice", "notice", 0.0),
        ("instance:reclaim", "notice", None),
        ("instance:reclaim:after=epoch=2", "after", When(milestone="epoch", epoch=2)),
        ("instance:reclaim:after=heartbeat", "after", When(milestone="heartbeat")),
        ("instance:power-loss:after=5s", "after", When(seconds=5.0)),
        ("instance:slow-disk", "times", 1),
        ("instance:full-disk:attempt=2", "attempt", 2),
        ("network:cut:after=2:heal=1m", "lasts", 60.0),
        ("network:slow=1mbit", "bits_per_second", 1e6),
        ("store:unreachable:for=10s", "lasts", 10.0),
        ("token:expire:who=all", "who", "all"),
    ],
)
def test_each_kind_of_fault_is_one_line(line, field, value):
    assert getattr(parse(line), field) == value


def test_a_parsed_fault_says_the_line_it_came_from():
    assert str(parse(" network:cut:heal=3s ")) == "network:cut:heal=3s"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ["starts with none of", "api"]),
        ("disk:full", ["starts with none of", "instance"]),
        ("api", ["names no operation"]),
        ("api:RunInstances", ["none of the effects of api"]),
        ("api:RunInstances:error", ["error takes a value"]),
        ("api:RunInstances:lost-reply=1", ["lost-reply takes no value"]),
        ("instance:reclaim:notice=soon", ["notice", "'soon' is not a duration"]),
        ("instance:reclaim:notice=1s:no-notice", ["exclude each other"]),
        ("instance:power-loss:notice=1s", ["'notice' is none of the options"]),
        ("instance:reclaim:after=lunch", ["neither a duration nor one of", "heartbeat"]),
        ("network:slow=fast", ["'fast' is not a rate"]),
        ("network:slow=0mbit", ["is not a rate"]),
        ("network:cut:times=0", ["'0' is not a number from 1 on"]),
        ("network:cut:heal=1s:heal=2s", ["heal is given twice"]),
        ("token:expire:who=me", ["'me' is none of runner, instance, all"]),
    ],
)
def test_a_line_that_is_no_fault_is_refused_with_what_is_wrong(line, words):
    with pytest.raises(FaultSyntaxError) as caught:
        parse(line)
    for word in words:
        assert word in str(caught.value)


def test_every_mistake_of_a_line_and_of_all_lines_is_named_at_once():
    with pytest.raises(FaultSyntaxError) as caught:
        parse_all(["api:*:delay=x:times=y", "network:cut", "moon:eclipse"])
    text = str(caught.value)
    assert "'x' is not a duration" in text
    assert "'y' is not a number" in text
    assert "moon" in text
    assert "network" not in text.partition("moon")[0]


@given(st.text(alphabet="abcdefimnoprstuwz:=-*.0123456789", max_size=40))
def test_no_text_makes_the_parser_fail_otherwise(text):
    try:
        fault = parse(text)
    except FaultSyntaxError:
        return
    assert fault.effect in EFFECTS[fault.target]
    assert parse(str(fault)) == fault
