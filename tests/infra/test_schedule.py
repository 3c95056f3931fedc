"""AWS itself terminates at an absolute time, with no driver and no instance alive."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpu_offload.infra.aws.credentials import open_session
from gpu_offload.infra.aws.schedule import Schedules
from gpu_offload.infra.aws.schedule_name import MAX_NAME, schedule_name

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/gpu-offload-scheduler"


@pytest.fixture(scope="module")
def session():
    return open_session("us-east-1")


@pytest.fixture
def schedules(cloud, session):
    schedules = Schedules("us-east-1", session=session)
    yield schedules
    schedules._client.close()


def test_a_schedule_terminates_the_instance_once_and_goes(cloud, schedules):
    name = schedules.create("r1", 2, "i-123", AT, ROLE)
    call = next(call for call in cloud.calls if call.method == "POST")
    assert call.path == f"/schedules/{name}"
    sent = json.loads(call.body)
    assert sent["ScheduleExpression"] == "at(2030-01-02T03:04:05)"
    assert sent["ScheduleExpressionTimezone"] == "UTC"
    assert sent["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert sent["ActionAfterCompletion"] == "DELETE"
    assert sent["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    assert sent["Target"]["RoleArn"] == ROLE
    assert json.loads(sent["Target"]["Input"]) == {"InstanceIds": ["i-123"]}


def test_a_schedule_is_found_by_its_run_and_deleted_once(schedules):
    name = schedules.create("r1", 2, "i-123", AT, ROLE)
    schedules.create("r10", 1, "i-456", AT, ROLE)
    found = schedules.find("r1")
    assert [(item.name, item.run, item.attempt, item.instance_id, item.at) for item in found] == [
        (name, "r1", 2, "i-123", AT)
    ]
    assert {item.run for item in schedules.find()} == {"r1", "r10"}
    assert schedules.delete(name)
    assert not schedules.delete(name)
    assert schedules.find("r1") == []


def test_two_stores_with_a_run_of_the_same_name_have_schedules_of_their_own(schedules):
    schedules.create("r1", 1, "i-123", AT, ROLE, store="a" * 16)
    schedules.create("r1", 1, "i-456", AT, ROLE, store="b" * 16)
    assert {(s.run, s.store, s.instance_id) for s in schedules.find()} >= {
        ("r1", "a" * 16, "i-123"), ("r1", "b" * 16, "i-456")
    }  # fmt: skip
    assert [s.instance_id for s in schedules.find("r1", store="a" * 16)] == ["i-123"]


def test_making_a_schedule_again_sets_it_to_the_new_instance(schedules):
    schedules.create("r1", 1, "i-123", AT, ROLE)
    schedules.create("r1", 1, "i-456", AT, ROLE)
    assert [item.instance_id for item in schedules.find("r1")] == ["i-456"]


def test_a_run_whose_name_is_too_long_for_a_schedule_is_found_as_well(schedules):
    run = "x" * 100
    schedules.create(run, 1, "i-123", AT, ROLE)
    assert [item.run for item in schedules.find(run)] == [run]


@given(st.text(min_size=1, max_size=120), st.integers(1, 999))
@example("r" * 49, 10)
def test_a_schedules_name_is_one_that_aws_takes_and_is_found_by_its_run(run, attempt):
    name = schedule_name(run, attempt)
    assert len(name) <= MAX_NAME
    assert name.isascii()
    assert name == schedule_name(run, 0).removesuffix("0") + str(attempt)
