"""Fixtures of the orchestrator's tests."""

import pytest
from github_case import GitHub
from report_case import report_in

from gpu_offload.infra.aws.spot_market import SpotMarket


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The report of a published run with a refused and a finished attempt, at the prices of its offers."""
    monkeypatch.setattr(SpotMarket, "spot_price_history", lambda *_: [])
    return report_in(tmp_path)


@pytest.fixture
def github():
    """A GitHub of our own without a release."""
    with GitHub() as server:
        yield server


@pytest.fixture
def model(tmp_path):
    """The file of a trained model."""
    path = tmp_path / "local" / "model.pt"
    path.parent.mkdir()
    path.write_bytes(b"weights" * 1000)
    return path
