"""How sure a decision is, and what is done where it is a toss-up."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.plan.certainty import cheaper, quantile, within

TIMES = st.tuples(st.floats(1, 1e5), st.floats(0.3, 1), st.floats(1, 3)).map(
    lambda t: Interval(t[0] * t[1], t[0], t[0] * t[2])
)


def test_the_bounds_are_the_tenth_and_the_ninetieth_percentile():
    interval = Interval(50, 100, 300)
    assert within(interval, 100) == pytest.approx(0.5)
    assert within(interval, 300) == pytest.approx(0.9)
    assert within(interval, 50) == pytest.approx(0.1)
    assert quantile(interval, 0.9) == pytest.approx(300)


@example(Interval(2.0, 2.0, 2.0), 0.0, 5e-324)
@example(Interval(1.0, 1.0, 2.0), 1.0, 2.0)
@given(TIMES, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_later_limit_is_never_less_likely_kept(interval, first, second):
    early, late = sorted((first, second))
    assert 0 <= within(interval, early) <= within(interval, late) <= 1


@example(Interval(3.0, 3.0, 3.0), Interval(3.0, 3.0, 3.000000000000001), 1.0000000000000002)
@given(TIMES, TIMES, st.floats(0.01, 10))
def test_one_of_two_places_is_cheaper(first, second, rate):
    one, other = cheaper((first, rate), (second, 1.0)), cheaper((second, 1.0), (first, rate))
    assert one + other == pytest.approx(1, abs=0.06)  # equal costs round either way
    assert cheaper((first, rate), (first, rate)) == pytest.approx(0.5, abs=0.03)
