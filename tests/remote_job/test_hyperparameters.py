"""Hyperparameters: what is passed on and what is refused, all faults at once."""

from types import SimpleNamespace

import pytest

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.hyperparameters import model, problems
from gpu_offload.remote_job import hyperparameters


def test_ultralytics_own_settings_are_passed_on():
    assert hyperparameters.faults({"lr0": 0.01, "mosaic": 0.5, "workers": 0, "plots": False}) == []


def test_an_unknown_name_is_answered_with_the_likely_one():
    (fault,) = hyperparameters.faults({"warmup_epoch": 1})
    assert "did you mean warmup_epochs" in fault


def test_all_faults_are_reported_at_once():
    faults = hyperparameters.faults({"epochs": 3, "imgsz": 64, "nonsense_x": 1, "lr0": 0.1})
    assert len(faults) == 3
    assert "training.epochs" in faults[0]
    assert "training.image-size" in faults[1]


def test_what_is_ours_is_something_that_ultralytics_has():
    assert hyperparameters.OURS.keys() <= hyperparameters.known() | {"save_dir"}


@pytest.mark.filterwarnings("default")  # importing Ultralytics warns as it likes
@pytest.mark.training
def test_values_are_checked_by_ultralytics():
    faults = hyperparameters.value_faults({"lr0": "fast", "mosaic": 7, "plots": True})
    assert len(faults) == 2


def refused(task=None, image_size=640, **values):
    return list(problems(values, task, image_size))


def test_the_settings_know_every_hyperparameter_of_ultralytics():
    """Also where Ultralytics is not installed, as on a runner that only rents."""
    assert model().model_fields.keys() == hyperparameters.known() - hyperparameters.OURS.keys()


PROBES = (
    "x", "", "0.5", "sgd", "ram", True, False, -1, -0.5, 0, 0.5, 1, 1.0, 2, 2.0, 2.5, 100, float("nan"), float("inf"), [], [1], [-1],
    [0.5, 0.5], [0, 1], [2, 2, 2], [0.5, 2.0], ["x"], [0.5, "x"], {"a": 1},
)  # fmt: skip


@pytest.mark.filterwarnings("default")
@pytest.mark.training
def test_what_ultralytics_refuses_the_settings_refuse_and_its_defaults_pass():
    from ultralytics.utils import DEFAULT_CFG_DICT

    for name in model().model_fields:
        for value in PROBES:
            if not refused(**{name: value}):
                assert hyperparameters.value_faults({name: value}) == []
        default = DEFAULT_CFG_DICT[name]
        assert default is None or refused(**{name: default}) == []


@pytest.mark.filterwarnings("default")
@pytest.mark.training
def test_what_only_the_training_refuses_the_settings_refuse():
    import torch
    from ultralytics.data.augment import CopyPaste, classify_augmentations
    from ultralytics.engine.trainer import BaseTrainer

    def agrees(build, **values):
        try:
            build(**values)
        except (ArithmeticError, TypeError, ValueError, NotImplementedError):
            assert refused(Task.CLASSIFY, **values), values
        else:
            assert refused(Task.CLASSIFY, **values) == [], values

    def optimizer(optimizer, momentum):
        stub = SimpleNamespace(args=SimpleNamespace(lr0=0.01, warmup_bias_lr=0.1), data={})
        built = BaseTrainer.build_optimizer(stub, net, optimizer, 0.01, momentum)
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        built.step()

    net = torch.nn.Module()
    net.model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    names = "auto sgd SGD MuSGD Adam Adamax adamw NAdam RAdam RMSProp Adan lion"
    for name in names.split():
        for momentum in (0.0, 0.5, 0.999):
            agrees(optimizer, optimizer=name, momentum=momentum)
    for name in ("Adam", "Adamax", "AdamW", "SGD", "RMSProp"):
        agrees(optimizer, optimizer=name, momentum=1.0)
    for mode in ("flip", "mixup", "x", "Flip"):
        agrees(lambda copy_paste_mode: CopyPaste(mode=copy_paste_mode), copy_paste_mode=mode)
    for policy in ("randaugment", "autoaugment", "augmix", "", "AugMix", "x"):
        agrees(classify_augmentations, auto_augment=policy)
    for hue in (0.5, 0.6):
        agrees(classify_augmentations, auto_augment="", hsv_h=hue)


def test_values_that_stand_for_nothing_are_refused_where_ultralytics_would_go_on():
    for values in (
        {"cache": "gpu"}, {"freeze": "all"}, {"freeze": True}, {"classes": 1.5}, {"compile": "fast"}, {"split": "holdout"},
        {"warmup_epochs": -3}, {"workers": -1}, {"lr0": True}, {"close_mosaic": -1}, {"scale": [0, 2]},
    ):  # fmt: skip
        assert len(refused(**values)) == 1, values
    assert len(refused(Task.CLASSIFY, scale=[0.5, 2.0])) == 1
    assert len(refused(Task.SEGMENT, 64, mask_ratio=65)) == 1


def test_values_that_ultralytics_takes_pass():
    good = {
        "patience": 10.0, "optimizer": "sgd", "amp": "BF16", "cache": "Disk", "scale": [0.5, 2.0], "fraction": [0.5, 100], "freeze": ["23.cv2", 0],
        "classes": 0, "momentum": 0.9, "compile": "reduce-overhead", "auto_augment": "",
    }  # fmt: skip
    assert refused(**good) == []
