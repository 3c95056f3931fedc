"""What a repository contains is data: planted state publishes nothing, runs nothing and removes nothing."""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from clone_case import CONFIGURATION, answer, clone, commit, git, honest_repository, offload

from gpu_offload.orchestrator.state import state_folder

pytestmark = pytest.mark.process

PLAN = ("plan", "--no-calibrate", "--json")
TRAIN = ("train", "--on", "cpu", "--json")


@pytest.fixture
def repository(tmp_path):
    return honest_repository(tmp_path / "repository")


def pulled(folder):
    (path,) = folder.glob("model.*")
    return path.read_text()


def trained_elsewhere(repository, tmp_path):
    """Return a store in which a stranger trained the same, and then changed the model."""
    store = tmp_path / "stranger-store"
    stranger = clone(repository, tmp_path / "stranger")
    report = answer(offload(stranger, *TRAIN, "--set", f"store.url=file:{store}"))
    folder = store / "models" / report["version"]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    evil = b"the stranger's model"
    (folder / manifest["model"]["name"]).write_bytes(evil)
    manifest["model"] |= {"size": len(evil), "sha256": sha256(evil).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return store, report


def plant(repository, store, place=".offload"):
    shutil.copytree(store, repository / place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    (repository / place / ".gitignore").write_text("*\n")
    commit(repository, "Tidy up", force=[place])


@pytest.mark.parametrize(
    ("place", "settings"),
    [(".offload", ""), ("kept", '[store]\nurl = "file:kept"\n'), (".OFFLOAD", "")],
)
def test_committed_models_are_refused_by_every_command_and_gone_the_training_is_real(
    repository, tmp_path, place, settings
):
    (repository / "offload.toml").write_text(CONFIGURATION + settings)
    commit(repository, "Configure")
    store, theirs = trained_elsewhere(repository, tmp_path)
    plant(repository, store, place)
    ours = clone(repository, tmp_path / "ours")
    if place == ".OFFLOAD":  # as on a file system that does not tell the cases apart
        (ours / place).rename(ours / ".offload")
        place = ".offload"
    for command in (PLAN, TRAIN, ("models",), ("pull", "app")):
        done = offload(ours, *command)
        assert done.returncode == 2, command
        assert "tracked by git" in done.stderr
        assert f"git rm -r {ours / place}" in done.stderr
    shutil.rmtree(ours / place)
    git(ours, "rm", "-r", "--cached", "--quiet", ".OFFLOAD" if (repository / ".OFFLOAD").exists() else place)
    assert answer(offload(ours, *PLAN))["already_trained"] is None
    mine = answer(offload(ours, *TRAIN))
    assert mine["status"] == "trained"
    assert mine["training_key"] == theirs["training_key"]
    answer(offload(ours, "pull", "app", "--json"))
    assert (ours / "app" / "model.bin").read_text().startswith("trained by ")


def test_a_planted_store_is_refused_with_a_bucket_configured_too(repository, tmp_path, bucket):
    store, _ = trained_elsewhere(repository, tmp_path)
    (repository / "offload.toml").write_text(CONFIGURATION + f'[store]\nurl = "s3://{bucket}/p"\n')
    plant(repository, store)
    ours = clone(repository, tmp_path / "ours")
    done = offload(ours, *TRAIN)
    assert done.returncode == 2
    assert "tracked by git" in done.stderr


def test_a_store_in_a_submodule_is_refused(repository, tmp_path):
    store, _ = trained_elsewhere(repository, tmp_path)
    inner = honest_repository(tmp_path / "inner")
    plant(inner, store, "kept")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(inner), "inner")
    (repository / "offload.toml").write_text(CONFIGURATION + '[store]\nurl = "file:inner/kept"\n')
    commit(repository, "A submodule")
    done = offload(repository, *TRAIN)
    assert done.returncode == 2
    assert "tracked by git" in done.stderr


@pytest.mark.parametrize(
    ("link", "in_git"),
    [
        (".offload", True),
        ("kept", True),
        ("kept", False),
        ("kept/.tmp", False),
        ("kept/.lock", False),
        ("kept/.gitignore", False),
        ("kept/runs", False),
    ],
)
def test_links_lead_nowhere_and_nothing_outside_is_touched(repository, tmp_path, link, in_git):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    (repository / "offload.toml").write_text(CONFIGURATION + '[store]\nurl = "file:kept"\n')
    path = repository / link
    path.parent.mkdir(exist_ok=True)
    target = precious / "made" if path.name in {".lock", ".gitignore"} else precious
    path.symlink_to(os.path.relpath(target, path.parent))
    commit(repository, "A shortcut", force=[link])
    ours = clone(repository, tmp_path / "ours")
    if not in_git:
        shutil.rmtree(ours / ".git")
    done = offload(ours, *TRAIN)
    assert done.returncode != 0
    assert "link" in done.stderr
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]
    assert (precious / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["trees", "work", "cache", "store", "store/.tmp"])
def test_a_link_in_the_state_itself_is_refused_and_nothing_behind_it_is_removed(repository, tmp_path, name):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    path = state_folder(repository) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(precious)
    done = offload(repository, *TRAIN)
    assert done.returncode != 0
    assert "link" in done.stderr
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]


def test_state_of_an_earlier_version_is_taken_over(repository, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    first = answer(offload(repository, *TRAIN, "--set", f"store.url=file:{elsewhere}"))
    old = repository / ".offload"
    shutil.copytree(elsewhere, old)
    for folder in ("trees/0123", "cache", "work"):
        (old / folder).mkdir(parents=True)
    again = offload(repository, *TRAIN)
    assert "moved" in again.stderr
    assert answer(again)["status"] == "already_trained"
    assert not old.exists()
    assert (state_folder(repository) / "store" / "models" / first["version"] / "model.bin").is_file()
    assert answer(offload(repository, *TRAIN))["status"] == "already_trained"


def test_without_git_nothing_in_the_folder_is_taken_over(repository, tmp_path):
    """A repository's archive, as GitHub offers it, holds what was committed and no `.git`."""
    store, _ = trained_elsewhere(repository, tmp_path)
    plant(repository, store)
    archive = tmp_path / "archive.tar"
    archive.write_bytes(
        subprocess.run(
            ["git", "-C", str(repository), "archive", "HEAD"], capture_output=True, check=True
        ).stdout
    )
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    shutil.unpack_archive(archive, unpacked, filter="data")
    done = offload(unpacked, *TRAIN)
    assert done.returncode == 2
    assert "may have come with the project" in done.stderr
    shutil.rmtree(unpacked / ".offload")
    assert answer(offload(unpacked, *TRAIN))["status"] == "trained"


def test_each_checkout_has_state_of_its_own_outside_of_it(repository, tmp_path):
    answer(offload(repository, *TRAIN))
    assert git(repository, "status", "--porcelain", "--ignored").split() in ([], ["!!", "__pycache__/"])
    other = clone(repository, tmp_path / "other")
    assert answer(offload(other, *PLAN))["already_trained"] is None
    assert state_folder(other) != state_folder(repository)


def test_on_a_runner_state_goes_with_the_job_whatever_the_checkout_holds(repository, tmp_path):
    temp = tmp_path / "temp"
    temp.mkdir()
    runner = {"GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(temp), "GITHUB_WORKSPACE": str(repository)}
    (repository / "offload.toml").write_text(CONFIGURATION + '[store]\nurl = "file:kept"\n')
    commit(repository, "Configure")
    assert answer(offload(repository, *TRAIN, **runner))["status"] == "trained"
    assert not (repository / "kept").exists()
    assert list(temp.glob("gpu-offload/*/store-*/models/*/model.bin"))
    (repository / ".offload").mkdir()
    (repository / ".offload" / "x").write_text("planted")
    commit(repository, "Plant", force=[".offload"])
    done = offload(repository, *PLAN, **runner)
    assert done.returncode == 2
    assert "tracked by git" in done.stderr


SPY = """
import os
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    model = context.output / "model.bin"
    model.write_text("\\n".join(sorted(os.environ)))
    context.epoch(1, metrics={}, losses={})
    return Trained(model, {})
"""


def test_a_training_for_a_folder_gets_no_token_and_no_way_to_speak_for_the_step(repository, tmp_path):
    (repository / "mine.py").write_text(SPY)
    secrets = {
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:9/",
        "ACTIONS_RUNTIME_TOKEN": "t",
        "GITHUB_TOKEN": "t",
        "GPU_OFFLOAD_INPUT_TOKEN": "t",
        "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/gpu-offload-publisher",
        "STORE_SECRET_ACCESS_KEY": "t",
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "GITHUB_ENV": str(tmp_path / "env"),
    }
    answer(offload(repository, *TRAIN, **secrets))
    answer(offload(repository, "pull", "app", "--json"))
    seen = set(pulled(repository / "app").split())
    assert "PATH" in seen
    assert not seen & {*secrets, "AWS_SECRET_ACCESS_KEY"}


def test_an_open_run_that_would_train_something_else_is_ended_and_not_carried_on(repository, tmp_path):
    """As after planting a journal: the record's spec names other code than the plan does."""
    held = "limits.deadline=1h"
    (repository / "mine.py").write_text("def main(context):\n    raise KeyboardInterrupt\n")
    offload(repository, *TRAIN, "--set", held)
    (record,) = (state_folder(repository) / "store" / "runs").glob("*/run.json")
    document = json.loads(record.read_bytes())
    outcome = record.with_name("outcome.json")
    outcome.unlink(missing_ok=True)
    for end in record.parent.glob("attempts/*"):
        shutil.rmtree(end) if end.is_dir() else end.unlink()
    evil = tmp_path / "evil"
    (repository / "planted.py").write_text(
        f"def main(context):\n    open({str(evil)!r}, 'w').close()\n    raise RuntimeError\n"
    )
    document["spec"]["entrypoint"] = "planted:main"
    record.write_text(json.dumps(document))
    done = offload(repository, *TRAIN, "--set", held)
    assert not evil.exists()
    assert "not as planned" in outcome.read_text() or "otherwise" in done.stderr
    assert json.loads(outcome.read_bytes())["status"] == "stopped"


def test_a_training_tree_with_other_labels_is_made_anew(repository):
    """By every file's content, and nothing may be there beside them."""
    shape = state_folder(repository) / "trees"
    (repository / "mine.py").write_text(
        "from gpu_offload.remote_job.entrypoint import Trained\n\n\n"
        "def main(context):\n"
        "    model = context.output / 'model.bin'\n"
        "    labels = sorted(context.tree.rglob('*.txt'))\n"
        "    model.write_text('\\n'.join(f'{p.name} {p.read_text()}' for p in labels))\n"
        "    context.epoch(1, metrics={}, losses={})\n"
        "    return Trained(model, {})\n"
    )
    answer(offload(repository, *TRAIN))
    (tree,) = shape.iterdir()
    answer(offload(repository, "pull", "honest", "--json"))
    honest = pulled(repository / "honest")
    label = next(tree.rglob("labels/train/*.txt"))
    planted = "0 0.5 0.5 0.1 0.1\n" + "#" * (label.stat().st_size - 18)
    label.unlink()  # the dataset's own file is another name of it
    label.write_text(planted)
    (tree / "labels" / "train" / "more.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    shutil.rmtree(state_folder(repository) / "store")
    answer(offload(repository, *TRAIN))
    answer(offload(repository, "pull", "again", "--json"))
    assert pulled(repository / "again") == honest


MODULES = (
    "numpy",
    "remote_job",
    "pickle",
    "multiprocessing",
    "socket",
    "yaml",
    "torch",
    "venv",
    "click",
)


def test_modules_in_the_working_folder_are_not_imported(repository, tmp_path):
    ran = tmp_path / "ran"
    for name in MODULES:
        (repository / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write({name!r})\n")
    command = Path(sys.executable).with_name("offload")
    for words in (PLAN, TRAIN, ("check",), ("fingerprint",)):
        done = subprocess.run(
            [command, *words], cwd=repository, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert not ran.exists(), (words, ran.read_text())
