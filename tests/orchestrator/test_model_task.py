"""Labels of one task and a model of another are refused before anything is spent."""

import pytest
from dataset_case import BOX, POLYGON, class_folders, flat, put, with_yaml

from gpu_offload.dataset.finding import DatasetError
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.account.doctor import examine
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.settings.load import load_settings

KEYPOINTS = "train: images/train\nval: images/val\nnames: [a]\nkpt_shape: [2, 3]\n"
CORNERS = "0 0.2 0.3 0.6 0.2 0.7 0.6 0.3 0.7\n"
MAKE = {
    "boxes": lambda root: flat(root, label=BOX),
    "polygons": lambda root: flat(root, label=POLYGON),
    "mixed": lambda root: put(flat(root, label=POLYGON) / "000.txt", BOX),
    "corners": lambda root: flat(root, label=CORNERS),
    "keypoints": lambda root: with_yaml(root, KEYPOINTS, "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1\n"),
    "classes": class_folders,
}


def settings(root, labels, model, task=None):
    MAKE[labels](root / "data")
    line = f'task = "{task}"\n' if task else ""
    put(root / "offload.toml", f'[dataset]\npath = "data"\n{line}[training]\nmodel = "{model}"\n')
    return load_settings(root, environment={})


@pytest.mark.parametrize(
    ("labels", "model", "task"),
    [
        ("boxes", "yolov8n.yaml", None),
        ("boxes", "yolo11n.pt", None),
        ("polygons", "yolov8n-seg.yaml", None),
        ("polygons", "yolov8n.yaml", "detect"),
        ("keypoints", "yolov8n-pose.yaml", None),
        ("classes", "yolov8n-cls.yaml", None),
        ("boxes", "store:models/mine/model.pt", None),
    ],
)
def test_labels_for_the_task_of_the_model_pass(tmp_path, labels, model, task):
    assert api.check(settings(tmp_path, labels, model, task)).snapshot.samples


@pytest.mark.process
@pytest.mark.parametrize(
    ("labels", "model", "said"),
    [
        ("polygons", "yolov8n.yaml", ["yolov8n-seg.yaml", 'dataset.task = "detect"']),
        ("polygons", "yolo11s.pt", ["yolo11s-seg.pt"]),
        ("boxes", "yolov8n-seg.yaml", ["yolov8n.yaml", "polygons"]),
        ("mixed", "yolov8n-seg.yaml", ["1 boxes"]),
        ("boxes", "yolov8n-pose.yaml", ["kpt_shape", "yolov8n.yaml"]),
        ("keypoints", "yolov8n.yaml", ["yolov8n-pose.yaml"]),
        ("classes", "yolov8n.yaml", ["yolov8n-cls.yaml"]),
        ("boxes", "yolov8n-cls.yaml", ["yolov8n.yaml"]),
        ("corners", "yolov8n.yaml", ["OBB"]),
    ],
)
def test_labels_for_another_task_are_one_fault_with_what_would_fit(tmp_path, labels, model, said):
    loaded = settings(tmp_path, labels, model)
    for command in (api.check, api.plan, api.fingerprint):
        with pytest.raises(DatasetError) as caught:
            command(loaded)
        (finding,) = caught.value.findings
        assert finding.code == "model-task"
        assert [word for word in said if word not in finding.message] == []
    checks = examine(tmp_path, lambda: loaded, environment={}, probe=False).checks
    assert [check.state for check in checks if check.name == "dataset"] == ["red"]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("OBB, [nc, 1]", "OBB"),
        ("SemanticSegment, [nc]", "semantic"),
        ("Depth, [256]", "depth"),
        ("Segment, [nc, 32, 256]", "segment"),
    ],
)
def test_a_definition_of_the_users_own_is_known_by_its_head(tmp_path, head, said):
    put(
        tmp_path / "mine.yaml",
        f"nc: 1\nbackbone:\n  - [-1, 1, Conv, [64, 3, 2]]\nhead:\n  - [[0], 1, {head}]\n",
    )
    with pytest.raises(DatasetError, match=said):
        api.check(settings(tmp_path, "boxes", "mine.yaml"))


@pytest.mark.process
def test_hyperparameters_that_the_dataset_cannot_have_are_refused_with_the_labels_faults(tmp_path):
    MAKE["boxes"](tmp_path / "data")
    text = '[training]\nmodel = "yolov8n-seg.yaml"\nhyperparameters = { classes = [0, 7], split = "test" }\n'
    put(tmp_path / "offload.toml", f'[dataset]\npath = "data"\n{text}')
    with pytest.raises(DatasetError) as caught:
        api.check(load_settings(tmp_path, environment={}))
    assert [finding.code for finding in caught.value.findings] == ["hyperparameters"] * 2 + ["model-task"]


@pytest.mark.process
def test_faults_of_the_definition_are_refused_by_check_and_plan_beside_those_of_the_dataset(tmp_path):
    put(
        tmp_path / "mine.yaml",
        "nc: 1\nbackbone:\n  - [-1, 1, Cnv, [64, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n",
    )
    loaded = settings(tmp_path, "boxes", "mine.yaml")
    for command in (api.check, api.plan):
        with pytest.raises(PlanningError, match=r"mine\.yaml:3: .*did you mean Conv"):
            command(loaded)
    next((tmp_path / "data").rglob("*.txt")).write_text("0 x\n")
    with pytest.raises(DatasetError, match=r"mine\.yaml:3: .*did you mean Conv"):
        api.check(loaded)


def test_of_very_many_classes_the_first_hundred_are_printed(tmp_path):
    put(flat(tmp_path / "data") / "classes.txt", "".join(f"class{number}\n" for number in range(120)))
    put(tmp_path / "offload.toml", '[dataset]\npath = "data"\n')
    checked = api.check(load_settings(tmp_path, environment={}))
    line = checked.text().splitlines()[0]
    assert "class99 and 20 more" in line
    assert "class100" not in line
    assert len(checked.json()["classes"]) == 120
