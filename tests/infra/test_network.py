"""One security group per run, that lets one address in at one port."""

from datetime import UTC, datetime

import pytest

from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.errors import DeniedError, EndpointError, InUseError, InvalidRequestError
from gpu_offload.infra.aws.network import Network
from gpu_offload.infra.aws.public_address import public_cidr
from gpu_offload.infra.aws.tags import format_time, parse_time


@pytest.fixture(scope="module")
def session():
    return open_session("us-east-1")


@pytest.fixture
def network(cloud, session):
    network = Network("us-east-1", session=session)
    yield network
    network._client.close()


def vpc_of(network):
    return next(iter(network.subnets().values())).vpc


def made(network, cidr, port=22, **more):
    return network.create_security_group("r1", cidr, port, vpc=vpc_of(network), **more)


def rules(network, group):
    found = network._client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    return [
        (rule["FromPort"], rule["ToPort"], [entry["CidrIp"] for entry in rule["IpRanges"]]) for rule in found
    ]


def test_a_runs_group_lets_one_address_in_at_one_port(network):
    expires = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)
    group = made(network, "203.0.113.7/32", 2222, expires=expires)
    assert rules(network, group) == [(2222, 2222, ["203.0.113.7/32"])]
    assert [(item.id, item.run, item.expires) for item in network.find_security_groups("r1")] == [
        (group, "r1", expires)
    ]


def test_making_a_group_again_gives_the_same_one_and_lets_in_the_new_address_only(network):
    group = made(network, "203.0.113.7/32")
    assert made(network, "203.0.113.7/32") == group
    assert rules(network, group) == [(22, 22, ["203.0.113.7/32"])]
    assert made(network, "198.51.100.9/32") == group
    assert rules(network, group) == [(22, 22, ["198.51.100.9/32"])]


def test_a_group_whose_making_had_its_reply_lost_is_found_again(cloud, network):
    cloud.fail_once(lambda call: call.action == "CreateSecurityGroup", 500, after=True)
    group = made(network, "203.0.113.7/32")
    assert [item.id for item in network.find_security_groups()] == [group]


def test_a_group_that_exists_but_is_not_shown_yet_is_looked_for_again(cloud, network, no_waiting):
    cloud.fail_once(lambda call: call.action == "CreateSecurityGroup", 500, after=True)
    nothing = "<DescribeSecurityGroupsResponse><securityGroupInfo/></DescribeSecurityGroupsResponse>"
    cloud.fail_once(lambda call: call.action == "DescribeSecurityGroups", 200, nothing, times=3)
    group = made(network, "203.0.113.7/32")
    assert [item.id for item in network.find_security_groups()] == [group]


def test_a_group_of_that_name_that_is_not_ours_is_left_alone(network):
    network._client.create_security_group(
        GroupName="gpu-offload-r1", Description="mine", VpcId=vpc_of(network)
    )
    with pytest.raises(DeniedError, match="not ours"):
        made(network, "203.0.113.7/32")
    assert network.find_security_groups() == []


def test_a_group_goes_once_and_not_while_an_instance_has_it(cloud, network):
    group = made(network, "203.0.113.7/32")
    fault = "<Response><Errors><Error><Code>DependencyViolation</Code><Message>x</Message></Error></Errors></Response>"
    cloud.fail_once(lambda call: call.action == "DeleteSecurityGroup", 400, fault)
    with pytest.raises(InUseError) as caught:
        network.delete_security_group(group)
    assert caught.value.retry == "same"
    assert network.delete_security_group(group)
    assert not network.delete_security_group(group)
    assert network.find_security_groups() == []


def test_a_new_group_that_is_not_known_everywhere_yet_gets_its_rule_all_the_same(cloud, network, no_waiting):
    fault = "<Response><Errors><Error><Code>InvalidGroup.NotFound</Code><Message>x</Message></Error></Errors></Response>"
    cloud.fail_once(lambda call: call.action == "AuthorizeSecurityGroupIngress", 400, fault, times=2)
    group = made(network, "203.0.113.7/32")
    assert rules(network, group) == [(22, 22, ["203.0.113.7/32"])]


def test_every_zone_has_its_default_subnet(network):
    subnets = network.subnets()
    assert list(subnets) == sorted(subnets)
    assert all(subnet.zone == zone and subnet.public for zone, subnet in subnets.items())
    assert network.subnet("us-east-1b") == subnets["us-east-1b"]
    assert network.subnet("us-east-1b", subnets["us-east-1b"].id) == subnets["us-east-1b"]


def test_a_subnet_of_another_zone_and_a_zone_without_one_are_refused_with_what_to_do(network):
    subnets = network.subnets()
    with pytest.raises(InvalidRequestError, match="belongs to one zone"):
        network.subnet("us-east-1a", subnets["us-east-1b"].id)
    for subnet in subnets.values():
        network._client.delete_subnet(SubnetId=subnet.id)
    with pytest.raises(InvalidRequestError, match=r"create-default-subnet .* --availability-zone us-east-1a"):
        network.subnet("us-east-1a")


def test_a_time_of_a_tag_is_read_as_it_was_written_and_nonsense_is_none():
    at = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)
    assert parse_time(format_time(at)) == at
    assert parse_time("tomorrow") is None
    assert parse_time(None) is None


@pytest.mark.parametrize(
    ("given", "cidr"), [("203.0.113.7", "203.0.113.7/32"), ("203.0.113.7/24", "203.0.113.0/24")]
)
def test_the_address_to_let_in_can_be_given(given, cidr):
    assert public_cidr(given) == cidr


@pytest.mark.parametrize("given", ["0.0.0.0/0", "everybody", "::1"])
def test_an_invalid_or_unlimited_address_is_refused(given):
    with pytest.raises(InvalidRequestError):
        public_cidr(given)


@pytest.mark.parametrize(
    ("answer", "cidr"), [(b"203.0.113.7\n", "203.0.113.7/32"), (b"<html>", None), (b"::1", None)]
)
def test_a_machine_asks_a_service_for_its_own_address_and_believes_an_address_only(cloud, answer, cidr):
    cloud.fail_once(lambda call: True, 200, answer)
    if cidr:
        assert public_cidr(url=cloud.url) == cidr
    else:
        with pytest.raises(EndpointError, match="no IPv4 address"):
            public_cidr(url=cloud.url)


@pytest.mark.simulator
def test_a_service_that_does_not_send_the_address_is_an_error_with_the_setting_to_use():
    with pytest.raises(EndpointError, match="ssh-cidr"):
        public_cidr(url="http://127.0.0.1:9")
    with pytest.raises(InvalidRequestError, match="https"):
        public_cidr(url="http://example.org")
