"""Who we are to AWS, and that it lasts longer than a role's hour."""

from datetime import UTC, datetime, timedelta

import pytest
from local_http import LocalServer

from gpu_offload.infra.aws.caller import caller
from gpu_offload.infra.aws.credentials import describe_credentials, open_session
from gpu_offload.infra.aws.errors import CredentialsError, EndpointError, NoCredentialsError
from gpu_offload.infra.store.errors import StoreCredentialsError
from gpu_offload.infra.store.s3_credentials import open_store_session, store_keys

ROLE = "arn:aws:iam::123456789012:role/launcher"


@pytest.fixture
def runner():
    """A workflow runner's token endpoint; `asked` are the requests it got."""

    def reply(request):
        server.asked.append((request.path, request.headers["Authorization"]))
        return server.failing.pop() if server.failing else server.status, {
            "value": f"token-{len(server.asked)}"
        }

    with LocalServer(reply) as server:
        server.asked, server.failing, server.status = [], [], 200
        yield server


@pytest.fixture
def environ(runner):
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{runner.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
        "AWS_ROLE_ARN": ROLE,
        "GITHUB_RUN_ID": "77",
    }


def sts_answer(expires, key="ASIA1"):
    return (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        f"<Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )


def test_on_a_runner_the_role_is_assumed_with_its_token_before_the_environments_credentials(
    cloud, runner, environ
):
    session = open_session("us-east-1", environ=environ)
    assert runner.asked == []
    assert describe_credentials(session) == f"GitHub OIDC as {ROLE}"
    assert session.get_credentials().get_frozen_credentials().token
    assert runner.asked == [("/token?api-version=2.0&audience=sts.amazonaws.com", "bearer request-token")]
    form = cloud.of("AssumeRoleWithWebIdentity")[0].form
    assert (form["RoleArn"], form["WebIdentityToken"], form["RoleSessionName"], form["DurationSeconds"]) == (
        ROLE,
        "token-1",
        "gpu-offload-77-1",
        "3600",
    )


def test_a_session_renews_itself_with_a_new_token_before_it_expires(cloud, runner, environ):
    now = datetime.now(UTC)
    ends = [(now + timedelta(minutes=2), "ASIA1"), (now + timedelta(hours=1), "ASIA2")]

    def sts(call, answer):
        return (200, sts_answer(*ends.pop(0))) if call.action == "AssumeRoleWithWebIdentity" else None

    cloud.faults.append(sts)
    credentials = open_session("us-east-1", environ=environ).get_credentials()
    keys = [credentials.get_frozen_credentials().access_key for _ in range(3)]
    assert keys == ["ASIA1", "ASIA2", "ASIA2"]
    tokens = [call.form["WebIdentityToken"] for call in cloud.of("AssumeRoleWithWebIdentity")]
    assert tokens == ["token-1", "token-2"]


def test_a_runner_that_fails_for_a_moment_is_asked_again(cloud, runner, environ, no_waiting):
    runner.failing = [503, 429]
    session = open_session("us-east-1", environ=environ)
    assert session.get_credentials().get_frozen_credentials().token
    assert cloud.of("AssumeRoleWithWebIdentity")[0].form["WebIdentityToken"] == "token-3"


@pytest.mark.simulator
def test_a_runner_that_does_not_answer_is_not_taken_for_a_missing_permission(environ, no_waiting):
    environ["ACTIONS_ID_TOKEN_REQUEST_URL"] = "http://127.0.0.1:1/token"
    with pytest.raises(EndpointError, match="run the job again") as silent:
        open_session("us-east-1", environ=environ).get_credentials().get_frozen_credentials()
    assert silent.value.retry == "same"


def test_a_runner_without_a_token_is_an_error_that_names_the_permission(cloud, runner, environ):
    runner.status = 403
    with pytest.raises(CredentialsError, match="id-token: write"):
        open_session("us-east-1", environ=environ).get_credentials().get_frozen_credentials()


def test_a_token_endpoint_that_is_not_safe_is_not_asked(cloud, environ):
    environ["ACTIONS_ID_TOKEN_REQUEST_URL"] = "http://example.org/token"
    with pytest.raises(CredentialsError, match="not an https address"):
        open_session("us-east-1", environ=environ).get_credentials().get_frozen_credentials()


def test_elsewhere_it_is_botos_own_chain(cloud):
    session = open_session("us-east-1", environ={})
    assert describe_credentials(session) == "environment variables"
    assert caller(session).arn.startswith("arn:aws:")


def test_no_credentials_at_all_are_an_error(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    session = open_session("us-east-1", environ={})
    assert describe_credentials(session) == "no AWS credentials"
    with pytest.raises(NoCredentialsError, match="AWS_PROFILE"):
        caller(session)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_is_an_error_that_names_the_missing_half(monkeypatch, name):
    monkeypatch.delenv(name)
    with pytest.raises(CredentialsError, match=f"{name} is not"):
        caller(open_session("us-east-1", environ={}))


ELSEWHERE = "https://account.store.example"
KEYS = {"STORE_ACCESS_KEY_ID": "id", "STORE_SECRET_ACCESS_KEY": "key"}


def test_a_store_outside_aws_gets_its_own_keys_and_no_other_server_does():
    credentials = open_store_session(ELSEWHERE, environ=KEYS).get_credentials()
    assert (credentials.access_key, credentials.secret_key, credentials.token) == ("id", "key", None)
    for endpoint in (None, "https://s3.eu-west-1.amazonaws.com"):
        assert open_store_session(endpoint, environ=KEYS).get_credentials().access_key != "id"
        assert store_keys(endpoint, KEYS) == {}
    assert store_keys(ELSEWHERE, {}) == {}


def test_half_a_key_of_a_store_is_an_error():
    with pytest.raises(StoreCredentialsError, match="STORE_SECRET_ACCESS_KEY is not set"):
        store_keys(ELSEWHERE, {"STORE_ACCESS_KEY_ID": "id"})
