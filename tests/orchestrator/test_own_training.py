"""Training code of the user's, from the command line: on this CPU and on a simulated instance."""

import functools
import hashlib
import http.server
import io
import json
import threading
import zipfile

import pytest
from clone_case import own_training
from commands import offload, run, start

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.estimate.history import timings

pytestmark = [pytest.mark.process, pytest.mark.simulator]

EC2 = '[ec2]\nregions = ["us-east-1"]\ninstance-types = ["g4dn.xlarge"]\n'

RETURN = """
    path = context.output / "any.joblib"
    path.write_text(SAID)
    return Trained(path, {"val/f1": 0.5}, stopped_early=True)
"""

HELPED = """
import sys

import helper
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    context.epoch(1, metrics={"val/f1": 0.5})
    import dataset, infra, orchestrator  # late, and named like packages of the tool
    SAID = " ".join([helper.WORD, dataset.WORD, infra.WORD, orchestrator.WORD, open("words.txt").read()])
"""

OWN = {
    "helper.py": "WORD = 'helper'\n",
    "dataset/__init__.py": "from .deep import WORD\n",
    "dataset/deep.py": "WORD = 'dataset'\n",
    "infra.py": "WORD = 'infra'\n",
    "orchestrator/__init__.py": "WORD = 'orchestrator'\n",
    "words.txt": "words",
}
WORDS = "helper dataset infra orchestrator words"


def project(folder, code, *, store="file:store", training="", files=None):
    generate(folder / "shapes", images=12, size=64)
    text = own_training(3, f'license = "MIT"\n{training}', f'[store]\nurl = "{store}"\n{EC2}')
    for name, body in {"mine.py": code, "offload.toml": text, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)
    return folder


def here(folder, *arguments, on="cpu", code=0):
    """Train; return standard output and standard error."""
    found, out, err = run(folder, "train", "--on", on, *arguments)
    assert found == code, err
    return out, err


@pytest.fixture
def rented(monkeypatch, hurried):
    """How to train on an instance of a simulated cloud, where nothing is left that costs money."""
    pytest.importorskip("moto", reason="the extra [simulator] is not installed")
    from gpu_offload.infra.simulator.cloud import SimulatedCloud

    def train(folder, *arguments, code=0):
        with SimulatedCloud() as cloud, monkeypatch.context() as patched:
            for name, value in cloud.environment().items():
                patched.setenv(name, value)
            told = here(folder, *arguments, on="ec2", code=code)
            cloud.settle()
            assert not cloud.leftovers().costs_money
        return told

    return train


def test_what_the_entrypoint_imports_is_shipped_and_hashed(tmp_path):
    folder = project(tmp_path, HELPED + RETURN, training='include = ["words.txt"]\n', files=OWN)
    assert "a guess, as if Ultralytics trained" in offload(folder, "plan", "--on", "cpu")
    # As a process, which could take the project's modules for its own.
    first = json.loads(start(folder, "train", "--on", "cpu", "--json").communicate(timeout=240)[0])
    assert first["status"] == "trained"
    assert first["metrics"] == {"val/f1": 0.5}
    path = folder / json.loads(offload(folder, "pull", "app", "--json"))["path"]
    assert (path.name, path.read_text()) == ("model.joblib", WORDS)
    manifest = json.loads((folder / "store" / "models" / first["version"] / "manifest.json").read_text())
    assert manifest["license"] == "MIT"
    assert manifest["epochs_completed"] == 1
    assert json.loads(here(folder, "--json")[0])["status"] == "already_trained"
    (folder / "infra.py").write_text("WORD = 'changed'\n")
    assert "corrected by 1 earlier training" in offload(folder, "plan", "--on", "cpu")
    assert json.loads(here(folder, "--json")[0])["version"] != first["version"]


def test_an_instance_has_what_the_entrypoint_imports(tmp_path, rented):
    folder = project(
        tmp_path, HELPED + RETURN, store="s3://gpu-offload/x", training='include = ["words.txt"]\n', files=OWN
    )
    out, _ = rented(folder, "--json")
    assert json.loads(out)["metrics"] == {"val/f1": 0.5}


FOREST = """
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    path = context.output / "forest.joblib"
    path.write_text("a model without epochs")
    return Trained(path, {"accuracy": 1.0})
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (FOREST, "context.epoch"),
        ("import os\n\n\ndef main(context):\n    os._exit(0)\n", "without a result"),
        ("def main(context):\n    raise ValueError('my own fault')\n", "my own fault"),
        (
            "import os\n\n\ndef main(context):\n    os.write(1, b'\\xff' * 300_000)\n    raise ValueError('my own fault')\n",
            "my own fault",
        ),
    ],
    ids=["no-epochs", "left-the-process", "raised", "printed-no-text"],
)
def test_what_the_same_code_would_yield_again_is_not_tried_again_here(tmp_path, code, said):
    folder = project(tmp_path, code)
    process = start(folder, "train", "--on", "cpu")  # whose standard error cannot hold every text
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert said in err
    assert err.count("attempt 1") >= 1
    assert "attempt 2" not in err
    assert sum(line.startswith("error:") for line in err.splitlines()) == 1


@pytest.mark.parametrize("code", [FOREST, "import os\n\n\ndef main(context):\n    os._exit(0)\n"])
def test_what_the_same_code_would_yield_again_rents_one_instance(tmp_path, rented, code):
    folder = project(tmp_path, code, store="s3://gpu-offload/x")
    _, err = rented(folder, code=1)
    assert "attempt 1" in err
    assert "attempt 2" not in err


# ---------------------------------------------------------------------------------------------- requirements


def wheel(name, version, text):
    """Return a wheel with one module, and its file name."""
    memory, info = io.BytesIO(), f"{name}-{version}.dist-info"
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return memory.getvalue(), f"{name}-{version}-py3-none-any.whl"


@pytest.fixture
def index(tmp_path):
    """A package index on this machine with one distribution; returns its address and its folder."""
    folder = tmp_path / "index" / "simple" / "greeting"
    folder.mkdir(parents=True)

    def publish(version, text):
        body, name = wheel("greeting", version, text)
        (folder / name).write_bytes(body)
        digests = [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.glob("*.whl"))]
        page = "".join(f'<a href="{n}#sha256={digest}">{n}</a>' for n, digest in digests)
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{page}</body></html>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple", publish
        server.shutdown()
        thread.join()


GREETED = """
import greeting
from gpu_offload.remote_job.entrypoint import Trained


def main(context):
    context.epoch(1, metrics={"n": 1})
    SAID = greeting.WORD
"""


@pytest.mark.parametrize("place", ["here", "rented"])
def test_requirements_are_locked_once_and_installed_where_the_training_runs(
    tmp_path, index, place, rented, monkeypatch
):
    address, publish = index
    publish("1.0", "WORD = 'one'\n")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    files = {"requirements.txt": f"--index-url {address}\ngreeting\n"}
    store = "file:store" if place == "here" else "s3://gpu-offload/x"
    folder = project(
        tmp_path, GREETED + RETURN, store=store, training='requirements = "requirements.txt"\n', files=files
    )
    out, _ = (here if place == "here" else rented)(folder, "--json")
    assert json.loads(out)["status"] == "trained"
    if place == "rented":
        return
    [lock] = (folder / "store" / "locks").iterdir()
    assert "greeting==1.0" in lock.read_text()
    assert "--hash=sha256:" in lock.read_text()
    [timing] = timings(open_store(f"file:{folder / 'store'}"))
    assert timing.installed["requirements"] > 0
    publish("2.0", "WORD = 'two'\n")
    again = json.loads(here(folder, "--json", "--set", "training.seed=1")[0])
    model = folder / "store" / "models" / again["version"] / "model.joblib"
    assert model.read_text() == "one", "the lock holds until the file changes"


def test_requirements_that_cannot_be_resolved_start_nothing(tmp_path, index):
    address, publish = index
    publish("1.0", "WORD = 'one'\n")
    files = {"requirements.txt": f"--index-url {address}\ngreeting==3\n"}
    folder = project(tmp_path, GREETED + RETURN, training='requirements = "requirements.txt"\n', files=files)
    _, err = here(folder, code=1)
    assert "greeting==3" in err
    assert not list((folder / "store").glob("runs/*"))
