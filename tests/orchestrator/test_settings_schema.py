"""The JSON schema that editors use says what the loader says."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from settings_case import settings_toml

from gpu_offload.orchestrator.settings.json_schema import schema, schema_text
from gpu_offload.orchestrator.settings.overrides import SETTINGS
from gpu_offload.orchestrator.settings.sections import Sections

COMMITTED = Path(__file__).parents[2] / "docs" / "offload.schema.json"


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def test_the_committed_schema_is_current():
    hint = "run: python -m gpu_offload.orchestrator.settings.json_schema > docs/offload.schema.json"
    assert COMMITTED.read_text("utf-8") == schema_text(), hint


def nodes(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)


def test_every_setting_is_described_and_nothing_is_null():
    text = json.dumps(schema())
    assert '"null"' not in text
    assert "$ref" not in text
    for path in SETTINGS:
        node = schema()
        for part in path:
            node = node["properties"][part]
        assert node["description"], path
        assert "type" in node, path


def test_the_examples_and_defaults_are_valid(validator):
    validator.validate(tomllib.loads(settings_toml(Sections.model_validate({"dataset": {"path": "raw"}}))))
    for node in nodes(schema()):
        for example in node.get("examples", ()):
            jsonschema.validate(example, node)
        if "default" in node and "type" in node:
            jsonschema.validate(node["default"], node)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[dataset]\npath = "raw"\nclasses = ["a", "b"]\nsplit.val = 0.1',
        '"$schema" = "x"\n[training]\nmodel = "yolo11n.pt"\nhyperparameters = { lr0 = 0.01, optimizer = "SGD" }',
        '[training]\nhyperparameters = { optimizer = "adamw", cache = "ram", amp = true, scale = [0.5, 2.0], patience = 3.0 }',
        '[training]\nentrypoint = "mine:main"\nhyperparameters = { rate = 3, mosaic = "no" }',
        '[training]\nmodel = "https://example.org/x.pt#sha256=' + "a" * 64 + '"\ninit-from = "scratch"',
        '[limits]\ndeadline = "1h30m"\nmax-cost-usd = 2',
        '[store]\nurl = "s3://bucket/prefix"\nendpoint-url = "http://localhost:9000"',
        '[ec2]\nimage = "ami-01234567"\nregions = ["eu-west-1"]\nmarket = "spot"',
    ],
)
def test_good_configurations_pass(validator, text):
    data = tomllib.loads(text)
    validator.validate(data)
    data.pop("$schema", None)
    data.setdefault("dataset", {"path": "raw"})
    Sections.model_validate(data, by_name=False)


@pytest.mark.parametrize(
    "text",
    [
        "epochs = 3",
        "[dataset]",
        '[dataset]\npath = ""',
        "[dataset]\npath = 3",
        '[dataset]\npath = "x"\nclasses = ["a", "a"]',
        '[dataset]\npath = "x"\ntask = "obb"',
        '[dataset]\npath = "x"\nsplit.val = 1.0',
        "[training]\nimage_size = 640",
        '[training]\nepochs = "3"',
        "[training]\nepochs = 0",
        "[training]\nepochs = 1.5",
        '[training]\nmodel = "mine.pt"',
        '[training]\nmodel = "https://example.org/x.pt"',
        '[training]\nmodel = "store:../x"',
        '[training]\nentrypoint = "x"',
        '[training]\ndevice = "tpu"',
        "[training]\nspeed = { compile = 1 }",
        '[limits]\ndeadline = "6"',
        "[limits]\ndeadline = 6",
        "[limits]\nmax-cost-usd = -1",
        '[limits]\non-overrun = "pray"',
        '[store]\nurl = "gs://x"',
        '[store]\npublic-url = "ftp://x"',
        "[ec2]\nregions = []",
        '[ec2]\nregions = ["moon"]',
        '[ec2]\nsubnet = "x"',
        "[ec2]\nssh-port = 0",
    ],
)
def test_bad_configurations_fail_in_the_schema_and_in_the_loader(validator, text):
    data = tomllib.loads(text)
    assert not validator.is_valid(data)
    data.setdefault("dataset", {"path": "raw"})
    with pytest.raises(ValueError):
        Sections.model_validate(data, by_name=False)


@pytest.mark.parametrize(
    "table",
    ["{ lr0 = 'abc' }", "{ mosaic = 1.7 }", "{ optimizer = 'Adan' }", "{ cache = 'gpu' }", "{ lr = 1 }"],
)
def test_an_editor_marks_hyperparameters_that_ultralytics_refuses(validator, table):
    text = f"[training]\nhyperparameters = {table}\n"
    assert not validator.is_valid(tomllib.loads(text))
    assert validator.is_valid(tomllib.loads(text + 'entrypoint = "mine:main"\n'))


def test_every_setting_and_default_stands_in_the_documentation():
    text = (COMMITTED.parent / "configuration.md").read_text("utf-8")
    for path, kind in SETTINGS.items():
        if len(path) == 1:
            assert f"### `[{path[0]}]`" in text
        elif kind != "section":
            node = schema()
            for part in path:
                node = node["properties"][part]
            section = text.partition(f"### `[{path[0]}]`")[2].partition("\n### ")[0]
            row = next(
                line for line in section.splitlines() if line.startswith(f"| `{'.'.join(path[1:])}` |")
            )
            default = row.split("|")[2].strip().strip("`")
            if "default" in node:
                assert tomllib.loads(f"x = {default}")["x"] == node["default"], path
            else:
                assert default in {"", "(mandatory)"}, path
