"""The configuration as a whole: its sources, its faults, its defaults."""

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from settings_case import MINIMUM, faults, load, settings_toml

from gpu_offload.dataset.task import Task
from gpu_offload.orchestrator.settings.duration import format_duration, parse_duration
from gpu_offload.orchestrator.settings.load import Settings, SettingsError, load_settings
from gpu_offload.orchestrator.settings.overrides import SETTINGS, parse_value
from gpu_offload.orchestrator.settings.scaffold import toml_value
from gpu_offload.orchestrator.settings.sections import DatasetSettings, Sections
from gpu_offload.remote_job.spec import SWITCHES

DEFAULTS = {
    "dataset": {
        "path": "raw",
        "classes": (),
        "task": None,
        "split": {"val": 0.2, "test": 0.0, "seed": 0, "fold": None},
    },
    "training": {
        "model": "yolov8n.yaml",
        "epochs": 20,
        "image-size": 640,
        "batch": 16,
        "seed": 0,
        "init-from": "scratch",
        "warm-epochs": None,
        "max-warm-starts": 5,
        "hyperparameters": {},
        "entrypoint": None,
        "include": (),
        "requirements": None,
        "license": None,
        "device": "auto",
        "isolation": "auto",
        "speed": {},
    },
    "limits": {
        "deadline": timedelta(hours=6),
        "max-cost-usd": 1.0,
        "value-of-time-usd-per-hour": 0.0,
        "ci-limit": timedelta(hours=6),
        "on-overrun": "stop",
    },
    "store": {"url": "file:.offload", "endpoint-url": None, "region": None, "public-url": None},
    "registry": {
        "metric": None,
        "goal": "maximize",
        "floor": None,
        "exports": None,
        "on-failed-export": "publish",
        "site": "off",
        "tolerance": 0.02,
        "on-candidate": "pass",
        "on-revert": "yank",
        "bump": "auto",
    },
    "retention": {"mode": "off", "keep": 5, "days": 30.0, "below-gb": None},
    "ec2": {
        "regions": ("us-east-1", "us-east-2", "us-west-2"),
        "instance-types": ("g4dn.xlarge", "g5.xlarge", "g6.xlarge", "g6e.xlarge"),
        "gpus": 1,
        "market": "spot-then-on-demand",
        "policy": "expected-cost",
        "image": None,
        "subnet": None,
        "instance-profile": None,
        "schedule-role": None,
        "volume-gib": 60,
        "ssh-port": 22,
        "ssh-cidr": None,
        "max-attempts": 6,
    },
    "sweep": {
        "seed": 1,
        "folds": 1,
        "trials": None,
        "parallel": 1,
        "budget-usd": None,
        "deadline": None,
        "prune": True,
    },
    "ray": {
        "address": "auto",
        "cpus": 1.0,
        "gpus": None,
        "memory-gib": None,
        "resources": {},
        "autoscales": False,
    },
}


def test_only_the_path_is_mandatory_and_the_defaults_are_as_documented(tmp_path):
    loaded = load(tmp_path, MINIMUM)
    assert loaded.model_dump(by_alias=True, exclude={"root", "source"}) | {} == {
        **DEFAULTS,
        "limits": {**DEFAULTS["limits"], "deadline": "6h", "ci-limit": "6h"},
    }
    assert loaded.limits.deadline == timedelta(hours=6)
    assert (loaded.root, loaded.source) == (tmp_path, tmp_path / "offload.toml")
    assert Settings(dataset=DatasetSettings(path="raw"), root=tmp_path, source=loaded.source) == loaded


def test_pyproject_is_read_like_a_file_of_our_own(tmp_path):
    text = (
        '[project]\nname = "x"\n[tool.offload]\ntraining.epochs = 3\n[tool.offload.dataset]\npath = "raw"\n'
    )
    loaded = load(tmp_path, text, name="pyproject.toml")
    assert (loaded.training.epochs, loaded.dataset.path) == (3, "raw")
    (tmp_path / "pyproject.toml").write_text(text.replace("= 3", "= 0"))
    with pytest.raises(SettingsError) as caught:
        load(tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["pyproject.toml:4"]
    (tmp_path / "pyproject.toml").write_text("[tool.offload]\n")
    assert "in [tool.offload.dataset], path =" in faults(tmp_path)["pyproject.toml:1"]


def test_the_command_line_beats_the_environment_and_that_beats_the_file(tmp_path):
    text = MINIMUM + "[training]\nepochs = 1\nbatch = 1\nseed = 1\n"
    loaded = load(
        tmp_path,
        text,
        "training.epochs=3",
        "training.epochs=4",
        OFFLOAD_TRAINING_EPOCHS="2",
        OFFLOAD_TRAINING_BATCH="2",
        OFFLOAD_LOG="debug",
        OFFLOAD_TRAINING_SEED=" ",
    ).training
    assert (loaded.epochs, loaded.batch, loaded.seed) == (4, 2, 1)


def test_a_configuration_needs_no_file(tmp_path):
    loaded = load(tmp_path, None, OFFLOAD_DATASET_PATH="raw")
    assert (loaded.dataset.path, loaded.root, loaded.source) == ("raw", tmp_path, None)
    message = faults(tmp_path)["offload.toml"]
    assert "dataset.path is missing" in message
    assert 'path = "FOLDER"' in message
    assert "offload init" in message


def test_another_file_can_be_named_and_paths_are_relative_to_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "big.toml").write_text(MINIMUM + '[store]\nurl = "file:../kept"\n')
    loaded = load_settings(tmp_path, file=Path("sub/big.toml"), environment={})
    assert loaded.dataset_path == tmp_path / "sub" / "raw"
    assert loaded.store_url == f"file:{tmp_path}/kept"
    assert loaded.store_ref().url == loaded.store_url
    with pytest.raises(SettingsError, match=r"none\.toml: it cannot be read"):
        load_settings(tmp_path, file=Path("none.toml"), environment={})


def test_an_absolute_dataset_and_a_bucket_stay_as_they_are(tmp_path):
    loaded = load(
        tmp_path,
        '[dataset]\npath = "/data/x"\n[store]\nurl = "s3://bucket/a/b/"\nendpoint-url = "http://127.0.0.1:9000/"\n',
        "store.region=auto",
    )
    assert loaded.dataset_path == Path("/data/x")
    assert loaded.store_ref().model_dump() == {
        "url": "s3://bucket/a/b",
        "endpoint_url": "http://127.0.0.1:9000",
        "region": "auto",
    }


@pytest.mark.parametrize(
    ("word", "get", "expected"),
    [
        ("training.image_size=320", lambda s: s.training.image_size, 320),
        ("training.image-size=320", lambda s: s.training.image_size, 320),
        ("training.model=yolov8n-p2.yaml", lambda s: s.training.model, "yolov8n-p2.yaml"),
        ("training.hyperparameters.lr0=0.02", lambda s: s.training.hyperparameters, {"lr0": 0.02}),
        (
            "training.hyperparameters.optimizer=SGD",
            lambda s: s.training.hyperparameters,
            {"optimizer": "SGD"},
        ),
        ("training.hyperparameters.cos_lr=True", lambda s: s.training.hyperparameters, {"cos_lr": True}),
        ("training.hyperparameters={ lr0 = 1 }", lambda s: s.training.hyperparameters, {"lr0": 1}),
        ("training.speed.trial=false", lambda s: s.training.speed, {"trial": False}),
        ("dataset.path=2024", lambda s: s.dataset.path, "2024"),
        ("dataset.path='a b'", lambda s: s.dataset.path, "a b"),
        ("dataset.path=a=b", lambda s: s.dataset.path, "a=b"),
        ('dataset.classes=["a", "b"]', lambda s: s.dataset.classes, ("a", "b")),
        ("dataset.classes=a, b", lambda s: s.dataset.classes, ("a", "b")),
        ("dataset.split.val=0.3", lambda s: s.dataset.split.val, 0.3),
        ("dataset.split={val = 0.3}", lambda s: s.dataset.split.val, 0.3),
        ("dataset.task=detect", lambda s: s.dataset.task, Task.DETECT),
        ("limits.deadline=1h30m", lambda s: s.limits.deadline, timedelta(minutes=90)),
        ("limits.max-cost-usd=2", lambda s: s.limits.max_cost_usd, 2.0),
        ("ec2.regions=eu-west-1", lambda s: s.ec2.regions, ("eu-west-1",)),
    ],
)
def test_an_override_says_what_it_seems_to_say(tmp_path, word, get, expected):
    assert get(load(tmp_path, MINIMUM, word)) == expected
    key, _, value = word.partition("=")
    variable = "OFFLOAD_" + key.upper().replace(".", "_").replace("-", "_")
    assert get(load(tmp_path, MINIMUM, **{variable: value})) == expected


def test_an_override_changes_one_value_and_leaves_its_neighbours(tmp_path):
    text = MINIMUM + "[training.hyperparameters]\nlr0 = 1.0\nmosaic = 0.0\n"
    loaded = load(
        tmp_path, text, "training.hyperparameters.lr0=0.5", OFFLOAD_TRAINING_HYPERPARAMETERS_PATIENCE="3"
    )
    assert loaded.training.hyperparameters == {"lr0": 0.5, "mosaic": 0.0, "patience": 3}


def test_every_setting_can_be_overridden_from_the_environment(tmp_path):
    documented = Settings(dataset=DatasetSettings(path="raw")).model_dump(mode="json", by_alias=True)
    for path, kind in SETTINGS.items():
        value = documented[path[0]]
        for part in path[1:]:
            value = value[part]
        if len(path) == 1 or kind == "section" or value is None or value == []:
            continue
        name = "OFFLOAD_" + "_".join(path).upper().replace("-", "_")
        assert name in faults(tmp_path, MINIMUM, **{name: "[[" if kind != "text" else "~\x01"}), name
        load(tmp_path, MINIMUM, **{name: toml_value(value)})


def test_what_fits_together_is_accepted(tmp_path):
    for sets in (
        ("training.model=yolo11n.pt",),
        ("training.init-from=store:weights/mine.pt",),
        ("training.model=https://example.org/a.pt#sha256=" + "0" * 64,),
        ("training.model=models/my-own.yaml", "dataset.task=pose"),
        ("training.model=yolo26s-cls.yaml", "dataset.task=classify"),
        ("training.entrypoint=mine:go", "training.image-size=50", "training.hyperparameters={ name = 'x' }"),
        ("ec2.image=ami-0123456789abcdef0", "ec2.regions=eu-west-1"),
        ("ec2.image=/aws/service/x",),
        ("ec2.gpus=4",),
        ("ec2.gpus=auto", 'ec2.instance-types=["g5.12xlarge", "g5.xlarge"]'),
        ("dataset.path=.",),
        ("store.url=file:/somewhere/else",),
    ):
        load(tmp_path, MINIMUM, *sets)


def test_the_schema_comment_of_editors_is_no_setting(tmp_path):
    load(tmp_path, '#:schema ./x.json\n"$schema" = "x.json"\n' + MINIMUM)


def test_settings_made_in_python_are_checked_too_and_cannot_be_changed():
    made = Settings(dataset=DatasetSettings(path="raw"))
    with pytest.raises(ValidationError, match="frozen"):
        made.training.epochs = 3
    with pytest.raises(ValidationError, match="is for detect, but"):
        Settings(dataset=DatasetSettings(path="raw", task=Task.POSE))
    with pytest.raises(ValidationError, match="extra"):
        DatasetSettings(path="raw", pth="x")


NAME = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=8).filter(
    lambda name: "\\" not in name and not name.startswith("~")
)
PLAIN = st.recursive(
    st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
VALID = st.fixed_dictionaries(
    {
        "dataset": st.fixed_dictionaries(
            {"path": NAME},
            optional={
                "classes": st.lists(NAME, unique=True, max_size=4),
                "split": st.fixed_dictionaries({"val": st.floats(0, 0.5), "test": st.floats(0, 0.4)}),
            },
        )
    },
    optional={
        "training": st.fixed_dictionaries(
            {"entrypoint": st.just("mine:main")},  # else hyperparameters are Ultralytics'
            optional={
                "epochs": st.integers(1, 1000),
                "image-size": st.integers(1, 40).map(lambda n: n * 32),
                "seed": st.integers(0, 2**31 - 1),
                "hyperparameters": st.dictionaries(
                    st.text(max_size=6).map(lambda name: f"x{name}"), PLAIN, max_size=3
                ),
                "speed": st.dictionaries(st.sampled_from(SWITCHES), st.booleans(), max_size=2),
            },
        ),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "deadline": st.integers(1, 86400 * 30).map(lambda s: format_duration(timedelta(seconds=s))),
                "max-cost-usd": st.floats(0, 1e6),
            },
        ),
        "ec2": st.fixed_dictionaries(
            {}, optional={"regions": st.just(["eu-west-1"]), "volume-gib": st.integers(8, 100)}
        ),
    },
)


@given(VALID)
def test_any_valid_settings_survive_the_way_through_toml(data):
    sections = Sections.model_validate(data, by_name=False)
    text = settings_toml(sections)
    assert Sections.model_validate(tomllib.loads(text), by_name=False) == sections


@given(
    st.timedeltas(timedelta(), timedelta(days=400)).map(lambda d: d - timedelta(microseconds=d.microseconds))
)
def test_a_duration_reads_as_it_is_written(length):
    assert parse_duration(format_duration(length)) == length


@given(st.text(max_size=30), st.sampled_from(sorted(SETTINGS)))
def test_no_text_breaks_the_reading_of_a_value(text, path):
    parse_value(text, path)
