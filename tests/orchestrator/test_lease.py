"""The lease on a run: one driver at a time, and a dead one holds nothing up."""

import io
import subprocess
import sys

import pytest

from gpu_offload.infra.store.errors import StoreDeniedError, StoreUnreachableError
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.run.lease import LEASE_S, Lease, LeaseRecord
from gpu_offload.orchestrator.run.record import run_key
from gpu_offload.orchestrator.run.renewal import Renewal

RUN = "abc-1"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def elsewhere(clock, host="there"):
    return Lease(clock=clock, host=host, boot_id="other", pid=1)


def lease(store):
    return LeaseRecord.model_validate_json(store.read(run_key(RUN, "driver.json"))[0])


def test_the_first_driver_holds_the_lease_and_the_second_learns_its_name(store, clock):
    first, second = elsewhere(clock), Lease(clock=clock)
    assert first.claim(store, RUN) is None
    assert second.claim(store, RUN) == first.name


def test_a_denied_renewal_is_reported_once_and_ends_no_training(store, clock):
    out, driver = io.StringIO(), Lease(clock=clock)
    renew = Renewal(driver, store, RUN, Console(out))
    renew()
    assert driver.claim(store, RUN) is None
    for error, told in [(StoreUnreachableError, 0), (StoreDeniedError, 1), (StoreDeniedError, 1)]:
        clock.now += LEASE_S
        renew.store = Failing(error)
        renew()
        assert out.getvalue().count("cannot renew its lease") == told
    calls = renew.store.calls
    renew()
    assert renew.store.calls == calls, "not asked again at once"


class Failing:
    def __init__(self, error):
        self.error, self.calls = error, 0

    def read(self, *_):
        self.calls += 1
        raise self.error("no")

    replace = create = read


def test_a_driver_that_renews_keeps_the_run(store, clock):
    first, second = elsewhere(clock), Lease(clock=clock)
    for _ in range(20):
        assert first.claim(store, RUN) is None
        clock.now += LEASE_S / 2
        assert second.claim(store, RUN) == first.name


def test_a_driver_elsewhere_that_stops_renewing_loses_the_run_after_a_while(store, clock):
    first, second = elsewhere(clock), Lease(clock=clock)
    first.claim(store, RUN)
    clock.now += LEASE_S + 1
    assert second.claim(store, RUN) is None
    assert first.claim(store, RUN) == second.name


@pytest.mark.process
def test_a_process_that_died_on_this_machine_loses_the_run_at_once(store, clock):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        first = Lease(clock=clock, pid=process.pid)
        assert first.claim(store, RUN) is None
        second = Lease(clock=clock)
        assert second.claim(store, RUN) == first.name
    finally:
        process.communicate()
    assert second.claim(store, RUN) is None


def test_another_process_with_the_number_of_the_dead_one_does_not_pass_for_it(store, clock):
    holder = Lease(clock=clock)
    holder.claim(store, RUN)
    body, etag = store.read(run_key(RUN, "driver.json"))
    earlier = LeaseRecord.model_validate_json(body).model_copy(update={"started": "1", "holder": "dead"})
    store.replace(run_key(RUN, "driver.json"), earlier.model_dump_json().encode(), etag)
    assert Lease(clock=clock).claim(store, RUN) is None


def test_a_released_run_is_free_at_once_and_only_the_holder_releases_it(store, clock):
    first, second = elsewhere(clock), Lease(clock=clock)
    first.claim(store, RUN)
    second.release(store, RUN)
    assert second.claim(store, RUN) == first.name
    first.release(store, RUN)
    assert second.claim(store, RUN) is None


def test_renewing_does_not_write_at_every_look(store, clock):
    driver = Lease(clock=clock)
    driver.claim(store, RUN)
    before = lease(store)
    clock.now += 1
    driver.claim(store, RUN)
    assert lease(store) == before
    clock.now += 60
    driver.claim(store, RUN)
    assert lease(store).renewed_at == clock.now
