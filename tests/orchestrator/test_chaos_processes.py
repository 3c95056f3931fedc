"""Rounds of chaos with real processes; `benchmarks/chaos.py --real` plays as many as one likes."""

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from chaos_processes import play_round

pytestmark = [pytest.mark.simulator, pytest.mark.process]


@pytest.mark.parametrize("seed", [3])
def test_no_round_with_real_drivers_leaves_loses_or_misbills_anything(seed, scratch):
    """In round 3 a driver once died between the outcome and the bill, which then was never written."""
    played = play_round(seed)
    assert not played.broken, played.told
