"""A few rounds of chaos; `benchmarks/chaos.py` plays as many as one likes."""

import tempfile

import pytest
from chaos_round import play_round, use_memory_for_scratch

ROUNDS = 120


@pytest.fixture(autouse=True)
def _fast_scratch(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    use_memory_for_scratch()


@pytest.mark.parametrize("first", range(0, ROUNDS, 20))
def test_no_round_of_chaos_leaves_loses_or_misbills_anything(first):
    broken = {seed: found for seed in range(first, first + 20) if (found := play_round(seed).broken)}
    assert not broken
