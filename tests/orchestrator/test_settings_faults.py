"""Faults of a configuration: all at once, each with its place and remedy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_case import MINIMUM, faults

from gpu_offload.orchestrator.settings.load import SettingsError, load_settings


def test_all_faults_of_all_sources_come_at_once_in_reading_order(tmp_path):
    text = """\
epochs = 3
[dataset]
pth = "raw"
split.val = 0.6
split.test = 0.5
[training]
epochs = "3"
image_size = 3
hyperparameters = { lr0 = nan, imgsz = 3 }
model = "yolov8n"
[ec2]
regions = [
  "us-east-1",
  "a",
]
[store]
endpoint-url = "https://x"
[limits]
max-cost-usd = true
deadline = 6
"""
    found = faults(
        tmp_path,
        text,
        "training.epohcs=3",
        "ec2.volume-gib=2",
        "noise",
        OFFLOAD_TRAINING_BATCHES="1",
        OFFLOAD_TRAINING_BATCH="x",
    )
    expected = {
        "offload.toml:1": r"epochs is not a setting; it belongs in [training]",
        "offload.toml:3": "dataset.pth is not a setting; did you mean path?",
        "offload.toml:5": "dataset.split leaves nothing to train on: val 0.6 and test 0.5",
        "offload.toml:7": "training.epochs is '3', not a whole number",
        "offload.toml:8": "did you mean image-size?",
        "offload.toml:9": "set training.image-size",
        "offload.toml:10": "write yolov8n.yaml to start from nothing, yolov8n.pt",
        "offload.toml:14": "ec2.regions[1]: 'a' is not a region",
        "offload.toml:17": "store.endpoint-url is for S3",
        "offload.toml:19": "limits.max-cost-usd is true, not a number",
        "offload.toml:20": '"90m", "6h"',
        "--set ec2.volume-gib": "write at least 8",
        "--set noise": "write --set noise=VALUE",
        "--set training.epohcs": "did you mean training.epochs?",
        "OFFLOAD_TRAINING_BATCH": "training.batch is 'x', not a whole number",
        "OFFLOAD_TRAINING_BATCHES": "did you mean OFFLOAD_TRAINING_BATCH?",
    }
    assert list(found) == list(expected)
    assert {where: part for where, part in expected.items() if part not in found[where]} == {}


def test_a_file_that_is_no_toml_does_not_hide_the_faults_of_the_command_line(tmp_path):
    assert list(faults(tmp_path, "[dataset\n", "x.y=1")) == ["offload.toml:1", "--set x.y"]


BAD = [
    ("dataset", "path", '""', "empty"),
    ("dataset", "path", '"~/x"', "not expanded"),
    ("dataset", "path", '"a\\\\b"', "backslash"),
    ("dataset", "path", '"a\\u0000"', "control character"),
    ("dataset", "path", "3", "a text in quotes"),
    ("dataset", "classes", '["a", "a"]', "there twice"),
    ("dataset", "classes", '"a"', "not a list"),
    ("dataset", "task", '"obb"', "'detect', 'segment', 'pose' or 'classify'"),
    ("dataset", "split.val", "1.0", "less than 1"),
    ("dataset", "split", "3", "not a table; write [dataset.split]"),
    ("training", "epochs", "0", "at least 1"),
    ("training", "epochs", "2.5", "not a whole number"),
    ("training", "image-size", "650", "write 640 or 672"),
    ("training", "batch", "true", "not a whole number"),
    ("training", "model", '"http://x/y.pt"', "#sha256="),
    ("training", "model", '"https://x/y.pt"', "#sha256="),
    ("training", "model", '"mine.pt"', "no model"),
    ("training", "model", '"store:../x"', "no model"),
    ("training", "model", '"store:/x"', "no model"),
    ("training", "model", '"yolo11n-obb.pt"', "no model"),
    ("training", "model", '"yolo11n-obb.yaml"', "obb is not among what we train"),
    ("training", "init-from", '"yolov8n.yaml"', "nothing to start from"),
    ("training", "hyperparameters", "{ when = 2020-01-01 }", "neither text, number"),
    ("training", "hyperparameters", "{ project = 'x' }", "remove it"),
    ("training", "hyperparameters", "{ epochs = 1 }", "set training.epochs"),
    ("training", "hyperparameters", "{ time = 2 }", "limits.deadline"),
    ("training", "hyperparameters", "{ lr0 = 'abc' }", "not a number; write digits"),
    ("training", "hyperparameters", "{ mosaic = 1.7 }", "write at most 1"),
    ("training", "hyperparameters", "{ close_mosaic = 2.5 }", "not a whole number; write 2 or 3"),
    ("training", "hyperparameters", "{ optimizer = 'Adan' }", '"Adam"'),
    ("training", "hyperparameters", "{ warmup_epoch = 1 }", "did you mean warmup_epochs"),
    ("registry", "metric", '"mAP50"', "write map50, map50_95"),
    ("registry", "metric", '"mask_map50"', "trainings for detect would not have"),
    ("sweep", "lr0", '"0.1..1.5"', "sweep.lr0, 1.5: training.hyperparameters.lr0 is 1.5; write at most 1"),
    ("sweep", "close_mosaic", '"0.0..10.0"', "not a whole number"),
    ("sweep", "image-size", '"64..128"', "65, not a multiple of 32"),
    ("sweep", "epochs", "[1, 0]", "sweep.epochs, 0: training.epochs is 0; write at least 1"),
    ("sweep", "mosiac", '"0..1"', "did you mean mosaic"),
    ("training", "speed", "{ warp = true }", "write threads, allocator"),
    ("training", "entrypoint", '"mine.train"', "package.module:function"),
    ("training", "device", '"tpu"', "write auto, cpu"),
    ("training", "speed", "{ compile = 1 }", "not true or false"),
    ("limits", "deadline", '"0m"', "zero"),
    ("limits", "deadline", '"-3h"', "not a length of time"),
    ("limits", "deadline", '"6h; 3"', "'6h; 3' is not a length of time such as 1h30m; write 6h"),
    ("limits", "deadline", '"31d"', "longer than 30d"),
    ("limits", "deadline", f'"{"9" * 5000}d"', "longer than"),
    ("limits", "max-cost-usd", "-0.01", "at least 0"),
    ("limits", "max-cost-usd", "inf", "finite"),
    ("limits", "on-overrun", '"pray"', "'stop', 'escalate' or 'continue'"),
    ("store", "url", '"gs://x"', "hf://OWNER/REPOSITORY"),
    ("store", "url", '"file:"', "names no folder"),
    ("store", "url", '"file://host/x"', "names no folder"),
    ("store", "url", '"s3://bucket/a/../b"', "`..` part"),
    ("store", "url", '"s3://bucket/a b"', "breaks addresses"),
    ("store", "url", '"file:raw/models"', "inside one another"),
    ("store", "url", '"file:."', "inside one another"),
    ("store", "region", '"us-east-1"', "is for S3"),
    ("store", "public-url", '"https://u:p@x"', "user name or password"),
    ("store", "public-url", '"ftp://x"', "not a web address"),
    ("store", "public-url", '"http://models.example.org"', "write https://"),
    ("store", "public-url", '"https://[x"', "not a web address"),
    ("store", "public-url", '"https://x/?y"', "write it up to there"),
    ("ec2", "regions", "[]", "empty"),
    ("ec2", "instance-types", '["big"]', "not an instance type"),
    ("ec2", "image", '"ami-1"', "not an image"),
    ("ec2", "image", '"ami-0123456789abcdef0"', "one region only"),
    ("ec2", "subnet", '"subnet-01234567"', "one region only"),
    ("ec2", "instance-profile", '"arn:aws:iam::1:x/y"', "its name, not its ARN"),
    ("ec2", "schedule-role", '"me"', "the ARN of a role"),
    ("ec2", "ssh-port", "70000", "at most 65535"),
    ("ec2", "ssh-cidr", '"10.0.0.1/8"', "host bits"),
    ("ec2", "ssh-cidr", '"0.0.0.0/0"', "whole internet"),
]


@given(data=st.data())
@settings(max_examples=200)
def test_any_single_fault_is_reported_alone_and_with_its_line(tmp_path_factory, data):
    section, key, value, part = data.draw(st.sampled_from(BAD))
    before = data.draw(st.lists(st.sampled_from(["", "# comment = 1", '# """'])))
    folder = tmp_path_factory.mktemp("fault", numbered=True)
    lines = [*before] if section == "dataset" else ["[dataset]", 'path = "raw"', *before]
    style = data.draw(st.sampled_from(["table", "dotted", "inline"]))
    if section == "dataset" and key != "path":
        lines = ['dataset.path = "raw"', *before] if style == "dotted" else lines
    if style == "dotted":
        lines = [*lines[2:], *lines[:2]] if section != "dataset" else lines
        at = len(lines) - 2 if section != "dataset" else len(lines)
        lines.insert(at, f"{section}.{key} = {value}")
        line = at + 1
    elif style == "inline":
        lines = [*before] if section == "dataset" else [*before, 'dataset.path = "raw"']
        head = 'path = "raw", ' if section == "dataset" and key != "path" else ""
        lines.append(f"{section} = {{ {head}{key} = {value} }}")
        line = len(lines)
    else:
        lines.append(f"[{section}]")
        if section == "dataset" and key != "path":
            lines.append('path = "raw"')
        lines.append(f"{key} = {value}")
        line = len(lines)
    (found,) = faults(folder, "\n".join(lines)).items()
    assert found[0] == f"offload.toml:{line}"
    assert part in found[1]


GOOD_IN_A_VARIABLE = {"3", '"a"', '""', "{ compile = 1 }"}


"""A text needs no quotes there, a single name is a list, and emptiness means that it is not set."""


@pytest.mark.parametrize(
    "bad",
    [entry for entry in BAD if entry[0] != "sweep" and entry[2] not in GOOD_IN_A_VARIABLE],
    ids=lambda entry: f"{entry[1]}={entry[2]}"[:40],
)
def test_the_same_fault_in_the_environment_names_the_variable(tmp_path, bad):
    section, key, value, part = bad
    name = f"OFFLOAD_{section}_{key}".upper().replace("-", "_").replace(".", "_")
    ((where, message),) = faults(tmp_path, MINIMUM, **{name: value}).items()
    assert where == name
    assert part in message


def test_a_text_in_place_of_a_table_names_how_an_entry_is_given(tmp_path):
    """A shell removes the quotes that `{optimizer = "SGD"}` needs."""
    given = "training.hyperparameters={optimizer=SGD}"
    ((where, message),) = faults(tmp_path, MINIMUM, given).items()
    assert where == "--set training.hyperparameters"
    assert "write --set training.hyperparameters.NAME=VALUE" in message
    variable = "OFFLOAD_TRAINING_HYPERPARAMETERS"
    ((where, message),) = faults(tmp_path, MINIMUM, **{variable: "SGD"}).items()
    assert where == variable
    assert f"write {variable}_NAME=VALUE" in message


@pytest.mark.parametrize("name", ["OFFLOAD_TRAINNG_EPOCHS", "OFFLOAD_TRAIN_EPOCHS", "OFFLOAD_LIMIT_DEADLINE"])
def test_a_misspelt_section_in_a_variable_is_a_fault(tmp_path, name):
    ((where, message),) = faults(tmp_path, MINIMUM, **{name: "2"}).items()
    assert where == name
    assert "did you mean OFFLOAD_" in message


@pytest.mark.parametrize("name", ["OFFLOAD_INPUT_MAX_COST_USD", "OFFLOAD_SSH_PORT", "OFFLOAD_LAUNCHER_ROLE"])
def test_a_variable_of_another_purpose_is_no_setting(tmp_path, name):
    assert list(faults(tmp_path, MINIMUM, "x.y=1", **{name: "2"})) == ["--set x.y"]


def test_settings_that_contradict_each_other_are_found(tmp_path):
    def only(text, *sets):
        (message,) = faults(tmp_path, MINIMUM + text, *sets).values()
        return message

    assert "remove init-from" in only('[training]\nmodel = "yolo11n.pt"\ninit-from = "yolo11s.pt"\n')
    assert "is for pose, but dataset.task is segment" in only(
        '[training]\nmodel = "yolo11n-pose.pt"\n', "dataset.task=segment"
    )
    assert "is for detect, but dataset.task is classify" in only("", "dataset.task=classify")
    assert 'gpus = 4, or gpus = "auto"' in only('[ec2]\ninstance-types = ["g5.12xlarge"]\n')
    assert "gpus = 1 or 4 or 8" in only("[ec2]\ngpus = 3\n"), "of all types, where none are named"
    assert "forbids it" in only('[limits]\non-overrun = "escalate"\n[ec2]\nmarket = "spot"\n')
    assert "remove region" in only('[store]\nurl = "hf://me/models"\nregion = "eu-west-1"\n')
    assert "leaves no choice" in only('[ec2]\nmarket = "spot"\npolicy = "greedy"\n')


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000])
def test_a_value_that_no_parser_reads_is_a_fault_and_not_a_defect(tmp_path, value):
    ((where, message),) = faults(tmp_path, MINIMUM, f"training.epochs={value}").items()
    assert where == "--set training.epochs"
    assert "not a whole number" in message


def test_a_command_on_runs_leaves_the_faults_of_the_next_training_out(tmp_path):
    """A wrong epoch must keep no one from ending an instance; what the command needs itself stays an error."""
    text = MINIMUM + (
        '[training]\nepochs = 0\nisolation = "required"\ninclude = ["a", "/b"]\n'
        'hyperparameters = { lr0 = "x", mosaic = 0.5 }\n[sweep]\nlr = "0..1"\n'
    )
    (tmp_path / "offload.toml").write_text(text)
    left_out = []
    loaded = load_settings(tmp_path, environment={}, left_out=left_out)
    assert sorted(fault.where for fault in left_out) == [f"offload.toml:{line}" for line in (4, 6, 7, 9)]
    assert loaded.training.isolation == "required"
    assert (loaded.training.epochs, loaded.training.include) == (20, ())
    assert loaded.training.hyperparameters == {"mosaic": 0.5}
    with pytest.raises(SettingsError, match=r"^the configuration has 1 fault.*\n.*ec2\.ssh-port"):
        load_settings(tmp_path, overrides=["ec2.ssh-port=0"], environment={}, left_out=[])
