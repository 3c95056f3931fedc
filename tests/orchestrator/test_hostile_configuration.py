"""A configuration, requirements or training code that costs little to write costs little to read."""

import time

import pytest
from dataset_case import flat, put
from hostile_trees import MAKERS

from gpu_offload.errors import OffloadError
from gpu_offload.orchestrator.plan.code import read_code
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.plan.requirements import read_requirements
from gpu_offload.orchestrator.settings.fault import NoConfigurationError
from gpu_offload.orchestrator.settings.load import SettingsError, load_settings


@pytest.mark.parametrize("scale", [0.01, 0.2])
@pytest.mark.parametrize(
    "name", ["toml_keys", "toml_deep", "toml_dotted", "toml_array_of_tables", "toml_strings", "toml_number"]
)
def test_a_configuration_is_refused_soon_and_in_few_words(tmp_path, name, scale):
    MAKERS[name](tmp_path, scale)
    before = time.process_time()
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, environment={})
    assert time.process_time() - before < 10
    assert len(str(caught.value).splitlines()) < 200


def test_a_large_pyproject_of_another_tool_is_passed_over(tmp_path):
    MAKERS["pyproject"](tmp_path, 0.1)
    assert load_settings(tmp_path, environment={}).source == tmp_path / "offload.toml"


def test_dotted_texts_of_usual_length_are_read(tmp_path):
    put(
        tmp_path / "offload.toml", '[dataset]\npath = "a.b.c.d.e/v1.2.3.4"\nclasses = ["a.b", "c.d", "e.f"]\n'
    )
    flat(tmp_path)
    assert load_settings(tmp_path, environment={}).dataset.classes == ("a.b", "c.d", "e.f")


@pytest.mark.parametrize("name", ["requirements", "nested_requirements", "endless_requirements"])
def test_requirements_are_refused_soon(tmp_path, name):
    MAKERS[name](tmp_path, 0.1)
    setting = "r0.txt" if name.startswith("nested") else "r.txt"
    with pytest.raises(PlanningError):
        read_requirements(tmp_path, setting)


def test_requirements_name_no_file_outside_of_the_repository(tmp_path):
    put(tmp_path / "secret.txt", "numpy\n")
    put(tmp_path / "project/r.txt", "-r ../secret.txt\n")
    with pytest.raises(PlanningError, match="leads out of"):
        read_requirements(tmp_path / "project", "r.txt")


@pytest.mark.parametrize(
    ("name", "entrypoint"), [("code", "t:train"), ("deep_code", "t:train"), ("many_imports", "p.t:train")]
)
def test_training_code_is_refused_soon(tmp_path, name, entrypoint):
    MAKERS[name](tmp_path, 0.1)
    before = time.process_time()
    try:
        faults = read_code(tmp_path, entrypoint).faults
    except OffloadError as fault:
        faults = (str(fault),)
    assert 0 < len(faults) <= 101
    assert time.process_time() - before < 10


@pytest.mark.parametrize("body", [f"x = {'9' * 5000}\n", "x = " + "[" * 2000])
def test_a_configuration_that_cannot_be_read_is_not_reported_as_missing(tmp_path, body):
    (tmp_path / "offload.toml").write_text(body)
    with pytest.raises(SettingsError) as told:
        load_settings(tmp_path, environment={})
    assert not isinstance(told.value, NoConfigurationError)
    assert "offload init" not in str(told.value)
