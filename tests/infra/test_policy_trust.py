"""Which tokens become which role, tried by a simulator of IAM."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_case import ACCOUNT, SITE, policy
from policy_simulator import token_request

from gpu_offload.infra.simulator.iam import Request, allowed

ENVIRONMENT = "repo:octo-org/octo-repo:environment:gpu"
BRANCH = "repo:octo-org/octo-repo:ref:refs/heads/main"
SUBJECTS = {
    ENVIRONMENT: {"launcher"},
    "repo:octo-org@123456/octo-repo@456789:environment:gpu": {"launcher"},
    BRANCH: {"janitor", "publisher"},
    "repo:octo-org@123456/octo-repo@456789:ref:refs/heads/main": {"janitor", "publisher"},
    "repo:octo-org/octo-repo:pull_request": set(),
    "repo:octo-org@123456/octo-repo@456789:pull_request": set(),
    "repo:stranger/octo-repo:environment:gpu": set(),
    "repo:stranger/octo-repo:ref:refs/heads/main": set(),
    "repo:octo-org@999/octo-repo@456789:environment:gpu": set(),
    "repo:octo-org@123456/octo-repo@1:ref:refs/heads/main": set(),
    "repo:octo-org/octo-repo:ref:refs/heads/feature": set(),
    "repo:octo-org/octo-repo:ref:refs/tags/main": set(),
    "repo:octo-org/octo-repo:environment:gpu2": set(),
    "repo:octo-org/octo-repo-2:environment:gpu": set(),
    "repo:octo-org/octo-repo:*": set(),
    "repo:*": set(),
    "*": set(),
    "REPO:octo-org/octo-repo:environment:gpu": set(),
    "": set(),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_who_becomes_which_role(subject):
    trusted = {
        role
        for role in ("launcher", "janitor", "publisher")
        if allowed([policy(SITE, f"{role}-trust")], token_request(subject))
    }
    assert trusted == SUBJECTS[subject]


@pytest.mark.parametrize("audience", ["https://github.com/octo-org", "", "*", "sts.amazonaws.com.evil"])
def test_a_token_for_another_audience_is_refused(audience):
    assert not allowed([policy(SITE, "launcher-trust")], token_request(ENVIRONMENT, audience))
    assert not allowed([policy(SITE, "janitor-trust")], token_request(BRANCH, audience))


@given(st.text(max_size=60), st.sampled_from(["launcher", "janitor", "publisher"]))
def test_no_other_subject_ever_gets_in(subject, role):
    if role not in SUBJECTS.get(subject, set()):
        assert not allowed([policy(SITE, f"{role}-trust")], token_request(subject))


@pytest.mark.parametrize("role", ["launcher", "janitor", "publisher"])
@pytest.mark.parametrize(
    "claims",
    [
        {"ref": "refs/heads/feature"},
        {"ref": "refs/tags/main"},
        {"ref": "refs/pull/1/merge"},
        {"ref": None},
        {"repository_id": "1"},
        {"repository_id": None},
    ],
)
def test_a_token_of_another_branch_or_repository_is_refused_whatever_its_subject(role, claims):
    """An environment's subject names no branch, and a repository that takes over a name has another number."""
    subject = ENVIRONMENT if role == "launcher" else BRANCH
    assert allowed([policy(SITE, f"{role}-trust")], token_request(subject))
    assert not allowed([policy(SITE, f"{role}-trust")], token_request(subject, **claims))


def test_a_stack_can_trust_one_workflow_file_alone():
    workflow = "octo-org/octo-repo/.github/workflows/offload.yml@refs/heads/main"
    trust = policy(replace(SITE, job_workflow_ref=workflow), "janitor-trust")
    assert allowed([trust], token_request(BRANCH, job_workflow_ref=workflow))
    for other in (None, workflow.replace("offload", "evil"), workflow.replace("heads/main", "heads/x")):
        assert not allowed([trust], token_request(BRANCH, job_workflow_ref=other))


def test_the_scheduler_is_trusted_for_this_account_only():
    document = policy(SITE, "scheduler-trust")
    group = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/default"
    assume = "sts:AssumeRole"
    mine = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": group}
    other = {"aws:SourceAccount": "999988887777", "aws:SourceArn": group.replace(ACCOUNT, "999988887777")}
    assert allowed([document], Request(assume, "*", mine))
    assert not allowed([document], Request(assume, "*", other))
    assert not allowed([document], Request(assume, "*", {}))
