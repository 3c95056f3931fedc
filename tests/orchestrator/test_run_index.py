"""The index of runs: what is open and what is new is found without looking at what was before."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_case import T0, run_of

from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.orchestrator.lifecycle.status import standings
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import COST, Outcome, run_key
from gpu_offload.orchestrator.run.run_index import FORGOTTEN_S, RESCAN_S, WHOLE, RunIndex
from gpu_offload.orchestrator.settings.load import DatasetSettings, Settings

ENDED = Outcome(status="stopped", at=T0)


class Counting(FolderStore):
    """A folder store that counts what is asked of it, and can die or refuse at a request."""

    def __init__(self, root):
        super().__init__(root)
        self.requests, self.listed, self.dies_at, self.denied = 0, 0, None, ()

    def _asked(self, key):
        if self.dies_at is not None and self.requests >= self.dies_at:
            raise KeyboardInterrupt
        self.requests += 1
        if key.startswith(self.denied or ("\0",)):
            raise StoreDeniedError(key)

    def read(self, key):
        self._asked("")
        return super().read(key)

    def stat(self, key):
        self._asked("")
        return super().stat(key)

    def put(self, key, body):
        self._asked(key)
        return super().put(key, body)

    def create(self, key, body):
        self._asked(key)
        return super().create(key, body)

    def delete(self, key):
        self._asked(key)
        return super().delete(key)

    def list(self, prefix):
        self._asked("")
        for info in super().list(prefix):
            self.listed += 1
            yield info


def begin(store, *numbers, ended=()):
    journal = Journal(store)
    for n in numbers:
        journal.begin(run_of(id=f"{n:012x}-1", training_key=f"{n:064x}", now=T0 + n))
    for n in ended:
        journal.finish(f"{n:012x}-1", ENDED)
        store.put(run_key(f"{n:012x}-1", COST), b"{}")
        RunIndex(store).finish(f"{n:012x}-1")
    return journal


def ids(*numbers):
    return [f"{n:012x}-1" for n in numbers]


def test_open_and_newest_runs_cost_nothing_for_those_of_before(tmp_path):
    costs = []
    for count in (20, 200):
        store = Counting(tmp_path / str(count))
        begin(store, *range(count), ended=range(count - 2))
        store.requests = store.listed = 0
        journal = Journal(store)
        assert journal.open_ids() == ids(count - 2, count - 1)
        assert journal.recent_ids(3) == ids(count - 1, count - 2, count - 3)
        costs.append((store.requests, store.listed))
    assert costs[0] == costs[1]


def test_the_status_of_many_runs_takes_few_requests_and_asks_for_several_at_once(tmp_path):
    begin(FolderStore(tmp_path), *range(40), ended=range(10))
    both = threading.Barrier(2)

    class Meeting(Counting):
        """Lists a run only while it lists another one."""

        def list(self, prefix):
            if prefix.startswith("runs/0"):
                both.wait(timeout=60)
            return super().list(prefix)

    store = Meeting(tmp_path)
    found = standings(store, Settings(dataset=DatasetSettings(path="raw"), root=tmp_path))
    assert [one.run for one in found] == ids(*reversed(range(10, 40)))
    assert store.requests < 30 * 6, "of which a listing in a folder counts one for each object"


@pytest.mark.parametrize("act", ["begin", "finish"])
def test_a_driver_that_dies_at_any_request_leaves_an_index_that_finds_what_is_open(tmp_path, act):
    for dies_at in range(20):
        root = tmp_path / f"{act}{dies_at}"
        begin(FolderStore(root), 1, 2)
        store = Counting(root)
        store.dies_at = dies_at
        try:
            begin(store, 3) if act == "begin" else begin(store, ended=(2,))
            done = True
        except KeyboardInterrupt:
            done = False
        plain = FolderStore(root)
        truth = [
            r
            for r in ids(1, 2, 3)
            if plain.stat(run_key(r, "run.json")) and not plain.stat(run_key(r, "outcome.json"))
        ]
        assert Journal(plain).open_ids() == truth
        if done:
            return
    raise AssertionError("it never got through")


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["begin", "old", "finish", "old-finish", "tend"])),
        max_size=25,
    )
)
def test_whatever_versions_do_to_a_store_tend_finds_what_is_open(tmp_path_factory, acts):
    """`old` is a driver from before the index."""
    store = FolderStore(tmp_path_factory.mktemp("store"))
    journal, now = Journal(store), T0
    for n, act in acts:
        run = f"{n:012x}-1"
        there = store.stat(run_key(run, "run.json")) is not None
        if act == "begin":
            begin(store, n)
        elif act == "old" and not there:
            store.create(run_key(run, "run.json"), run_of(id=run, now=T0).model_dump_json().encode())
        elif act == "finish" and there:
            journal.finish(run, ENDED)
        elif act == "old-finish" and there and journal.outcome(run) is None:
            store.create(run_key(run, "outcome.json"), ENDED.model_dump_json().encode())
        elif act == "tend":
            now += RESCAN_S + 1
            journal.open_ids(now=now)
    truth = [r for r in journal.run_ids() if journal.outcome(r) is None]
    assert journal.open_ids(now=now + RESCAN_S + 1) == sorted(truth)
    assert journal.open_ids() == sorted(truth)
    assert set(journal.recent_ids(100)) <= set(journal.run_ids())


def test_a_store_from_before_is_indexed_by_the_first_look_and_not_by_a_dry_one(tmp_path):
    store = FolderStore(tmp_path)
    for n in (1, 2):
        run = f"{n:012x}-1"
        store.create(run_key(run, "run.json"), run_of(id=run, now=T0).model_dump_json().encode())
    assert Journal(store).open_ids(write=False) == ids(1, 2)
    assert not list(store.list("open/"))
    assert Journal(store).open_ids() == ids(1, 2)
    assert sorted(Journal(store).recent_ids(9)) == ids(1, 2)
    assert store.stat(WHOLE) is not None


def test_a_new_run_in_a_store_from_before_hides_none_of_the_old_ones(tmp_path):
    store = FolderStore(tmp_path)
    store.create(run_key(ids(1)[0], "run.json"), run_of(id=ids(1)[0], now=T0).model_dump_json().encode())
    begin(store, 2, ended=(2,))
    assert Journal(store).open_ids() == ids(1)
    assert sorted(Journal(store).recent_ids(9)) == ids(1, 2)


def test_a_role_that_may_not_write_the_index_finds_its_runs_all_the_same(tmp_path):
    store = Counting(tmp_path)
    store.denied = ("open/", "recent/")
    begin(store, 1, 2, ended=(1,))
    assert Journal(store).open_ids() == ids(2)
    assert sorted(Journal(store).recent_ids(9)) == ids(1, 2)


def test_an_entry_without_a_run_is_kept_while_its_driver_may_still_write_it(tmp_path):
    store = FolderStore(tmp_path)
    begin(store, 1)
    RunIndex(store).begin("0123456789ab-1")
    at = store.stat("open/0123456789ab-1.json").modified.timestamp()
    RunIndex(store).open_ids(now=at)
    for days, kept in ((0.5, True), (8, False)):
        RunIndex(store)._note(at + days * 86400)
        assert RunIndex(store).open_ids(now=at + days * 86400) == ids(1)
        assert (store.stat("open/0123456789ab-1.json") is not None) == kept
    assert FORGOTTEN_S < 8 * 86400
