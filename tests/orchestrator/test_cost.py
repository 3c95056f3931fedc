"""The bill: every line by hand, and a sum that is exact."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cost.bill import attempt_lines, bill, cpu_line, spent, store_lines
from gpu_offload.orchestrator.cost.prices import R2, S3, expected_cost
from gpu_offload.orchestrator.cost.traffic import UNCHARGED, StorePlace, Traffic
from gpu_offload.orchestrator.cost.usage import AttemptUse, PriceStep, StoreUse
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.offers.offer import GPUS, Offer, cpu_offer
from gpu_offload.orchestrator.plan.decision import judge
from gpu_offload.orchestrator.plan.option import Limits
from gpu_offload.orchestrator.registry.stores import store_place
from gpu_offload.orchestrator.settings.load import DatasetSettings, Settings, StoreSettings

T0 = 1_795_000_000.0


def use(seconds=1800.0, *, prices=((0, "0.20"),), **changes):
    given_ = {
        "number": 1,
        "name": "g4dn.xlarge spot us-east-2a",
        "market": "spot",
        "launched_at": T0,
        "ended_at": T0 + seconds,
        "prices": tuple(PriceStep(T0 + since, Decimal(usd)) for since, usd in prices),
        "on_demand_usd_per_hour": Decimal("0.526"),
        "volume_gib": 30,
    }
    return AttemptUse(**given_ | changes)


def test_half_an_hour_is_billed_by_hand():
    """$0.20/h for 30 min; 30 GiB at $0.08 a month of 720 h; an address at $0.005/h."""
    instance, volume, address = attempt_lines(use())
    assert instance.usd == Decimal("0.100000")
    assert (instance.quantity, instance.unit) == (Decimal("0.5"), "h")
    assert volume.usd == Decimal("0.001667")
    assert address.usd == Decimal("0.002500")
    assert bill([use()]).total == Decimal("0.104167")


def test_each_second_is_billed_at_the_zone_s_price_of_that_time():
    """10 min at 0.20, 20 min at 0.30, then 30 min at 0.10."""
    lines = attempt_lines(use(3600, prices=((0, "0.20"), (600, "0.30"), (1800, "0.10"))))
    assert [line.usd for line in lines[:3]] == [Decimal("0.033333"), Decimal("0.100000"), Decimal("0.050000")]
    assert sum(line.quantity for line in lines[:3]) == pytest.approx(Decimal(1))


def test_a_price_history_that_begins_late_or_ends_early_still_covers_every_second():
    late = attempt_lines(use(3600, prices=((1800, "0.30"),)))
    assert late[0].usd == Decimal("0.300000")
    early = attempt_lines(use(3600, prices=((-86400, "0.10"), (-3600, "0.30"), (7200, "9"))))
    assert early[0].usd == Decimal("0.300000")


def test_a_few_seconds_are_billed_as_a_minute():
    assert attempt_lines(use(5))[0].usd == Decimal("0.003333")
    assert attempt_lines(use(60))[0].usd == Decimal("0.003333")
    assert attempt_lines(use(61))[0].usd == Decimal("0.003389")


def test_an_instance_that_aws_reclaims_in_its_first_hour_is_free_but_its_volume_is_not():
    instance, volume, address = attempt_lines(use(3599, reclaimed=True))
    assert instance.usd == 0
    assert instance.note == "reclaimed in its first hour: not charged ($0.20 otherwise)"
    assert volume.usd > 0
    assert address.usd > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"reclaimed": True, "ended_at": T0 + 3600},
        {"reclaimed": False},
        {"reclaimed": True, "market": "on-demand"},
    ],
    ids=["after the first hour", "terminated by us", "on demand"],
)
def test_otherwise_a_first_hour_is_charged(changes):
    assert attempt_lines(use(**changes))[0].usd > 0


def test_the_store_is_billed_by_requests_storage_and_egress():
    lines = store_lines(
        StoreUse(
            S3,
            puts=2000,
            gets=10_000,
            stored_bytes=10**9,
            stored_seconds=30 * 86400,
            egress_bytes=2 * 10**9,
        )
    )
    assert [line.usd for line in lines] == [
        Decimal("0.010000"),
        Decimal("0.004000"),
        Decimal("0.023000"),
        Decimal("0.180000"),
    ]
    assert store_lines(StoreUse(S3)) == ()
    assert store_lines(StoreUse(R2, egress_bytes=10**12))[0].usd == 0


def test_a_public_repository_s_runner_is_free_and_its_begun_minutes_are_counted():
    assert (cpu_line(601).usd, cpu_line(601).quantity) == (0, 11)
    assert "private" in cpu_line(601).note


def test_a_run_of_two_attempts_is_compared_with_everywhere_else():
    first = use(1200, reclaimed=True)
    second = use(3600, number=2)
    whole = bill(
        [first, second],
        StoreUse(S3, puts=100),
        training_seconds=4000,
        cpu_estimate=Interval(20_000, 25_000, 30_000),
    )
    by_label = {a.label: a for a in whole.alternatives}
    assert whole.total == sum(line.usd for line in whole.lines)
    kept = sum(line.usd for line in whole.lines if "volume" in line.label or "IPv4" in line.label)
    on_demand = by_label["the same instances on demand"]
    assert on_demand.usd == Decimal("0.175333") + Decimal("0.526") + kept
    assert by_label["GitHub's GPU runner"].usd == 67 * Decimal("0.052")
    assert by_label["the free CPU runner"].usd == 0
    assert "6 h 57" in by_label["the free CPU runner"].note
    assert whole.json()["total_usd"] == str(whole.total)


def test_an_attempt_that_ends_before_it_begins_or_has_no_price_is_refused():
    with pytest.raises(ValueError, match="before it began"):
        use(-1)
    with pytest.raises(ValueError, match="no price"):
        use(prices=())


uses = st.builds(
    use,
    st.floats(0, 200_000),
    prices=st.lists(
        st.tuples(st.floats(-1e5, 1e5), st.decimals("0.0001", "50", places=4).map(str)),
        min_size=1,
        max_size=8,
    ),
    reclaimed=st.booleans(),
    volume_gib=st.integers(0, 1000),
)


@given(st.lists(uses, max_size=4))
def test_the_lines_add_up_to_the_total_exactly_and_follow_from_quantity_and_price(attempts):
    whole = bill(attempts)
    assert whole.total == sum((line.usd for line in whole.lines), Decimal(0))
    for line in whole.lines:
        assert line.usd >= 0
        assert abs(line.quantity * line.unit_price - line.usd) <= Decimal("0.000001")
    assert spent(attempts) == pytest.approx(float(whole.total))


@given(uses)
def test_every_billed_second_has_exactly_one_price(attempt):
    lines = [line for line in attempt_lines(attempt) if line.label.endswith(attempt.name)]
    assert sum(line.quantity for line in lines) * 3600 == pytest.approx(attempt.billed_seconds)
    dearest = max(step.usd_per_hour for step in attempt.prices)
    assert sum(line.usd for line in lines) <= attempt.billed_seconds * dearest / 3600 + Decimal("0.00001")


@given(uses, st.floats(0, 100_000))
def test_running_longer_never_costs_less_unless_aws_ends_it(attempt, longer):
    if attempt.reclaimed:
        return
    later = use(
        attempt.ended_at - T0 + longer, prices=[(s.since - T0, str(s.usd_per_hour)) for s in attempt.prices]
    )
    sooner = use(attempt.ended_at - T0, prices=[(s.since - T0, str(s.usd_per_hour)) for s in attempt.prices])
    assert bill([sooner]).total <= bill([later]).total + Decimal("0.00001")


def test_an_expected_cost_includes_the_volume_and_the_address():
    offer = Offer("ec2", "g4dn.xlarge", "us-east-2", None, "spot", 0.145, "test", GPUS["T4"], 4, 16)
    likely, high = expected_cost(offer, Interval(1800, 3600, 7200), volume_gib=72)
    assert likely == pytest.approx(0.145 + 0.005 + 0.008)
    assert high == pytest.approx(2 * likely)
    assert expected_cost(cpu_offer(4), Interval(1, 2, 3)) == (0.0, 0.0)


def test_what_was_expected_of_an_attempt_is_what_it_costs_if_it_takes_so_long():
    offer = Offer("ec2", "g4dn.xlarge", "us-east-2", None, "spot", 0.2, "test", GPUS["T4"], 4, 16)
    likely, _ = expected_cost(offer, Interval(1, 1800, 9000), volume_gib=30)
    assert spent([use(1800)]) == pytest.approx(likely, abs=2e-6)


ELSEWHERE, OUTSIDE = StorePlace(in_aws=True, region="eu-west-1"), StorePlace(outside=True)


@pytest.mark.parametrize(
    ("store", "region", "read", "written"),
    [
        (ELSEWHERE, "us-east-1", "0.02", "0.02"),
        (ELSEWHERE, "sa-east-1", "0.02", "0.138"),
        (replace(ELSEWHERE, region="ap-south-1"), "us-east-1", "0.086", "0.02"),
        (replace(ELSEWHERE, region="us-east-1"), "us-east-1", "0", "0"),
        (OUTSIDE, "us-east-1", "0", "0.09"),
        (OUTSIDE, "ap-northeast-1", "0", "0.114"),
        (UNCHARGED, "us-east-1", "0", "0"),
    ],
)
def test_what_passes_between_an_instance_and_the_store_is_billed_by_where_both_are(
    store, region, read, written
):
    """10 GB are read and 5 GB are written, each at the price of the region that it leaves."""
    lines = attempt_lines(use(region=region, store=store, bytes_read=10**10, bytes_written=5 * 10**9))
    transfers = {line.quantity: line.usd for line in lines if line.label.endswith("transfer")}
    assert transfers.get(Decimal(10), 0) == 10 * Decimal(read)
    assert transfers.get(Decimal(5), 0) == 5 * Decimal(written)


def test_a_bucket_at_an_address_of_awss_is_in_aws(tmp_path):
    """Its traffic would otherwise be charged as that to the internet."""
    address = StoreSettings(
        url="s3://models", endpoint_url="https://s3.eu-west-1.amazonaws.com", region="eu-west-1"
    )
    settings = Settings(dataset=DatasetSettings(path="raw"), store=address)
    folder = open_store(f"file:{tmp_path}")
    assert store_place(settings, folder, {}) == ELSEWHERE
    r2 = address.model_copy(update={"endpoint_url": "https://account.r2.cloudflarestorage.com"})
    assert store_place(settings.model_copy(update={"store": r2}), folder, {}) == OUTSIDE


def test_transfers_are_in_an_options_cost_and_can_make_it_too_dear():
    offer = Offer(
        "ec2", "g4dn.xlarge", "us-east-1", "us-east-1a", "spot", 0.2, "test", GPUS["T4"], 4, 16.0, 0.5
    )
    traffic = Traffic(store=ELSEWHERE, inputs=10**10, epoch=10**8, result=10**7)
    usd = traffic.usd("us-east-1", 100)
    assert usd == pytest.approx(10 * 0.02 + 10.01 * 0.02 + 3 * 0.01 * 0.09)
    limits = Limits(deadline_s=86_400, max_cost_usd=0.5)
    hour = Interval(3000, 3600, 4000)
    assert judge(offer, hour, limits).feasible
    assert not judge(offer, hour, limits, traffic_usd=usd).feasible
    assert judge(offer, hour, limits, traffic_usd=usd).cost_likely == pytest.approx(
        judge(offer, hour, limits).cost_likely + usd
    )
    dearer = judge(offer, hour, limits, volume_gib=500)
    assert dearer.cost_high > judge(offer, hour, limits).cost_high + 0.01
