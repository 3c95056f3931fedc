"""What a store no longer needs is deleted, and nothing that an alias or an open run needs."""

import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from crash_scenario import Scenario, run_record
from hypothesis import given
from hypothesis import strategies as st
from registry_case import differ, manifest_for

from gpu_offload.infra.store.errors import StoreDeniedError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.protocol import ObjectInfo
from gpu_offload.orchestrator.backends.staging import dataset_keys
from gpu_offload.orchestrator.cleanup.prune import after_publication, prune
from gpu_offload.orchestrator.cleanup.retention import DAY_S, Needs, Retention, candidates, owner_of
from gpu_offload.orchestrator.cleanup.usage import GB, TIERS, growth_of, tier_of, usage
from gpu_offload.orchestrator.cli import offload
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.registry import alias, download, publish
from gpu_offload.orchestrator.registry.index import entry_for, mark_deleted
from gpu_offload.orchestrator.registry.manifest import IndexEntry, RegistryError, Yank, to_json
from gpu_offload.orchestrator.registry.promote import promote, yank
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import Origin, Outcome
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.remote_job.staged_dataset import SHARDS, StagedDataset, StagedShard, dataset_key

EVERYTHING = Retention(keep=1, days=0.0)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"w" * 1000)
    return path


def published(store, model, *names):
    for number, name in enumerate(names):
        manifest = manifest_for(model, name, 100.0 + number)
        publish.publish(store, manifest, model, note=lambda _: None)


def names(pruned, kind="version"):
    return [c.name for c in pruned.candidates if c.kind == kind]


def test_only_what_no_alias_needs_is_deleted_and_only_with_the_option(store, model):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff")
    shown = prune(store, EVERYTHING)
    # stable, the two before it to roll back to, and the newest
    assert names(shown) == ["aaaa", "bbbb", "cccc"]
    assert store.stat("models/aaaa/model.pt") is not None
    done = prune(store, EVERYTHING, delete=True)
    assert done.freed == shown.freed > 3000
    assert [i.key for i in store.list("models/aaaa/")] == []
    assert prune(store, EVERYTHING).candidates == ()
    assert [e.semver for e in publish.versions(store) if e.deleted] == ["1.0.0", "1.0.1", "1.0.2"]
    for wanted in ("1.0.0", "aaaa"):
        with pytest.raises(RegistryError, match="deleted"):
            download.resolve(store, wanted)
    with pytest.raises(RegistryError, match="deleted"):
        promote(store, "1.0.0", why="x")


def test_a_deleted_version_that_is_trained_again_is_there_again_under_its_number(store, model):
    """With other bytes, as a GPU gives them, in the index and wherever an alias could lead to it."""
    published(store, model, "aaaa", "bbbb", "cccc", "dddd")
    prune(store, EVERYTHING, delete=True)
    model.write_bytes(b"other" * 300)
    again = manifest_for(model, "aaaa", 9e9)
    publish.publish(store, again, model, note=lambda _: None)
    assert (publish.versions(store)[0].semver, publish.versions(store)[0].deleted) == ("1.0.0", False)
    stable = alias.alias_of(store, "stable")
    assert stable.version == "aaaa"
    assert {m.sha256 for m in stable.moves if m.version == "aaaa"} == {again.model.sha256}
    assert download.resolve(store, "stable").model.sha256 == again.model.sha256


def test_a_manifest_that_was_replaced_is_not_listed_when_its_training_is_asked_for_again(store, model):
    published(store, model, "aaaa")
    model.write_bytes(b"forged")
    forged = manifest_for(model, "aaaa")
    store.put("models/aaaa/manifest.json", to_json(forged))
    publish.complete(store, forged, again=True)
    with pytest.raises(RegistryError, match="replaced"):
        download.resolve(store, "stable")


def test_yanked_versions_go_first_and_young_ones_stay(store, model):
    published(store, model, "aaaa", "bbbb")
    yank(store, "bbbb", why="bad")
    assert names(prune(store, Retention(keep=5, days=0.0))) == ["bbbb"]
    assert names(prune(store, Retention(keep=5, days=30.0), clock=lambda: 101.0 + 86_400)) == []


@pytest.mark.simulator
def test_a_version_is_as_old_as_the_store_says_whatever_the_clocks_of_publisher_and_driver(new_store, model):
    store = new_store("bucket")
    for name, created_at in (
        ("aaaa", 100.0),
        ("bbbb", 9e9),
        ("cccc", 101.0),
        ("dddd", 102.0),
        ("eeee", 103.0),
    ):
        publish.publish(store, manifest_for(model, name, created_at), model, note=lambda _: None)
        promote(store, name, why="x")
    assert names(prune(store, Retention(keep=1, days=30.0), delete=True)) == []
    differ(store, 31 * DAY_S)
    assert names(prune(store, Retention(keep=1, days=30.0))) == ["aaaa", "bbbb"]


def test_a_version_that_is_trained_again_is_young_again(store, model):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd")
    prune(store, EVERYTHING, delete=True)
    published(store, model, "aaaa", "eeee", "ffff", "gggg")
    assert names(prune(store, Retention(keep=1, days=30.0))) == []


def test_files_that_a_killed_publication_or_deletion_left_go_unless_an_open_run_publishes_them(store, model):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee")
    mark_deleted(store, "aaaa")
    store.delete("models/aaaa/manifest.json")
    run = run_record(Scenario())
    for version in ("zzzz", run.version):
        store.put(f"models/{version}/model.pt", b"half")
    journal = Journal(store)
    journal.begin(run)
    shown = prune(store, EVERYTHING)
    assert {*names(shown)} == {"aaaa", "bbbb", "zzzz"}
    prune(store, EVERYTHING, delete=True)
    assert {info.key.split("/")[1] for info in store.list("models/")} == {"cccc", "dddd", "eeee", run.version}
    assert shown.total - sum(info.size for info in store.list("")) == pytest.approx(shown.freed, abs=500)
    journal.finish(run.id, Outcome(status="failed", at=1.0))
    assert names(prune(store, EVERYTHING)) == [run.version]


def test_no_more_is_deleted_than_brings_the_store_below(store, model):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee")
    total = prune(store, EVERYTHING).total
    assert names(prune(store, Retention(1, 0.0, below=total))) == []
    assert names(prune(store, Retention(1, 0.0, below=total - 1))) == ["aaaa"]


def test_what_an_open_run_works_with_stays_and_a_published_runs_checkpoint_goes(store):
    journal = Journal(store)
    run = run_record(Scenario())
    journal.begin(run)
    for key in (f"runs/{run.id}/checkpoint/last.pt", f"datasets/{run.fingerprint}.tar", "datasets/other.tar"):
        store.put(key, b"x" * 100)
    open_ = prune(store, EVERYTHING)
    assert [(c.kind, c.name) for c in open_.candidates] == [("dataset", "other")]
    journal.finish(run.id, Outcome(status="failed", at=1.0))
    assert names(prune(store, EVERYTHING), "run") == []  # the next run of this training resumes from it


def listed(store, fingerprint, *shards):
    keys = [f"{SHARDS}{name}.tar" for name in shards]
    for key in keys:
        store.put(key, b"x" * 100)
    body = StagedDataset(shards=tuple(StagedShard(key=key) for key in keys)).model_dump_json().encode()
    store.put(dataset_key(fingerprint), body)


def shards_in(store):
    return "".join(info.key.removeprefix(SHARDS)[0] for info in store.list(SHARDS))


def test_shards_go_with_the_last_dataset_that_needs_them(store):
    journal, run = Journal(store), run_record(Scenario())
    journal.begin(run)
    listed(store, run.fingerprint, "a", "b")
    listed(store, "other", "b", "c")
    store.put(f"{SHARDS}d.tar", b"x" * 100)
    assert prune(store, Retention(5, 1.0), delete=True).candidates == ()
    done = prune(store, EVERYTHING, delete=True)
    assert sorted(c.name for c in done.candidates) == ["other", "unfinished"]
    assert shards_in(store) == "ab"
    assert {info.key for info in store.list("datasets/")} >= {dataset_key(run.fingerprint)}
    journal.finish(run.id, Outcome(status="failed", at=1.0))
    prune(store, EVERYTHING, delete=True)
    assert list(store.list("datasets/")) == []


@pytest.mark.parametrize(("where", "kept"), [("ec2", "abc"), ("cpu", "")])
def test_no_shard_goes_while_an_open_run_stages_its_dataset(store, where, kept):
    """It may use any shard that is there; a run on this machine stages none."""
    run = run_record(Scenario())
    first = run.candidates[0]
    offer = replace(first.offer, where=where)
    Journal(store).begin(run.model_copy(update={"candidates": (first.model_copy(update={"offer": offer}),)}))
    listed(store, "other", "a", "b")
    store.put(f"{SHARDS}c.tar", b"x" * 100)
    prune(store, EVERYTHING, delete=True)
    assert shards_in(store) == kept


def test_the_shards_of_a_runs_own_list_stay(store):
    run = run_record(Scenario())
    Journal(store).begin(run)
    listed(store, "other", "a", "b")
    own = StagedDataset(shards=(StagedShard(key=f"{SHARDS}a.tar"), StagedShard(key="runs/x/inputs/b.tar")))
    store.put(dataset_keys(run)[1], own.model_dump_json().encode())
    prune(store, EVERYTHING, delete=True)
    assert shards_in(store) == "a"


def test_the_checkpoint_of_a_run_that_published_goes_and_its_journal_stays(store):
    journal = Journal(store)
    run = run_record(Scenario())
    journal.begin(run)
    store.put(f"runs/{run.id}/checkpoint/last.pt", b"x" * 100)
    store.put(f"runs/{run.id}/result/model.pt", b"x" * 100)
    journal.finish(run.id, Outcome(status="published", at=1.0, version="a"))
    done = prune(store, EVERYTHING, delete=True)
    assert (names(done, "run"), done.freed) == ([run.id], 200)
    assert {i.key.rpartition("/")[2] for i in store.list(f"runs/{run.id}/")} == {"run.json", "outcome.json"}


def test_an_earlier_run_of_a_published_training_keeps_no_checkpoint(store, model):
    """It was stopped; another run continued from a copy of its checkpoint, and published."""
    journal, now = Journal(store), 1.0
    stopped = run_record(Scenario())
    key = stopped.training_key
    runs = [stopped.model_copy(update={"id": f"{key[:12]}-{n}"}) for n in (1, 2, 3)]
    for run in runs:
        journal.begin(run)
        store.put(f"runs/{run.id}/checkpoint/manifest.json", b"{}")
        store.put(f"runs/{run.id}/checkpoint/last.pt", b"x" * 100)
    journal.finish(runs[0].id, Outcome(status="stopped", at=now))
    journal.finish(runs[1].id, Outcome(status="published", at=now, version=key[:16]))
    published(store, model, key[:16])
    assert names(prune(store, EVERYTHING), "run") == [runs[0].id, runs[1].id]
    journal.discard_checkpoints(runs[1])
    left = {info.key.split("/")[1] for run in runs for info in store.list(f"runs/{run.id}/checkpoint/")}
    assert left == {runs[2].id}, "it is still open"


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), unique_by=lambda pair: pair[0]),
    st.sets(st.sampled_from("abcdefgh")),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 10_000)),
)
def test_what_is_needed_is_never_a_candidate(listed, needed, keep, below):
    entries = [
        IndexEntry(
            version=name,
            created_at=float(n),
            sha256="0" * 64,
            size=1,
            metrics={},
            yanked=Yank(at=0, by="", why="bad") if bad else None,
        )
        for n, (name, bad) in enumerate(listed)
    ]
    objects = [
        ObjectInfo(f"models/{name}/{file}", 500, "e", datetime.fromtimestamp(n, UTC))
        for n, (name, _) in enumerate([*listed, *((name, False) for name in "xyz")])
        for file in ("model.pt", "manifest.json")
    ]
    found = candidates(
        objects,
        entries,
        Needs(frozenset(needed), frozenset(), frozenset()),
        {},
        Retention(keep, 0.0, below),
        1e9,
    )
    gone = {c.name for c in found}
    assert not gone & needed
    assert gone <= {e.version for e in entries}
    good = [e.version for e in entries if e.yanked is None]
    assert not gone & set(good[-keep:])


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("models/aaaa/model.pt", ("version", "aaaa")),
        ("runs/a-1/checkpoint/last.pt", ("run", "a-1")),
        ("runs/a-1/run.json", None),
        ("runs/a-1/attempts/1/log", None),
        ("datasets/ffff.tar", ("dataset", "ffff")),
        ("datasets/ffff.tar.json", ("dataset", "ffff")),
        ("datasets/ffff.json", ("dataset", "ffff")),
        ("datasets/shards/ffff.tar", None),
        ("datasets/ffff.json.gz", None),
        ("weights/yolo11n.pt", None),
        ("aliases/stable.json", None),
        ("index.json", None),
    ],
)
def test_journal_aliases_weights_and_lists_always_stay(key, owner):
    assert owner_of(key) == owner


def test_the_free_tier_and_how_many_applications_it_carries():
    objects = [ObjectInfo("models/a/model.pt", 6 * 10**6, "e", datetime.now(UTC))]
    old = usage(objects, TIERS["s3-old"], model=6 * 10**6, users=100, updates=4)
    assert (old.gets, old.egress) == (100 * 34, 100 * 4 * 6 * 10**6)
    assert old.most_users == 20_000 // 34
    assert old.warnings() == []
    full = usage(objects, TIERS["s3-old"], model=6 * 10**6, users=500, updates=4)
    assert ["requests a month" in warning for warning in full.warnings()] == [True]
    for used, warned in ((4 * GB - 1, 0), (4 * GB, 1), (5 * GB, 1)):
        held = [ObjectInfo("models/a/model.pt", used, "e", datetime.now(UTC))]
        at = usage(held, TIERS["s3-old"], model=0, users=0, updates=0)
        assert (len(at.warnings()), at.cost_usd) == (warned, 0), "all that is free may be used"
    assert usage(objects, TIERS["folder"], model=1, users=10**9, updates=9).most_users is None
    assert usage([], TIERS["s3"], model=GB, users=200, updates=1).most_users == 100


def test_what_is_beyond_the_free_tier_costs_and_its_end_is_foreseen():
    objects = [ObjectInfo("models/a/model.pt", 6 * GB, "e", datetime.now(UTC))]
    over = usage(objects, TIERS["s3-old"], model=GB, users=200, updates=1, growth=GB)
    assert over.cost_usd == pytest.approx(
        0.023 + 100 * 0.09
    )  # 1 GB too much, 200 GB of transfer where 100 are free
    assert over.full_in_days == 0
    assert usage(objects, TIERS["s3"], model=0, users=0, updates=0).cost_usd == pytest.approx(6 * 0.023)
    r2 = usage(objects, TIERS["r2"], model=GB, users=200, updates=1, growth=GB)
    assert (r2.cost_usd, r2.full_in_days) == (0, 4 * 30)
    assert "120 days" in r2.text()
    assert usage(objects, TIERS["folder"], model=GB, users=9, updates=9, growth=GB).cost_usd is None


def test_a_store_grows_by_its_models_and_exports_since_the_first_one(model):
    entries = [
        entry_for(manifest_for(model, version, at))
        for version, at in (("aaaa", 0.0), ("bbbb", 86_400.0 * 60))
    ]
    size = entries[0].size
    assert growth_of(entries, 86_400.0 * 60) == size
    assert growth_of(entries[:1], 1.0) == size
    assert growth_of([], 1.0) == 0
    gone = entries[0].model_copy(update={"deleted": True})
    assert growth_of([gone, entries[1]], 86_400.0 * 60) == size / 2


@pytest.mark.parametrize(
    ("url", "endpoint", "name"),
    [
        ("sftp://me@files.example.org/srv", None, "sftp"),
        ("file:.offload", None, "folder"),
        ("s3://b", None, "S3"),
        ("s3://b", "https://x.r2.cloudflarestorage.com", "R2"),
        ("s3://b", "https://minio.example.org", "minio.example.org"),
    ],
)
def test_the_tier_is_that_of_the_stores_address(url, endpoint, name):
    assert name in tier_of(url, endpoint).name


def test_the_commands_say_it(tmp_path, model):
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "raw"\n[store]\nurl = "file:store"\n')
    store = open_store(f"file:{tmp_path / 'store'}")
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee")
    for file in (tmp_path / "store").rglob("*"):
        os.utime(file, (100, 100))

    def run(*words):
        return CliRunner().invoke(offload, [*words, "-C", str(tmp_path)]).output

    found = json.loads(run("prune", "--keep", "1", "--json"))
    assert (found["dry_run"], [d["name"] for d in found["deleted"]]) == (True, ["aaaa", "bbbb"])
    assert all("days old" in d["why"] for d in found["deleted"])
    assert ["newest 1" in why for why in found["kept"].values()] == [True, False, False]
    assert all("alias" in why for why in found["kept"].values())
    young = json.loads(run("prune", "--keep", "1", "--days", "36500", "--json"))["kept"]
    assert ["younger than 36500 days" in why for why in young.values()] == [True] * 5
    assert "--delete" in run("prune", "--keep", "1")
    assert "freed" in run("prune", "--keep", "1", "--delete")
    assert "nothing to delete" in run("prune", "--keep", "1")
    used = json.loads(run("usage", "--json", "--tier", "s3-old"))
    assert used["parts"]["models"]["objects"] == 9
    told = run("usage")
    assert "applications" in told
    assert "free" not in told, "a folder has no free tier"


def configured(tmp_path, text="", url="file:store"):
    (tmp_path / "raw").mkdir(exist_ok=True)
    (tmp_path / "offload.toml").write_text(f'[dataset]\npath = "raw"\n[store]\nurl = "{url}"\n{text}')
    return load_settings(tmp_path, environment={})


@pytest.mark.parametrize(
    ("text", "left", "said"),
    [
        ("", 6, ""),
        ('[retention]\nmode = "dry-run"\nkeep = 1\ndays = 0\n', 6, "would delete"),
        ('[retention]\nmode = "delete"\nkeep = 1\ndays = 0\n', 3, "deleted"),
        ('[retention]\nmode = "delete"\nkeep = 5\ndays = 0\n', 5, "version aaaa"),
        ('[retention]\nmode = "delete"\nkeep = 1\ndays = 36500\n', 6, ""),
        ('[retention]\nmode = "delete"\nkeep = 1\ndays = 0\nbelow-gb = 1.0\n', 6, ""),
    ],
)
def test_after_a_publication_the_configuration_decides_what_goes(store, model, tmp_path, text, left, said):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee")
    manifest = manifest_for(model, "ffff", datetime.now(UTC).timestamp())
    publish.publish(store, manifest, model, note=lambda _: None)
    out = io.StringIO()
    assert after_publication(store, configured(tmp_path, text), Console(out)) == ()
    assert said in out.getvalue()
    assert sum(not e.deleted for e in publish.versions(store)) == left


def test_a_store_without_a_limit_is_not_listed_after_a_publication(tmp_path):
    assert after_publication(None, configured(tmp_path), Console(io.StringIO())) == ()


def test_a_store_that_is_nearly_full_or_refuses_deletions_is_a_warning(store, model, tmp_path):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee")
    bucket = configured(tmp_path, 'endpoint-url = "https://x.r2.cloudflarestorage.com"\n', "s3://models")

    class Other:
        def __getattr__(self, name):
            return getattr(store, name)

        def list(self, prefix):
            for info in store.list(prefix):
                yield replace(info, size=9 * GB) if info.key == "models/aaaa/model.pt" else info

        def delete(self, key):
            raise StoreDeniedError("AccessDenied")

    [warning] = after_publication(Other(), bucket, Console(io.StringIO()))
    assert "90% of what is free (Cloudflare R2)" in warning
    strict = configured(tmp_path, '[retention]\nmode = "delete"\nkeep = 1\ndays = 0\n')
    [warning] = after_publication(Other(), strict, Console(io.StringIO()))
    assert "AccessDenied" in warning
    assert download.resolve(store, "aaaa").version == "aaaa", "what could not be deleted is as it was"
    store.put("runs/old-1/run.json", b"{")  # an unreadable run fails no command that has published
    [warning] = after_publication(store, strict, Console(io.StringIO()))
    assert "runs/old-1/run.json" in warning


def test_the_version_that_an_open_run_continues_stays(store, model):
    published(store, model, "aaaa", "bbbb", "cccc", "dddd", "eeee")
    origin = Origin(recipe="e" * 64, version="aaaa", warm_starts=1, note="")
    Journal(store).begin(run_record(Scenario()).model_copy(update={"origin": origin}))
    assert "aaaa" not in names(prune(store, EVERYTHING))
