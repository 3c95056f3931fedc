"""A store or a checkout of an unknown owner: what it holds is data, and starts, overwrites and replaces nothing."""

import gzip
import json
import subprocess

import pytest
import run_case
from registry_case import manifest_for
from run_case import KEY

from gpu_offload.infra.store.errors import StoreUrlError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.lifecycle.status import standings
from gpu_offload.orchestrator.project_states import places_text
from gpu_offload.orchestrator.registry import difference
from gpu_offload.orchestrator.registry.manifest import Manifest, RegistryError, parse, to_json
from gpu_offload.orchestrator.registry.revert import is_ancestor
from gpu_offload.orchestrator.report.load import gather, render
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.run.lease import Lease
from gpu_offload.orchestrator.run.record import Outcome
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings
from gpu_offload.orchestrator.state import state_folder
from gpu_offload.orchestrator.workspace import Workspace

EXPORT = {
    "format": "onnx",
    "file": {"name": "model.onnx", "size": 1, "sha256": "0" * 64},
    "agreement": 1.0,
    "images": 8,
}

BARE = """
[core]
repositoryformatversion = 1
bare = true
sshCommand = touch {marker}; false
[extensions]
partialClone = o
[remote "o"]
url = ssh://x/y
promisor = true
"""


@pytest.fixture
def versions(tmp_path):
    """Return a function that makes the manifests of two versions with these commits."""
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")

    def made(one, two):
        return tuple(manifest_for(model).model_copy(update={"commit": commit}) for commit in (one, two))

    return made


@pytest.mark.process
def test_a_committed_bare_repository_is_not_asked_and_runs_no_command(tmp_path, versions):
    data, marker = tmp_path / "data", tmp_path / "executed"
    for folder in ("objects", "refs/heads"):
        (data / folder).mkdir(parents=True)
    (data / "HEAD").write_text("ref: refs/heads/main\n")
    (data / "config").write_text(BARE.format(marker=marker))
    assert difference._by_git(data, *versions("1" * 40, "2" * 40)) is None
    assert not is_ancestor(data, "1" * 40, "2" * 40)
    assert not marker.exists()


@pytest.mark.process
def test_a_published_commit_is_no_option_of_git(tmp_path, versions):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "-C", str(tmp_path), *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    assert difference._by_git(tmp_path, *versions(f"--output={victim}", "HEAD")) is None
    assert not is_ancestor(tmp_path, "--all", "HEAD")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "body",
    [
        b"no archive",
        gzip.compress(b"{")[:-4],
        gzip.compress(b"[1]"),
        gzip.compress(b'{"images": [1]}'),
        gzip.compress(b"[" * 100_000),
        gzip.compress(bytes(difference.MOST_BYTES + 1), 1),
    ],
    ids=["no archive", "cut", "no object", "no list of images", "deep", "bomb"],
)
def test_a_damaged_list_of_images_is_no_list(body, tmp_path, versions):
    store = open_store(f"file:{tmp_path / 'store'}")
    one, two = versions(None, None)
    store.put(difference.data_key(one.fingerprint), body)
    assert difference._by_store(store, one, two) is None


@pytest.mark.parametrize(
    "protocol", ["file", "local", "dir", "generic", "zip", "tar", "git", "reference", "data"]
)
def test_a_store_of_other_files_leads_away_from_this_machine(protocol, tmp_path):
    """A checkout may hold a planted folder or archive; `file:` has its own check."""
    with pytest.raises(StoreUrlError, match="file:FOLDER"):
        open_store(f"fsspec+{protocol}://{tmp_path}")


def test_the_folders_that_may_be_deleted_do_not_hold_the_store(tmp_path):
    settings = Settings(dataset=DatasetSettings(path="x"), root=tmp_path)
    workspace = Workspace.of(tmp_path)
    store = state_folder(tmp_path) / "store"
    assert store.is_relative_to(workspace.root)
    assert not any(store.is_relative_to(folder) for folder in workspace.caches())
    assert f"{workspace.root}/{{cache,trees,work}}" in places_text(settings, workspace)


@pytest.mark.parametrize(
    "claim",
    [
        {"cost_usd": 1e300},
        {"cost_usd": -1.0},
        {"cost_usd": float("nan")},
        {"where": "x" * 1000},
        {"metrics": {"m" * 1000: 0.5}},
        {"metrics": {f"m{number}": 0.5 for number in range(1000)}},
        {"exports": [EXPORT | {"format": "x" * 1000}]},
        {"exports": [EXPORT | {"format": "../x"}]},
    ],
    ids=lambda claim: str(claim)[:30],
)
def test_what_a_training_claims_of_itself_is_bounded_before_it_is_published(claim, versions):
    manifest, _ = versions("1" * 40, "2" * 40)
    document = json.loads(to_json(manifest)) | claim
    with pytest.raises(RegistryError):
        parse(Manifest, "manifest.json", json.dumps(document).encode())


DEEP, HUGE = b"[" * 200_000, 10**400
BEAT = {"run": "abc-1", "attempt": 1, "time": 1.0, "pid": 1, "host": "h", "boot_id": "b", "state": "training"}
CHECKPOINT = {
    "run": "abc-1", "attempt": 1, "training_key": KEY, "epochs_completed": 1, "epochs": 3, "seconds": 1.0,
    "last": {"name": "last.pt", "size": 1, "sha256": "0" * 64},
}  # fmt: skip
RESULT = json.loads(run_case.result_of().model_dump_json(by_alias=True))


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("attempts/1/heartbeat.json", DEEP),
        ("attempts/1/heartbeat.json", BEAT | {"epochs_completed": HUGE, "epochs": HUGE}),
        ("attempts/1/progress.jsonl", DEEP),
        ("checkpoint/manifest.json", DEEP),
        ("checkpoint/manifest.json", CHECKPOINT | {"epochs_completed": HUGE}),
        ("checkpoint/manifest.json", CHECKPOINT | {"seconds": float("inf")}),
        ("checkpoint/manifest.json", CHECKPOINT | {"last": CHECKPOINT["last"] | {"size": HUGE}}),
        ("result/result.json", b'{"a":' * 200_000),
        ("result/result.json", RESULT | {"attempt": HUGE}),
        ("result/result.json", RESULT | {"epochs_completed": -1, "stopped_early": True}),
        ("result/result.json", RESULT | {"timings": {"total": float("nan")}}),
        ("result/result.json", RESULT | {"causes": ["\x1b[2J"] * 100_000}),
        ("result/cost.json", DEEP),
        ("cost.json", DEEP),
        ("stop.json", DEEP),
        ("driver.json", DEEP),
        ("driver.json", Lease().lease().model_dump() | {"pid": 10**30}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:12],
)
def test_a_forged_document_of_a_run_counts_as_damaged_and_crashes_no_reader(name, forged, tmp_path):
    body = forged if isinstance(forged, bytes) else json.dumps(forged).encode()
    store = open_store(f"file:{tmp_path / 'store'}")
    journal, run = Journal(store), run_case.run_of()
    journal.begin(run)
    journal.open_attempt(run.id, run_case.attempt_of(run))
    store.put(f"runs/{run.id}/{name}", body)
    documents = journal.read(run.id)
    assert documents.checkpoint is None
    assert documents.result is None
    settings = Settings(dataset=DatasetSettings(path="x"), root=tmp_path)
    assert [one.status for one in standings(store, settings)] == ["open"]
    assert render(gather(store, settings.store, run.id), "json")
    assert journal.open_ids(now=1.0) == [run.id]
    assert Lease().claim(store, run.id) is None


@pytest.mark.parametrize("folder", ["checkpoint", "result", "attempts/1"])
@pytest.mark.parametrize("name", ["outcome.json", "cost.json"])
def test_what_an_instance_can_write_ends_no_run(folder, name, tmp_path):
    """Else the daily reading of all runs would leave it alone for good, with its instance."""
    store = open_store(f"file:{tmp_path / 'store'}")
    journal, run = Journal(store), run_case.run_of()
    journal.begin(run)
    store.put(f"runs/{run.id}/{folder}/{name}", b"{}")
    if name == "cost.json":
        journal.finish(run.id, Outcome(status="failed", at=1.0))
    store.delete(f"open/{run.id}.json")
    assert journal.index.scan(1.0) == ([run.id] if name == "outcome.json" else [])
    assert [key for key, _ in journal.index._entries()] == [run.id]


@pytest.mark.parametrize(
    "at", [b"1e999", b"NaN", b"9" * 400, b"[" * 200_000], ids=["inf", "nan", "huge", "deep"]
)
def test_a_forged_time_of_the_last_look_at_all_runs_does_not_put_the_next_off(at, tmp_path):
    store = open_store(f"file:{tmp_path / 'store'}")
    journal, run = Journal(store), run_case.run_of()
    journal.begin(run)
    store.delete(f"open/{run.id}.json")
    store.put("open/index.json", b'{"at": ' + at + b"}")
    assert journal.open_ids(now=1.0) == [run.id]


def test_a_record_under_anothers_name_is_neither_run_nor_attempt(tmp_path):
    store = open_store(f"file:{tmp_path / 'store'}")
    journal, run = Journal(store), run_case.run_of()
    journal.begin(run)
    store.put(f"runs/{run.id}/attempts/1.json", run_case.attempt_of(run, 7).model_dump_json().encode())
    with pytest.raises(JournalError, match="7"):
        journal.read(run.id)
    store.put("runs/abc-2/run.json", store.read(f"runs/{run.id}/run.json")[0])
    with pytest.raises(JournalError, match="abc-1"):
        journal.run("abc-2")


@pytest.mark.parametrize("renewed_at", [1e300, float("inf"), float("nan")])
def test_a_lease_from_the_future_is_an_expired_one(renewed_at, tmp_path):
    store = open_store(f"file:{tmp_path / 'store'}")
    lease = Lease(host="elsewhere", boot_id="x").lease().model_dump() | {"renewed_at": renewed_at}
    store.put("runs/abc-1/driver.json", json.dumps(lease).encode())
    assert Lease().claim(store, "abc-1") is None
