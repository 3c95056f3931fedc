"""An application that polls all along always has a complete, verified, not yanked model, whatever the registry does."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from clone_case import git
from commands import offload, start, wait_until
from model_server import ModelServer
from registry_case import manifest_for
from replay_case import OWN_TRAINING, Published, add_images

from gpu_offload.client.model_client import ModelClient, NoModelError
from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.cleanup.prune import prune
from gpu_offload.orchestrator.cleanup.retention import Retention
from gpu_offload.orchestrator.registry import alias, promote, publish
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.registry.publish import Rules, Verdict
from gpu_offload.orchestrator.run.journal import Journal

pytestmark = pytest.mark.simulator


@pytest.fixture
def server(store):
    with ModelServer() as server:
        server.files = Published(store)
        yield server


@pytest.fixture
def app(server, tmp_path):
    return ModelClient(server.url, tmp_path / "app", interval=0, pause=0.001)


def publish_now(store, tmp_path, name, promoted=True):
    model = tmp_path / f"{name}.local"
    model.write_bytes(name.encode() * 500)
    verdict = Verdict(promoted=promoted, why="as the test says")
    manifest = manifest_for(model, name, time.time())
    publish.publish(
        store, manifest, model, note=lambda _: None, rules=Rules(judge=lambda _new, _old: verdict)
    )


def test_at_each_step_of_a_models_life_the_application_has_what_it_should(store, app, tmp_path):
    with pytest.raises(NoModelError, match="404"):
        app.get()
    publish_now(store, tmp_path, "aaaa", promoted=False)
    with pytest.raises(NoModelError, match="404"):
        app.get()
    publish_now(store, tmp_path, "bbbb")
    assert (app.get().version, app.get().semver) == ("bbbb", "1.0.1")
    publish_now(store, tmp_path, "cccc", promoted=False)
    assert app.get().version == "bbbb"
    promote.promote(store, "cccc", why="good at night")
    assert app.get().version == "cccc"
    promote.rollback(store, why="worse in the rain")
    assert app.get().version == "bbbb"
    publish_now(store, tmp_path, "dddd")
    promote.yank(store, "bbbb", why="bad")
    promote.yank(store, "dddd", why="bad as well")
    with pytest.raises(NoModelError, match="no version that may be used"):
        app.get()
    publish_now(store, tmp_path, "eeee")
    assert app.get().version == "eeee"
    prune(store, Retention(keep=1, days=0.0), delete=True)
    assert app.get().problem is None


def test_the_client_and_the_registry_agree_on_a_phased_rollout(store, server, tmp_path):
    publish_now(store, tmp_path, "aaaa")
    publish_now(store, tmp_path, "bbbb", promoted=False)
    promote.promote(store, "bbbb", why="try it", rollout=0.5)

    def versions():
        return [
            ModelClient(server.url, tmp_path / f"app{n}", interval=0, installation=str(n)).get().version
            for n in range(12)
        ]

    half = versions()
    assert {"aaaa", "bbbb"} == set(half)
    promote.promote(store, "bbbb", why="it is good")
    assert set(versions()) == {"bbbb"}
    promote.rollback(store, why="it is not")
    assert set(versions()) == {"aaaa"}


def test_an_application_that_polls_while_others_publish_yank_and_roll_back_never_has_a_bad_model(
    store, app, tmp_path
):
    publish_now(store, tmp_path, "0000")
    over, wrong = threading.Event(), []

    def poll():
        while not over.is_set():
            model = app.get()
            if hashlib.sha256(model.path.read_bytes()).hexdigest() != model.sha256:
                wrong.append(model.version)
            if model.path.read_bytes() != model.version.encode() * 500:
                wrong.append(model.version)

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        for number in range(1, 16):
            publish_now(store, tmp_path, f"{number:04x}", promoted=number % 4 != 3)
            if number % 5 == 0:
                promote.rollback(store, why="worse")
            if number % 7 == 0:
                try:
                    promote.yank(store, "stable", why="bad")
                except RegistryError as error:
                    wrong.append(str(error))
    finally:
        over.set()
        polling.join()
    assert wrong == []
    assert app.get().version == alias.alias_of(store, "stable").version


class Boards:
    """A repository whose dataset grows, gets bad data and loses it again; its model is trained at each commit."""

    def __init__(self, root):
        self.root = root
        generate(root / "shapes", images=12, size=64)
        (root / "mine.py").write_text(OWN_TRAINING)
        (root / "offload.toml").write_text(
            '[dataset]\npath = "shapes"\nclasses = ["circle", "square", "triangle"]\n[training]\n'
            'entrypoint = "mine:main"\nepochs = 1\nimage-size = 64\n[store]\nurl = "file:../store"\n'
        )
        self.git("init", "-q", "-b", "main")

    def git(self, *words):
        git(self.root, *words)

    def add(self, *names):
        """Commit images that are none of those before."""
        add_images(self.root / "shapes", *names)
        self.git("add", ".")
        self.git("commit", "-qm", f"Add {names}")

    def train(self):
        report = json.loads(offload(self.root, "train", "--on", "cpu", "--no-calibrate", "--json"))
        return report["status"], report["version"]

    def roll_back(self, event, **inputs):
        """Run the action's step of the workflow `rollback`, or another of its commands; return its outputs."""
        output = self.root.parent / "outputs"
        output.write_text("")
        given = {"command": "rollback", "directory": str(self.root), **inputs}
        environment = os.environ | {
            "GITHUB_EVENT_NAME": event,
            "GITHUB_REPOSITORY": "us/boards",
            "GITHUB_OUTPUT": str(output),
            "RUNNER_TEMP": str(self.root.parent),
            **{f"GPU_OFFLOAD_INPUT_{name.upper()}": value for name, value in given.items()},
        }
        command = [sys.executable, "-P", "-m", "gpu_offload.orchestrator.github.action"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(re.findall(r"(?m)^(\S+)<<(?:end-\S+)\n(.*)$", output.read_text()))


@pytest.mark.training
def test_a_history_that_adds_spoils_reverts_and_adds_again_ends_as_it_should(tmp_path):
    """With real trainings of a real repository, while an application polls all along."""
    (tmp_path / "boards").mkdir()
    boards, store = Boards(tmp_path / "boards"), open_store(f"file:{tmp_path / 'store'}")
    with ModelServer() as server:
        server.files = Published(store)
        application = ModelClient(server.url, tmp_path / "app", interval=0, pause=0.001)
        seen, wrong, over = [], [], threading.Event()

        def poll():
            while not over.is_set():
                try:
                    model = application.get()
                except NoModelError:
                    wrong.extend(seen[-1:])  # there was one before
                    continue
                if hashlib.sha256(model.path.read_bytes()).hexdigest() != model.sha256:
                    wrong.append(model.version)
                if not seen or seen[-1] != model.version:
                    seen.append(model.version)
                over.wait(0.02)

        polling = threading.Thread(target=poll)
        polling.start()
        try:
            boards.add("first")
            _, first = boards.train()
            boards.add("bad1", "bad2")  # worse, and no collapse: it becomes stable
            _, worse = boards.train()
            assert alias.alias_of(store, "stable").version == worse
            assert boards.roll_back("push") == {}, "there is no revert"
            boards.git("revert", "--no-edit", "HEAD")
            shutil.copytree(tmp_path / "store", tmp_path / "copy")
            finds = boards.roll_back("push", command="find-revert", set="store.url=file:../copy")
            assert finds == {}, "the folder is in no release, so no other job has to roll back"
            assert alias.alias_of(open_store(f"file:{tmp_path / 'copy'}"), "stable").version == first
            assert boards.roll_back("push")["to"] == first
            assert alias.alias_of(store, "stable").version == first
            assert boards.train() == ("already_trained", first)
            boards.add(*(f"bad{number}" for number in range(30)))  # a collapse: it stays a candidate
            _, broken = boards.train()
            assert alias.alias_of(store, "candidate").version == broken
            boards.git("revert", "--no-edit", "HEAD")
            boards.add("second")
            _, last = boards.train()
            boards.roll_back("workflow_dispatch", reason="worse at night")
            assert alias.alias_of(store, "stable").version == first
            promote.yank(store, last, why="it was the camera", undo=True)
            promote.promote(store, last, why="it was the camera")
        finally:
            while not seen or seen[-1] != alias.alias_of(store, "stable").version:
                over.wait(0.02)
            over.set()
            polling.join()
    stable = alias.alias_of(store, "stable")
    assert [move.version for move in stable.moves] == [first, worse, first, last, first, last]
    yanked = {entry.version for entry in publish.versions(store) if entry.yanked}
    assert yanked == {worse}
    assert wrong == []
    assert broken not in seen
    assert application.get().version == last


@pytest.mark.training
def test_bad_data_that_still_trains_when_it_is_reverted_does_not_become_stable(tmp_path):
    """With two processes: the training of the bad data, whose checkout stays as it was, and the push of the revert."""
    (tmp_path / "boards").mkdir()
    boards, store = Boards(tmp_path / "boards"), open_store(f"file:{tmp_path / 'store'}")
    gate = tmp_path / "go"
    waiting = f"""
    while any("bad" in name for name in names) and not __import__("os").path.exists({str(gate)!r}):
        __import__("time").sleep(0.02)
    good"""
    (boards.root / "mine.py").write_text(OWN_TRAINING.replace("\n    good", waiting))
    boards.add("first")
    _, first = boards.train()
    boards.add("bad1")
    late = tmp_path / "late"
    boards.git("worktree", "add", "-q", "--detach", str(late))
    process = start(late, "train", "--on", "cpu", "--no-calibrate", "--json")
    try:
        wait_until(lambda: Journal(store).open_commits(but=first), process=process)
        boards.git("revert", "--no-edit", "HEAD")
        assert boards.roll_back("push")["to"] == first
        assert boards.train() == ("already_trained", first)
        gate.touch()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    bad = json.loads(out)
    assert (bad["stable_moved"], process.returncode) == (False, 0), err
    assert "took data back" in bad["candidate"]
    moves = alias.alias_of(store, "stable").moves
    assert [(m.version, m.cause) for m in moves] == [(first, "publish"), (first, "rollback")]
    assert alias.alias_of(store, "candidate").version == bad["version"]
