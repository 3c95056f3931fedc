"""How an environment is protected, as GitHub's public API tells it."""

from contextlib import contextmanager

import pytest
from local_http import LocalServer

from gpu_offload.infra.github.protection import Protection, protection_of

ENVIRONMENT = "/repos/us/it/environments/gpu"
REVIEWERS = {"type": "required_reviewers", "reviewers": [{"type": "User"}, {"type": "Team"}]}
BRANCHES = {"protected_branches": False, "custom_branch_policies": True}

pytestmark = pytest.mark.simulator


@contextmanager
def github(answers):
    def reply(request):
        found = answers.get(request.path)
        return (200, found) if found else (404, {"message": "Not Found"})

    with LocalServer(reply) as server:
        yield {"GITHUB_API_URL": server.url}


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"protection_rules": [REVIEWERS], "deployment_branch_policy": BRANCHES}, Protection(True, 2, True)),
        ({"protection_rules": [{"type": "wait_timer"}]}, Protection(True, 0, False)),
        ({"protection_rules": None, "deployment_branch_policy": None}, Protection(True, 0, False)),
    ],
)
def test_reviewers_and_branches_are_read(found, wanted):
    with github({ENVIRONMENT: found}) as variables:
        assert protection_of("us/it", "gpu", variables) == wanted


def test_a_missing_environment_is_distinguished_from_a_repository_that_cannot_be_read():
    with github({"/repos/us/it": {"private": False}}) as variables:
        assert protection_of("us/it", "gpu", variables) == Protection(exists=False)
        assert protection_of("us/other", "gpu", variables) is None
    assert protection_of("us/it", "gpu", {"GITHUB_API_URL": "http://127.0.0.1:9"}) is None
