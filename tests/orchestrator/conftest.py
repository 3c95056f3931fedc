"""Fixtures of the orchestrator's tests."""

import pytest
from report_case import report_in

from gpu_offload.infra.aws.spot_market import SpotMarket


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The report of a published run with a refused and a finished attempt, at the prices of its offers."""
    monkeypatch.setattr(SpotMarket, "spot_price_history", lambda *_: [])
    return report_in(tmp_path)
