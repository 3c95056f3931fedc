"""Twenty publishers and rollbacks at once leave one history, on every store that several may write to."""

import pytest
from registry_case import publish_and_roll_back_at_once
from store_kinds import KINDS

FEWER = {"hub": (4, 2), "sftp": (7, 3)}
"""Every write to the Hub is a commit onto the newest, whatever it is of, and SFTP's writers wait for each other's lock:
twenty at once end alike, and take 15 s."""


@pytest.mark.parametrize("kind", KINDS)
def test_publishers_and_rollbacks_at_once_leave_one_history(kind, new_store, tmp_path):
    publishers, rollbacks = FEWER.get(kind, (15, 5))
    publish_and_roll_back_at_once(new_store(kind), tmp_path, publishers, rollbacks)
