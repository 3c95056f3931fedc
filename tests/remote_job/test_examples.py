"""The examples of docs/bring-your-own.md: they train, resume, and are complete."""

import sys

import pytest
from remote_job_case import ROOT, make_spec, make_tree, stopping_at

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.plan.code import read_code
from gpu_offload.orchestrator.plan.requirements import read_requirements
from gpu_offload.remote_job.interruption import InterruptedTrainingError
from gpu_offload.remote_job.train import train

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("default"),  # the libraries warn as they like
]
FOLDER = ROOT / "examples" / "bring_your_own"
SHORT = 60
NAMES = ("forest", "torchvision_classifier", "libreyolo_detector")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("pictures"), Task.CLASSIFY, images=36)


def example(name, tree, output, **changes):
    sys.modules.pop(name, None)
    values = {"entrypoint": f"{name}:train", "project": str(FOLDER), "hyperparameters": {}}
    return make_spec(tree, output, **{**values, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_needs_what_its_requirements_name(name):
    code = read_code(FOLDER, f"{name}:train")
    assert code.faults == ()
    assert set(code.files) == {f"{name}.py"}
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= SHORT
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}
    needed = {distributions.get(e.name, e.name) for e in code.externals}
    files = [read_requirements(FOLDER, path.name) for path in FOLDER.glob("requirements*.txt")]
    on_an_instance = {"torch", "torchvision", "pillow"}
    assert needed - on_an_instance <= {name for found in files for name in found.names} | {"joblib"}


def test_a_forest_without_epochs_is_complete(tree, tmp_path):
    result = train(example("forest", tree, tmp_path))
    assert (result.model.name, result.stopped_early, result.epochs_completed) == ("model.joblib", True, 1)
    assert set(result.metrics) == {"accuracy", "f1_macro"}


def test_a_torchvision_model_resumes_to_the_same_weights(tree, tmp_path, monkeypatch):
    small = {"model": "mobilenet_v3_small.yaml", "epochs": 3, "image_size": 32, "batch": 8}
    whole = train(example("torchvision_classifier", tree, tmp_path / "whole", **small))
    assert whole.model.name == "model.pth"
    assert len(whole.curves["accuracy"]) == 3
    spec = example("torchvision_classifier", tree, tmp_path / "parts", **small)
    with stopping_at(monkeypatch, 3, 1) as interruption, pytest.raises(InterruptedTrainingError):
        train(spec, interruption=interruption)
    assert train(spec).model.sha256 == whole.model.sha256
