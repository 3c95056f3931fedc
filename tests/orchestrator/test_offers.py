"""Offers: the built-in table, and their text."""

from importlib.resources import files

from pydantic import TypeAdapter

from gpu_offload.infra.aws.gpu_types import ONE_GPU
from gpu_offload.orchestrator.offers.offer import GPUS, Offer, cpu_offer
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.settings.sections import Ec2Settings


def spot(kind="g4dn.xlarge", zone="us-east-2a", usd=0.2, market="spot"):
    return Offer("ec2", kind, "us-east-2", zone, market, usd, "test", GPUS["T4"], 4, 16)


def test_the_table_is_dated_and_holds_the_design_s_prices():
    assert {offer.price_basis for offer in TABLE} == {"table of 2026-07, not today's prices"}
    prices = {(o.instance_type, o.region, o.market): o.usd_per_hour for o in TABLE}
    assert prices["g4dn.xlarge", "us-east-1", "spot"] == 0.213
    assert prices["g4dn.xlarge", "us-east-2", "spot"] == 0.145
    assert prices["g6e.xlarge", "us-east-1", "on-demand"] == 1.861
    assert len(prices) == len(TABLE) == 44
    assert all(o.on_demand_usd_per_hour >= o.usd_per_hour for o in TABLE)


def test_the_table_knows_how_many_gpus_a_type_has():
    counts = {o.instance_type: o.gpu.count for o in TABLE}
    assert {counts[name] for name in ONE_GPU} == {1}
    assert (counts["g5.12xlarge"], counts["g6e.48xlarge"]) == (4, 8)
    assert set(Ec2Settings(gpus=8).types) == {name for name, count in counts.items() if count == 8}
    assert Ec2Settings(instance_types=("g5.12xlarge", "p9.large"), gpus=4).types == (
        "g5.12xlarge",
        "p9.large",
    )


def test_an_offer_survives_the_journal():
    adapter = TypeAdapter(Offer)
    for offer in (*TABLE, cpu_offer(4)):
        assert adapter.validate_json(adapter.dump_json(offer)) == offer


def test_an_offer_s_name_is_short_and_unmistakable():
    assert spot().name == "g4dn.xlarge spot us-east-2a"
    assert spot(zone=None).name == "g4dn.xlarge spot us-east-2"
    assert cpu_offer(4).name == "this CPU"


def test_the_workflows_menu_lists_the_types_that_may_be_rented():
    template = files("gpu_offload.orchestrator.github") / "templates" / "offload.yml"
    assert f"options: [auto, {', '.join(ONE_GPU)}]" in template.read_text()
