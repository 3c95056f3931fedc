"""A model in another format is that model, or it does not count."""

import errno
import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from remote_job_case import make_tree
from resources import Deferred, needs

from gpu_offload.dataset.tree_manifest import read_tree
from gpu_offload.orchestrator.settings.types import ExportFormat
from gpu_offload.remote_job.yolo import exports, onnx_export, safetensors_export
from gpu_offload.remote_job.yolo.raw_outputs import outputs_of

pytestmark = [needs("onnx"), needs("safetensors")]
onnx, safetensors, ultralytics = map(Deferred, ("onnx", "safetensors", "ultralytics"))


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return read_tree(make_tree(tmp_path_factory.mktemp("tree")))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models. What is fresh answers to every image alike, so one gets other weights in its head."""
    import torch
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("models")
    network = YOLO("yolov8n.yaml")
    network.save(folder / "one.pt")
    with torch.no_grad():
        for parameter in network.model.model[-1].parameters():
            parameter.add_(0.1)
    network.save(folder / "other.pt")
    return folder


def test_the_configuration_knows_the_formats_that_the_training_does():
    assert set(ExportFormat.__args__) == set(exports.FORMATS)


@pytest.mark.training
def test_an_export_has_the_models_outputs_and_the_same_bytes_each_time(models, info, tmp_path):
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        [made], failed = exports.export(models / "one.pt", ["onnx"], info, image_size=64, folder=folder)
        assert (failed, made.agreement >= exports.AGREEMENT) == ({}, True)
        found.append(made.path.read_bytes())
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in found[0]
    assert {"names", "stride", "task", "imgsz"} <= {
        prop.key for prop in onnx.load(tmp_path / "a" / "model.onnx").metadata_props
    }


@pytest.mark.training
def test_safetensors_hold_the_models_weights_and_what_it_is(models, info, tmp_path):
    """Another model's weights in the file are found, although the network comes from the model's own file."""
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        [made], failed = exports.export(
            models / "one.pt", ["safetensors"], info, image_size=64, folder=folder
        )
        assert (failed, made.agreement) == ({}, 1.0)
        found.append(made.path.read_bytes())
    assert found[0] == found[1]
    with safetensors.safe_open(tmp_path / "a/model.safetensors", "np") as file:
        about = json.loads(file.metadata()["model"])
        assert {"model.0.conv.weight", "model.22.cv3.0.2.bias"} <= set(file.keys())
    assert (about["task"], about["imgsz"], about["names"]["0"]) == ("detect", 64, "0")
    one, other = (ultralytics.YOLO(models / f"{name}.pt") for name in ("one", "other"))
    safetensors_export.write(other, tmp_path / "other", 64)
    ours, theirs = outputs_of(one.model), safetensors_export.load(tmp_path / "other", one)
    array = exports.as_array(exports.held_out(info)[0], 64)
    assert exports.agreement(ours(array), theirs(array)) < exports.AGREEMENT


@pytest.mark.training
def test_what_is_another_model_cannot_be_read_or_cannot_be_written_is_left_out(
    models, info, tmp_path, monkeypatch
):
    def forged(write):
        form = exports.ExportFormat(("onnx",), "onnx", write, onnx_export.load)
        monkeypatch.setitem(exports.FORMATS, "onnx", form)
        return exports.export(models / "one.pt", ["onnx", "stone"], info, image_size=64, folder=tmp_path)

    def another(_model, target, size):
        onnx_export.write(ultralytics.YOLO(shutil.copy(models / "other.pt", tmp_path)), target, size)

    made, failed = forged(another)
    assert (made, "of its outputs are those of model.pt" in failed["onnx"]) == ([], True)
    assert "no format stone" in failed["stone"]
    assert forged(lambda _model, target, _size: target.write_bytes(b"no graph"))[1]["onnx"]
    assert "ZeroDivisionError" in forged(lambda *_: 1 / 0)[1]["onnx"]


@pytest.mark.training
def test_a_full_disk_costs_the_exports_and_not_the_training(models, info, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    made, failed = exports.export(
        models / "one.pt", ["onnx", "safetensors"], info, image_size=64, folder=tmp_path
    )
    assert (made, set(failed)) == ([], {"onnx", "safetensors"})
    assert "No space left" in failed["onnx"]


@pytest.mark.parametrize(("images", "last"), [(3, 2), (11, 9), (80, 70)])
def test_the_images_of_a_comparison_are_spread_over_all_there_are(images, last):
    """In a classification they are sorted by class."""
    samples = [SimpleNamespace(split="val", image=SimpleNamespace(path=str(n))) for n in range(images)]
    found = exports.held_out(SimpleNamespace(images={"test": 0}, directory=Path("/"), samples=samples))
    assert len(set(found)) == min(images, exports.COMPARED)
    assert (found[0], found[-1]) == (Path("/0"), Path(f"/{last}"))


@pytest.mark.training
def test_a_missing_converter_says_how_to_install_it(models, info, tmp_path, monkeypatch):
    form = exports.ExportFormat(("no_such_converter",), "onnx", onnx_export.write, onnx_export.load)
    monkeypatch.setitem(exports.FORMATS, "onnx", form)
    _, failed = exports.export(tmp_path / "model.pt", ["onnx"], info, image_size=64, folder=tmp_path)
    assert "gpu-offload[onnx]" in failed["onnx"]


def test_a_classifiers_outputs_are_compared_by_the_most_probable():
    probable = np.array([[0.9, 0.1, 1e-9]])
    assert exports.agreement([probable], [np.array([[0.9001, 0.0999, 2e-9]])]) == 1.0
    assert exports.agreement([probable], [np.array([[0.8, 0.2, 1e-9]])]) < 0.5


def test_rows_of_objects_agree_in_any_order_and_other_outputs_only_in_place():
    rows = np.random.default_rng(0).random((1, 300, 6), dtype=np.float32) * 100
    assert exports.agreement([rows], [rows[:, ::-1]]) == 1.0
    assert exports.agreement([rows], [rows + 1]) < 0.5
    dense = np.random.default_rng(0).random((1, 7, 84), dtype=np.float32)
    assert exports.agreement([dense], [dense + 1e-4]) == 1.0
    faint = dense * 1e-6
    assert exports.agreement([faint], [faint * 1.0001]) == 1.0
    assert exports.agreement([faint], [faint * 1.1]) < 0.5
    assert exports.agreement([dense], [dense[:, :, ::-1]]) < 0.5


@pytest.mark.parametrize("other", [[], [np.zeros((1, 7, 83))], [np.full((1, 7, 84), np.nan)]])
def test_outputs_that_are_missing_shaped_otherwise_or_no_numbers_do_not_agree(other):
    assert exports.agreement([np.zeros((1, 7, 84))], other) == 0.0
