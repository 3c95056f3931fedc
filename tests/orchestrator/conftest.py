"""Fixtures of the orchestrator's tests."""

import pytest
from report_case import report_in


@pytest.fixture
def report(tmp_path):
    """The report of a published run with a refused and a finished attempt."""
    return report_in(tmp_path)
