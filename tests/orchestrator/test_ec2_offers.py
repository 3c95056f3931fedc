"""What EC2 offers now, as offers for a plan."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("moto", reason="the extra [simulator] is not installed")

from gpu_offload.infra.aws.price_list import OnDemandPrices
from gpu_offload.infra.aws.public_prices import PublicPrices
from gpu_offload.infra.aws.spot_market import InstanceType, Quotas, SpotPrice
from gpu_offload.infra.http import HttpError
from gpu_offload.infra.simulator.behaviour import Behaviour
from gpu_offload.infra.simulator.cloud import SimulatedCloud
from gpu_offload.orchestrator.offers import public
from gpu_offload.orchestrator.offers.ec2 import Region, ec2_offers, offers_of
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.settings.sections import Ec2Settings

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
T4 = InstanceType("g4dn.xlarge", 4, 16384, "T4", 1, ("x86_64",), spot=True)
REGION = Region(
    name="us-east-1",
    types=(T4,),
    zones={"g4dn.xlarge": ("us-east-1a", "us-east-1b")},
    spot=(SpotPrice("g4dn.xlarge", "us-east-1a", 0.2, NOW), SpotPrice("g4dn.xlarge", "us-east-1b", 0.1, NOW)),
    on_demand=OnDemandPrices({"g4dn.xlarge": 0.526}, "AWS Pricing API, us-east-1"),
    quotas=Quotas(8, 8),
)


def offered(region=REGION, market="spot-then-on-demand"):
    return offers_of(region, market, NOW)


def test_each_zone_and_market_is_an_offer_with_its_own_price_and_where_that_is_from():
    offers, notes = offered()
    assert [(o.zone, o.market, o.usd_per_hour) for o in offers] == [
        ("us-east-1a", "spot", 0.2),
        ("us-east-1a", "on-demand", 0.526),
        ("us-east-1b", "spot", 0.1),
        ("us-east-1b", "on-demand", 0.526),
    ]
    assert offers[0].price_basis == "EC2 API, 2026-11-22T20:00Z"
    assert offers[0].on_demand_usd_per_hour == 0.526
    assert offers[0].gpu.name == "NVIDIA T4"
    assert not notes


@pytest.mark.parametrize(("market", "found"), [("spot", {"spot"}), ("on-demand", {"on-demand"})])
def test_only_the_wanted_market_is_offered(market, found):
    assert {o.market for o in offered(market=market)[0]} == found


def test_a_quota_that_does_not_hold_the_type_leaves_its_market_out_and_says_what_to_do():
    offers, notes = offered(replace(REGION, quotas=Quotas(0, 8)))
    assert {o.market for o in offers} == {"on-demand"}
    assert len(notes) == 1
    assert "'All G and VT Spot Instance Requests'" in notes[0]


def test_the_quota_of_g_and_vt_instances_leaves_out_no_other_type():
    v100 = replace(T4, name="p3.2xlarge", vcpus=8, gpu="V100")
    region = replace(REGION, types=(v100,), zones={"p3.2xlarge": ("us-east-1a",)}, quotas=Quotas(0, 0))
    prices = OnDemandPrices({"p3.2xlarge": 3.06}, "AWS Pricing API, us-east-1")
    offers, notes = offered(replace(region, on_demand=prices))
    assert ([o.instance_type for o in offers], notes) == (["p3.2xlarge"], ())


def test_a_quota_that_cannot_be_read_excludes_no_offer():
    assert len(offered(replace(REGION, quotas=Quotas(None, None, "denied")))[0]) == 4


@pytest.mark.parametrize("kind", [replace(T4, gpu="Radeon"), replace(T4, architectures=("arm64",))])
def test_a_type_that_we_cannot_use_is_left_out_with_a_note(kind):
    offers, notes = offered(replace(REGION, types=(kind,)))
    assert not offers
    assert "g4dn.xlarge was left out" in notes[0]


def test_a_type_without_a_spot_price_in_a_zone_is_offered_on_demand_there():
    offers, _ = offered(replace(REGION, spot=REGION.spot[:1]))
    assert [o.market for o in offers if o.zone == "us-east-1b"] == ["on-demand"]


@pytest.mark.simulator
def test_the_api_is_asked_where_there_are_credentials(monkeypatch):
    said = io.StringIO()
    settings = Ec2Settings(regions=("us-east-1",), instance_types=("g4dn.xlarge", "g5.xlarge"))
    with SimulatedCloud(Behaviour(quota_on_demand_gpu=0)) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        offers = ec2_offers(settings, Console(said))
    assert {o.instance_type for o in offers} == {"g4dn.xlarge", "g5.xlarge"}
    assert {o.market for o in offers} == {"spot"}
    assert all(o.zone and o.price_basis.startswith("EC2 API, ") for o in offers)
    assert "quota is 0" in said.getvalue()


def without_credentials(monkeypatch, answer):
    """Return the offers and the notes without credentials, where AWS's price pages answer so."""

    def asked(_types, _regions):
        if isinstance(answer, Exception):
            raise answer
        return answer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(public, "public_prices", asked)
    said = io.StringIO()
    types = ("g4dn.xlarge", "g6.xlarge", "p3.2xlarge")
    settings = Ec2Settings(regions=("us-west-2", "eu-west-1"), instance_types=types)
    return ec2_offers(settings, Console(said)), said.getvalue()


def test_without_credentials_the_prices_are_those_of_aws_s_pages(monkeypatch):
    prices = PublicPrices(
        spot={("g4dn.xlarge", "us-west-2"): 0.19, ("g6.xlarge", "eu-west-1"): 0.3},
        on_demand={("g4dn.xlarge", "us-west-2"): 0.526},
        spot_published=NOW,
        on_demand_published=NOW - timedelta(days=9),
        faults=("no on-demand prices of eu-west-1: no answer",),
    )
    offers, said = without_credentials(monkeypatch, prices)
    assert [(o.instance_type, o.region, o.zone, o.market, o.usd_per_hour) for o in offers] == [
        ("g4dn.xlarge", "us-west-2", None, "spot", 0.19),
        ("g4dn.xlarge", "us-west-2", None, "on-demand", 0.526),
        ("g6.xlarge", "eu-west-1", None, "spot", 0.3),
    ]
    assert offers[0].price_basis == "AWS's price pages, 2026-11-22T20:00Z"
    assert offers[1].price_basis == "AWS's price pages, 2026-11-13T20:00Z"
    assert (offers[0].on_demand_usd_per_hour, offers[2].on_demand_usd_per_hour) == (0.526, None)
    assert "no on-demand prices of eu-west-1" in said
    assert "p3.2xlarge was left out" in said


@pytest.mark.parametrize("answer", [HttpError("no answer"), PublicPrices({}, {}, NOW, None)])
def test_without_credentials_and_pages_the_table_counts_and_a_note_says_so(monkeypatch, answer):
    offers, said = without_credentials(monkeypatch, answer)
    assert offers is None
    assert "prices are from our table" in said
    assert "no prices of us-west-2, eu-west-1" in said


def test_another_cloud_s_prices_are_not_those_of_aws_s_pages(monkeypatch):
    """`AWS_ENDPOINT_URL` leads to it, as in a simulated cloud."""
    monkeypatch.setattr(public, "public_prices", None)
    assert public.public_offers(Ec2Settings(), Console(io.StringIO())) is None
