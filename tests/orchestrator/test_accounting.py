"""What a run has cost, from its journal and the prices of the time."""

import json
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from run_case import T0, gpu_offer, run_of, seen_attempt

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cost.bill import attempt_lines
from gpu_offload.orchestrator.cost.prices import FOLDER, R2, S3
from gpu_offload.orchestrator.cost.usage import PriceStep
from gpu_offload.orchestrator.run import accounting
from gpu_offload.orchestrator.run.accounting import Accounting, read_bill, store_prices, use_of
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.observation import Observation
from gpu_offload.orchestrator.run.run_documents import RunDocuments
from gpu_offload.orchestrator.settings.sections import StoreSettings
from gpu_offload.remote_job.result import Heartbeat


@pytest.fixture
def accounts(tmp_path):
    return Accounting(open_store(f"file:{tmp_path}"), StoreSettings())


def test_a_bill_is_what_one_reckons_by_hand(accounts, monkeypatch):
    """Two attempts: 1,800 s reclaimed in its first hour, then 5,400 s while the price rose from 0.20 to 0.30."""
    from datetime import UTC, datetime

    from gpu_offload.infra.aws.spot_market import SpotMarket

    def history(_self, _kind, _zone, start, end):
        changed = datetime.fromtimestamp(T0 + 3600, UTC)
        return [(start, 0.20), *([(changed, 0.30)] if start < changed < end else [])]

    monkeypatch.setattr(SpotMarket, "spot_price_history", history)
    attempts = (
        seen_attempt(1, T0, T0 + 1800, "reclaimed"),
        seen_attempt(2, T0 + 1800, T0 + 7200),
    )
    bill = accounts.bill(run_of(now=T0), RunDocuments(attempts), now=T0 + 9000)
    by_hand = {
        "reclaimed in the first hour": Decimal(0),
        "its volume: 60 GiB x 1800 s / 2592000 s x 0.08": Decimal("0.003333"),
        "its address: 0.5 h x 0.005": Decimal("0.0025"),
        "1800 s at 0.20": Decimal("0.1"),
        "3600 s at 0.30": Decimal("0.3"),
        "volume: 60 GiB x 5400 s / 2592000 s x 0.08": Decimal("0.01"),
        "address: 1.5 h x 0.005": Decimal("0.0075"),
    }
    assert sorted(line.usd for line in bill.lines) == sorted(by_hand.values())
    assert bill.total == sum(by_hand.values()) == Decimal("0.423333")


def test_what_is_running_is_reckoned_until_now_at_the_price_of_its_offer(accounts):
    running = seen_attempt(1, T0, None)
    bill = accounts.known_bill(run_of(now=T0), RunDocuments((running,)), now=T0 + 3600)
    assert float(bill.total) == pytest.approx(0.2 + 0.005 + 60 * 0.08 / 720, abs=2e-6)


def test_the_requests_of_an_open_run_count_until_now_and_not_until_its_last_interruption():
    accounts = Accounting(SimpleNamespace(url="s3://bucket"), StoreSettings())
    attempts = (seen_attempt(1, T0, T0 + 60, "died"), seen_attempt(2, T0 + 60, None))
    bill = accounts.bill(run_of(now=T0), RunDocuments(attempts), now=T0 + 7200, ask=False)
    [reads] = [line for line in bill.lines if line.label.endswith("reads")]
    assert reads.quantity * 1000 == accounting.OVERHEAD_GETS + 7200 / 240 * 6


def test_an_attempt_that_was_refused_costs_nothing(accounts):
    refused = seen_attempt(1, T0, T0 + 5, "refused", with_host=False)
    assert accounts.bill(run_of(now=T0), RunDocuments((refused,)), now=T0 + 10).total == 0


@pytest.mark.simulator
def test_prices_that_cannot_be_read_are_those_of_the_offer(accounts):
    """The environment leads nowhere: EC2 does not answer."""
    bill = accounts.bill(run_of(now=T0), RunDocuments((seen_attempt(1, T0, T0 + 3600),)), now=T0 + 3600)
    assert bill.lines[0].usd == Decimal("0.200000")


def test_a_bill_is_written_once_and_read_back_to_the_last_digit(accounts):
    run, attempts = run_of(now=T0), (seen_attempt(1, T0, T0 + 3600, market="on-demand"),)
    Journal(accounts.store).begin(run)
    accounts.settle(run, Observation(now=T0 + 3600, me="me", attempts=attempts))
    written = read_bill(accounts.store, run.id)
    accounts.settle(run, Observation(now=T0 + 9999, me="me", attempts=()))
    assert read_bill(accounts.store, run.id) == written
    document = json.loads(accounts.store.read(f"runs/{run.id}/{accounting.COST}")[0])
    assert written.json() | {"instances": {"i-1": T0 + 3600}} == document
    assert written.total == sum(line.usd for line in written.lines)


def test_a_bucket_of_r2_has_the_prices_of_r2_and_a_folder_none():
    assert store_prices("s3://b", "https://x.r2.cloudflarestorage.com") is R2
    assert store_prices("s3://b", None) is S3
    assert store_prices("file:///x", None) is FOLDER


def test_an_attempt_on_a_clock_that_lags_behind_is_billed_for_its_first_minute():
    assert use_of(seen_attempt(1, T0, T0 - 3), run_of(now=T0), now=T0).billed_seconds == 60


def test_a_running_spot_instance_counts_by_the_prices_since_and_at_its_highest_where_they_are_unknown(
    accounts, monkeypatch
):
    """The price tripled after the launch: $2.86 must not look like $1.03."""
    running = seen_attempt(1, T0, None)
    running = replace(running, record=running.record.model_copy(update={"max_price_usd": 0.5}))
    seen = Observation(now=T0 + 36_000, me="me", attempts=(running,))
    extras = 10 * (0.005 + 60 * 0.08 / 720)
    told = []
    monkeypatch.setattr(accounting, "price_history", lambda attempt, now: tuple(told))
    assert accounts.spent(run_of(now=T0), seen) == pytest.approx(5.0 + extras, abs=1e-4)
    told += [PriceStep(T0, Decimal("0.1")), PriceStep(T0 + 3600, Decimal("0.3"))]
    later = replace(seen, now=T0 + 37_000)
    assert accounts.spent(run_of(now=T0), later) == pytest.approx(
        0.1 + 0.3 * 33_400 / 3600 + extras * 37 / 36, abs=1e-4
    )


def test_the_volume_counts_at_the_price_of_its_region_and_the_dataset_between_regions():
    far = seen_attempt(1, T0, T0 + 3600, market="on-demand")
    far = replace(far, host=far.host.model_copy(update={"region": "eu-central-1"}))
    run = run_of(now=T0, dataset_bytes=50 * 10**9, store_region="us-east-1")
    lines = {line.label: line.usd for line in attempt_lines(use_of(far, run, now=T0 + 3600))}
    assert lines["attempt 1: volume"] == pytest.approx(
        Decimal(60) * Decimal("0.0952") / 720, abs=Decimal("1e-6")
    )
    assert lines["attempt 1: transfer"] == Decimal("1.0")
    near = run.model_copy(update={"store_region": "eu-central-1"})
    assert "attempt 1: transfer" not in {
        line.label for line in attempt_lines(use_of(far, near, now=T0 + 3600))
    }


def test_a_run_that_chose_its_market_is_held_against_other_policies(accounts, monkeypatch):
    """Reclaimed after half an hour, then on-demand for two hours; early stopping ended it after 10 of 100 epochs."""
    monkeypatch.setattr(accounting, "price_history", lambda _attempt, now: ())
    spot, steady = gpu_offer(), replace(gpu_offer(market="on-demand"), usd_per_hour=0.526)
    run = run_of(spot, steady, now=T0, forced=False, deadline_at=T0 + 4 * 3600)
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"epochs": 100})})
    beat = Heartbeat(
        run=run.id, attempt=2, time=T0 + 9000, pid=1, host="h", boot_id="b", epochs_completed=10, epochs=100,
        state="finished", seconds_per_epoch=600.0,
    )  # fmt: skip
    last = seen_attempt(2, T0 + 1800, T0 + 9000, market="on-demand")
    attempts = (seen_attempt(1, T0, T0 + 1800, "reclaimed"), replace(last, heartbeat=beat))
    bill = accounts.bill(run, RunDocuments(attempts), now=T0 + 9000)
    others = {a.label: float(a.usd) for a in bill.alternatives}
    hourly = 0.526 + 0.005 + 50 * 0.08 / 720
    assert 6000 < others["on-demand only"] / hourly * 3600 < 7200
    assert others["the optimum in hindsight"] <= min(others["Uniform Progress"], float(bill.total))
    assert not any(
        "hindsight" in a.label
        for a in accounts.bill(run_of(now=T0), RunDocuments(attempts), now=T0).alternatives
    )
