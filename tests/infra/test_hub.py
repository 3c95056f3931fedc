"""A store on the Hugging Face Hub: the identity of a workflow in place of a secret, and what is said when the Hub refuses."""

import pytest
from hub_case import REPOSITORY, Hub

from gpu_offload.infra.store.errors import StoreDeniedError, StoreError, StoreUnreachableError

pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
from gpu_offload.infra.store.hub import HubStore

CLAIMS = {"repository": "us/training", "branch": "main"}


@pytest.fixture
def job(monkeypatch):
    """Return a function that makes this process a workflow's job which may ask for its identity."""

    def made(hub):
        variables = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": CLAIMS["repository"],
            "GITHUB_REF_NAME": CLAIMS["branch"],
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.url}/identity?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "the-runners-own",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN", "")  # as a workflow sets it from a secret that is not there
        return HubStore(f"hf://{REPOSITORY}", endpoint=hub.url)

    return made


@pytest.mark.simulator
def test_a_job_publishes_by_its_identity_and_exchanges_it_anew_when_the_token_runs_out(job):
    with Hub(CLAIMS, expires_in=300) as hub:  # the client renews five minutes before the end
        store = job(hub)
        store.create("index.json", b"1")
        store.create("aliases/stable.json", b"2")
        assert len(hub.tokens) > 2
        assert store.read("index.json")[0] == b"1"


@pytest.mark.simulator
def test_each_store_of_a_job_gets_a_token_for_its_own_repository(job):
    class Two(Hub):
        other, of = "us/mirror", {}

        def exchange(self, wanted):
            repository = wanted["resource"]
            status, answer = super().exchange(wanted | {"resource": REPOSITORY})
            self.of[answer["access_token"]] = repository
            return status, answer

        def answer(self, path, body, token):
            repository = self.other if self.other in path else REPOSITORY
            if "/commit/" in path and self.of.get(token) != repository:
                return 403, {"error": "Forbidden"}
            return super().answer(path.replace(self.other, REPOSITORY), body, token)

    with Two(CLAIMS) as hub:
        first, second = job(hub), HubStore(f"hf://{Two.other}", endpoint=hub.url)
        for name in "ab":
            first.create(f"{name}/first.json", b"1")
            second.create(f"{name}/second.json", b"2")
        assert sorted(hub.of.values()) == [REPOSITORY, Two.other]


@pytest.mark.simulator
def test_a_workflow_that_the_hub_does_not_trust_writes_nothing_and_gets_the_claims_to_add(job):
    with Hub(CLAIMS) as hub:
        hub.claims["branch"] = "other"
        with pytest.raises(StoreDeniedError) as refused:
            job(hub).create("index.json", b"1")
        assert all(f"{claim} = {value}" in str(refused.value) for claim, value in CLAIMS.items())
        assert f"{REPOSITORY}/settings" in str(refused.value)
        assert len(hub.commits) == 1


@pytest.mark.simulator
def test_a_secret_that_is_given_is_used_instead(job, monkeypatch):
    with Hub(CLAIMS) as hub:
        job(hub)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub.tokens.append("hf_secret")
        HubStore(f"hf://{REPOSITORY}", endpoint=hub.url).create("index.json", b"1")
        assert hub.tokens == ["hf_secret"]


@pytest.mark.simulator
def test_a_hub_that_does_not_answer_is_said_to(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(StoreUnreachableError):
        HubStore(f"hf://{REPOSITORY}", endpoint="http://127.0.0.1:9").read("index.json")


@pytest.mark.simulator
@pytest.mark.parametrize("where", ["identity", "exchange", "revision", "paths-info", "preupload", "commit"])
def test_an_answer_of_an_unforeseen_form_is_an_error_of_the_store(job, where):
    """As of a proxy that answers every address with its own page."""

    class Unforeseen(Hub):
        def reply(self, request):
            place = "oauth/token" if where == "exchange" else where
            return (200, [[]]) if f"/{place}" in request.path and self.bad else super().reply(request)

    with Unforeseen(CLAIMS) as hub:
        hub.bad = False
        store = job(hub)
        store.create("aliases/stable.json", b"0")
        if where in {"identity", "exchange"}:
            store = job(hub)
        hub.bad = True
        with pytest.raises(StoreError):
            store.create("index.json", b"1")
