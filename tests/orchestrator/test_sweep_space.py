"""What a sweep tries: dimensions, the values that are sampled from them, their words on a command line."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from gpu_offload.orchestrator.settings.dimension import Choice, Range, parse_dimension
from gpu_offload.orchestrator.sweep.sampling import Tried, ask, importance
from gpu_offload.orchestrator.sweep.space import Space, words


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("0.1..0.9", Range(0.1, 0.9)),
        ("8..64", Range(8, 64, whole=True)),
        ("log 1e-4..1e-1", Range(1e-4, 1e-1, log=True)),
        ("log 1 .. 1000", Range(1, 1000, log=True, whole=True)),
        ("0..1 step 0.25", Range(0, 1, step=0.25)),
        ("-5..5 step 5", Range(-5, 5, step=5, whole=True)),
        (["SGD", "AdamW"], Choice(("SGD", "AdamW"))),
        ([1, 1.0, True], Choice((1, 1.0, True))),
    ],
)
def test_a_dimension_is_what_it_says(text, dimension):
    assert parse_dimension(text) == dimension
    written = Space({"x": dimension}).as_written()["x"]
    assert parse_dimension(written) == dimension


@pytest.mark.parametrize(
    "text",
    ["", "abc", "1..", "9..1", "1..1", "log 0..1", "log 1..9 step 2", "0..1 step 2", "0..1 step 0", "nan..1",
     "1..1e999", 3, True, None, {"lr0": "0..1"}, ["one"], [], ["a", "a"], [["a"], ["b"]], [float("nan"), 1.0]],
)  # fmt: skip
def test_what_is_no_dimension_is_refused_with_a_remedy(text):
    with pytest.raises(PydanticCustomError) as refused:
        parse_dimension(text)
    assert refused.value.context["remedy"]


numbers = st.floats(1e-6, 1e6)


ranges = st.builds(
    lambda a, width, log: Range(a, a + width, log=log), numbers, st.floats(1e-3, 1e6), st.booleans()
)


wholes = st.builds(
    lambda a, width, log: Range(a, a + width, log=log, whole=True),
    st.integers(1, 50), st.integers(1, 50), st.booleans(),
)  # fmt: skip


choices = st.lists(
    st.one_of(st.text(max_size=5), st.integers(), st.booleans()), min_size=2, max_size=4, unique_by=repr
)


dimensions = st.one_of(ranges, wholes, choices.map(lambda values: Choice(tuple(values))))


@settings(max_examples=10)
@given(st.dictionaries(st.sampled_from("abc"), dimensions, min_size=1), st.integers(0, 2**40), st.data())
def test_what_is_asked_is_in_the_space_new_and_the_same_for_every_driver(dims, seed, data):
    space = Space(dims)
    tried = []
    for _ in range(4):
        values = ask(space, tried, seed=seed, goal="maximize")
        assert values == ask(space, tried, seed=seed, goal="maximize")
        if values is None:
            assert space.size is not None
            assert len(tried) == space.size
            return
        assert repr(values) not in {repr(dict(one.values)) for one in tried}
        for name, dimension in dims.items():
            value = values[name]
            if isinstance(dimension, Choice):
                assert any(value is one or repr(value) == repr(one) for one in dimension.values)
            else:
                assert dimension.low <= value <= dimension.high
                assert isinstance(value, int) == dimension.whole
        state = data.draw(st.sampled_from(["running", "complete", "pruned", "failed"]))
        score = data.draw(st.floats(-1, 1)) if state == "complete" else None
        tried.append(Tried(values, state, score, ((1, 0.5),) if state == "pruned" else ()))


@pytest.mark.parametrize(
    "dimensions",
    [{"a": Choice((1, 2, 3)), "b": Choice(("x", "y"))}, {"a": Range(0.1, 0.5, step=0.1)}],
    ids=["lists", "steps"],
)
def test_a_sweep_of_few_values_tries_every_combination_once(dimensions):
    """Of steps, too, whose sums are not exact: 0.3 is the third, and not 0.30000000000000004 beside it."""
    space = Space(dimensions)
    tried = []
    while (values := ask(space, tried, seed=1, goal="minimize")) is not None:
        tried.append(Tried(values, "complete", float(values["a"])))
    assert sorted(map(repr, (dict(t.values) for t in tried))) == sorted(map(repr, space.combinations()))


def test_what_mattered_is_found():
    space = Space({"deaf": Range(0.0, 1.0), "heard": Range(0.0, 1.0)})
    points = [(i / 16, (i * 7 % 16) / 16) for i in range(16)]
    tried = [Tried({"heard": h, "deaf": d}, "complete", -((h - 0.3) ** 2)) for h, d in points]
    found = importance(space, tried, goal="maximize")
    assert next(iter(found)) == "heard"
    assert math.isclose(sum(found.values()), 1.0)
    assert importance(space, tried[:5], goal="maximize") == {}


def test_values_become_words_of_the_command_line():
    assert words({"lr0": 0.001, "model": "a.yaml", "cos_lr": True}, base_seed=7, seed=2, fold="1/5") == [
        "training.hyperparameters.cos_lr=true",
        "training.hyperparameters.lr0=0.001",
        'training.model="a.yaml"',
        "training.seed=9",
        "dataset.split.fold=1/5",
    ]


def test_no_more_trials_are_promised_than_there_are_combinations():
    space = Space.written({"model": ["a.yaml", "b.yaml"], "batch": ["4", "8"]}, 1, 1)
    assert [space.at_most(wanted) for wanted in (None, 3, 9)] == [4, 3, 4]
    assert Space.written({"lr0": "0.1..0.9"}, 1, 1).at_most(50) == 50
