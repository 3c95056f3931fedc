"""A training that claims things: what `keep` does not take from it."""

import io
import json
import os
import tarfile

import pytest
from release_case import A, B, Runner, release, release_store

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
)
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.github.cached_store import unfinished_key
from gpu_offload.orchestrator.github.release import keep
from gpu_offload.orchestrator.github.run_archive import unpack
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.manifest import Alias, RegistryError


def test_a_model_that_is_not_what_its_manifest_promises_is_not_kept(github, tmp_path, model):
    runner = Runner(github, tmp_path)
    runner.publish(model, A)
    runner.pack(A)
    (tmp_path / "packed" / f"models-{A}-model.pt").write_bytes(b"another")
    with pytest.raises(CorruptObjectError):
        runner.keep()
    assert github.files() == {}


NOW = 1_000.0


def rewrite(path, **changes):
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | changes))


def honest(github, tmp_path, model, version=A):
    runner = Runner(github, tmp_path / version)
    runner.publish(model, version)
    runner.pack(version)
    return runner, tmp_path / version / "packed"


@pytest.mark.parametrize("changes", [{"version": B}, {"training_key": B * 4}])
def test_a_manifest_of_another_training_is_not_kept(github, tmp_path, model, changes):
    runner, packed = honest(github, tmp_path, model)
    rewrite(packed / f"models-{A}-manifest.json", **changes)
    with pytest.raises(RegistryError, match="planned"):
        runner.keep(A)
    assert github.files() == {}


def test_files_of_another_version_are_left_out(github, tmp_path, model):
    runner, packed = honest(github, tmp_path, model)
    for name in ("model.pt", "manifest.json"):
        (packed / f"models-{B}-{name}").write_bytes(b"planted")
    (packed / f"unfinished-{B[:12]}.tar").write_bytes(b"planted")
    runner.keep(A)
    assert not [name for name in github.files() if B[:12] in name]


@pytest.mark.parametrize("claim", [9e15, float("inf"), float("nan"), -1.0])
def test_a_future_time_does_not_pin_stable(github, tmp_path, model, claim):
    runner, packed = honest(github, tmp_path, model)
    for path in packed.glob("*.json"):
        path.write_text(path.read_text().replace("100.0", json.dumps(claim)))
    runner.keep(A, now=NOW)
    assert publish.alias_of(open_store(github.address), "stable").moved_at == NOW
    assert [v.created_at for v in publish.versions(open_store(github.address))] == [NOW]
    later = Runner(github, tmp_path / "later")
    later.publish(model, B, NOW + 1)
    later.pack(B)
    later.keep(B, now=NOW + 2)
    assert publish.alias_of(open_store(github.address), "stable").version == B


def test_an_alias_that_an_older_version_pinned_moves_again(github, tmp_path, model):
    runner, _ = honest(github, tmp_path, model)
    pinned = Alias(name="stable", version="c" * 16, sha256="0" * 64, moved_at=9e15)
    path = tmp_path / "aliases-stable.json"
    path.write_text(pinned.model_dump_json())
    release(github).upload(path.name, path)
    runner.keep(A, now=NOW)
    assert publish.alias_of(open_store(github.address), "stable").version == A


def test_the_index_and_stable_are_not_taken_from_the_training(github, tmp_path, model):
    runner, packed = honest(github, tmp_path, model)
    entry = {"version": B, "created_at": 1.0, "sha256": "0" * 64, "size": 1, "metrics": {}}
    (packed / "index.json").write_text(json.dumps({"versions": [entry]}))
    (packed / "aliases-stable.json").write_text(
        Alias(name="stable", version=B, sha256="0" * 64, moved_at=9e15).model_dump_json()
    )
    runner.keep(A, now=NOW)
    assert [v.version for v in publish.versions(open_store(github.address))] == [A]
    assert publish.alias_of(open_store(github.address), "stable") is None, "the claim was of another version"


def test_of_an_index_and_an_alias_only_what_is_about_the_training_itself_counts(github, tmp_path, model):
    """No number of its choice, no yank of another version, no lowest version, no history."""
    before, _ = honest(github, tmp_path, model, B)
    before.keep(B, now=NOW)
    runner, packed = honest(github, tmp_path, model)
    index, alias = packed / "index.json", packed / "aliases-stable.json"
    document = json.loads(index.read_bytes())
    planted = {A: {"semver": "999.0.0"}, B: {"yanked": {"at": 1.0, "by": "x", "why": "x"}}}
    document["versions"] = [entry | planted[entry["version"]] for entry in document["versions"]]
    index.write_text(json.dumps(document))
    document = json.loads(alias.read_bytes())
    document["minimum"], document["yanked"] = "999.0.0", {B: "planted"}
    document["history"][-1] |= {
        "why": "so \x1b[2J" + "x" * 9_000,
        "by": "the maintainer",
        "rollout": 0.5,
        "size": 1,
    }
    alias.write_text(json.dumps(document))
    runner.keep(A, now=NOW)
    store = open_store(github.address)
    assert {v.version: (v.semver, v.yanked) for v in publish.versions(store)} == {
        B: ("1.0.0", None),
        A: ("2.0.0", None),
    }
    stable = publish.alias_of(store, "stable")
    assert (stable.minimum, stable.yanked, stable.rollout) == (None, {}, 1.0)
    last = next(move for move in stable.moves if move.version == A)
    assert (last.size, last.semver) == (len(model.read_bytes()), "2.0.0")
    assert last.by != "the maintainer"
    assert len(last.why) <= 500
    assert "\x1b" not in last.why


def test_a_model_that_is_a_link_is_not_kept(github, tmp_path, model):
    runner, packed = honest(github, tmp_path, model)
    path = packed / f"models-{A}-model.pt"
    path.unlink()
    path.symlink_to(model)
    with pytest.raises(CorruptObjectError, match="plain file"):
        runner.keep(A)


def archive_of(path, mode, *members):
    with tarfile.open(path, mode) as tar:
        for name, size, kind in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = size, kind
            tar.addfile(entry, io.BytesIO(bytes(size)) if kind == tarfile.REGTYPE else None)


RUN = f"runs/{A[:12]}-1"


FORGED = {
    "gzip": ("w:gz", (f"{RUN}/checkpoint/last.pt", 50_000_000, tarfile.REGTYPE)),
    "bzip2": ("w:bz2", (f"{RUN}/run.json", 10, tarfile.REGTYPE)),
    "xz": ("w:xz", (f"{RUN}/run.json", 10, tarfile.REGTYPE)),
    "dots": ("w:", (f"{RUN}/../../../etc/passwd", 10, tarfile.REGTYPE)),
    "dots in a run's name": ("w:", (f"runs/{A[:12]}-1/../{B[:12]}-1/run.json", 10, tarfile.REGTYPE)),
    "another key": ("w:", (f"runs/{B[:12]}-1/run.json", 10, tarfile.REGTYPE)),
    "no run": ("w:", (f"runs/{A[:12]}-x/run.json", 10, tarfile.REGTYPE)),
    "hidden": ("w:", (f"{RUN}/.tmp/x", 10, tarfile.REGTYPE)),
    "a link": ("w:", (f"{RUN}/run.json", 0, tarfile.SYMTYPE)),
    "a hard link": ("w:", (f"{RUN}/run.json", 0, tarfile.LNKTYPE)),
    "a pipe": ("w:", (f"{RUN}/run.json", 0, tarfile.FIFOTYPE)),
    "a staged result": ("w:", (f"{RUN}/result/result.json", 10, tarfile.REGTYPE)),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_archive_is_neither_kept_nor_unpacked(github, tmp_path, case):
    mode, member = FORGED[case]
    packed = tmp_path / "packed"
    packed.mkdir()
    path = packed / f"unfinished-{A[:12]}.tar"
    archive_of(path, mode, member)
    with pytest.raises(CorruptObjectError):
        keep(release_store(github), packed, lambda _: None, A * 4)
    assert github.files() == {}
    with pytest.raises(CorruptObjectError):
        unpack(path, tmp_path / "out", only=f"runs/{A[:12]}-")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_says_it_holds_more_than_it_is_long_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    entry = tarfile.TarInfo(f"{RUN}/checkpoint/last.pt")
    entry.size = 1 << 40
    path.write_bytes(entry.tobuf() + bytes(20_000))
    with pytest.raises(CorruptObjectError):
        unpack(path, tmp_path / "out", only=f"runs/{A[:12]}-")


@pytest.mark.parametrize(
    "names",
    [
        ("checkpoint/a", "checkpoint/a/b"),
        ("a/b/c", "a"),
        ("a", "a"),
        ("../aaaaaaaaaaaa-\N{ARABIC-INDIC DIGIT ONE}/a",),
    ],
)
def test_an_archive_that_cannot_be_unpacked_or_names_no_run_is_refused_before_that(tmp_path, names):
    """Kept, it would end each later training of the same key."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:") as tar:
        for name in names:
            entry = tarfile.TarInfo(os.path.normpath(f"{RUN}/{name}"))
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(CorruptObjectError):
        unpack(path, tmp_path / "out", only=f"runs/{A[:12]}-")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["runs/x-1/../../../etc/passwd", "/etc/passwd", "other/file"])
def test_an_archive_that_reaches_elsewhere_is_refused(tmp_path, name):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(CorruptObjectError):
        unpack(path, tmp_path / "out", only="runs/x-")
    assert unfinished_key("x" * 64) == f"unfinished/{'x' * 12}.tar"
