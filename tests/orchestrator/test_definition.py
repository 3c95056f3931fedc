"""Model definitions of the user's: what Ultralytics could not build is refused before anything is rented, with its line."""

from pathlib import Path

import pytest

from gpu_offload.orchestrator.plan import definition
from gpu_offload.orchestrator.plan.definition import HEADS, MODULES, SEVERAL, check_definition
from gpu_offload.orchestrator.plan.model import DEFINITIONS, WEIGHTS, layers_of
from gpu_offload.orchestrator.plan.project import PlanningError

GOOD = """\
nc: 3
scales:
  n: [1.0, 0.25, 64]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 2, C2f, [32, True]]
head:
  - [-1, 1, nn.Identity, []]
  - [[0, 1, -1], 1, Detect, [nc]]
"""
FAULTS = [
    ("nc: 3", "", ": has no number of classes"),
    ("backbone:", "backbon:", ": has no list backbone"),
    ("C2f, [32", "C2ff, [32", ":6: row 1 names C2ff, which Ultralytics does not have; did you mean C2f"),
    ("[-1, 2, C2f, [32, True]]", "[-1, 2, C2f]", ":6: row 1 is not [from, repeats, module, arguments]"),
    ("[-1, 2, C2f, [32, True]]", "7", ":6: row 1 is not"),
    ("[-1, 2, C2f", "[-1, two, C2f", ":6: row 1 repeats two times"),
    ("[-1, 2, C2f", "[[-1, 0], 2, C2f", ":6: row 1: C2f reads one layer"),
    ("[-1, 2, C2f", "[1, 2, C2f", ":6: row 1 reads layer 1; the layers before it are 0 to 0"),
    ("[-1, 1, Conv", "[0, 1, Conv", ":5: row 0 reads layer 0; the first reads -1"),
    ("[0, 1, -1], 1, Detect", "-1, 1, Detect", ":9: row 3: Detect reads a list"),
    ("[0, 1, -1], 1, Detect", "[0, 9], 1, Detect", ":9: row 3 reads layer 9"),
    ("n: [1.0, 0.25, 64]", "n: [1.0, 0.25]", ":3: scale n is not three numbers"),
    ("n: [1.0", "s: [1.0", ":3: the file's name asks for the scale n, and scales has s"),
    ("backbone:", "backbone: [", ":5: is no YAML"),
]


def refusal(folder, text):
    path = folder / "yolov8n-mine.yaml"
    path.write_text(text)
    try:
        check_definition(path, "own/mine.yaml")
    except PlanningError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("before", "after", "said"), FAULTS)
def test_a_fault_of_a_definition_is_said_with_its_line(tmp_path, before, after, said):
    assert f"own/mine.yaml{said}" in refusal(tmp_path, GOOD.replace(before, after, 1))


def test_every_fault_of_a_definition_is_said_at_once(tmp_path):
    text = GOOD.replace("nc: 3", "").replace("C2f", "C2ff").replace("-1], 1, Detect", "8], 1, Detect")
    assert refusal(tmp_path, text).count("own/mine.yaml") == 3
    assert "no head" in refusal(tmp_path, GOOD.replace("  - [[0, 1, -1], 1, Detect, [nc]]\n", ""))
    assert "is no mapping" in refusal(tmp_path, "- 1\n")
    assert refusal(tmp_path, GOOD) is None


def test_a_newer_ultralytics_may_have_modules_that_the_table_does_not(tmp_path, monkeypatch):
    text = GOOD.replace("[-1, 2, C2f", "[[-1, 0], 2, C4f")
    assert "C4f" in refusal(tmp_path, text)
    monkeypatch.setattr(definition.metadata, "version", lambda _name: "8.4.1000")
    assert refusal(tmp_path, text) is None


@pytest.mark.training
@pytest.mark.filterwarnings("default")  # Ultralytics warns as it likes
def test_ultralytics_builds_what_passes_and_not_what_is_refused(tmp_path):
    import torch
    import ultralytics
    import yaml
    from ultralytics.nn import tasks

    known = {n for n, v in vars(tasks).items() if isinstance(v, type) and issubclass(v, torch.nn.Module)}
    whole = {name for name in known if name.endswith(("Model", "Loss"))} | {"Ensemble"}
    assert known - whole == MODULES
    shipped = sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))
    assert shipped
    for path in shipped:
        layers = check_definition(path, path.name)
        assert path.name not in DEFINITIONS or layers_of(path.name) == layers
        for source, _, name, _ in (
            row for key in ("backbone", "head") for row in yaml.safe_load(path.read_text())[key]
        ):
            assert isinstance(source, list) == (name in SEVERAL)
            assert name in HEADS or not name.endswith(("Detect", "Segment"))

    for name in DEFINITIONS | WEIGHTS:
        assert layers_of(name), name

    def build(text):
        tasks.DetectionModel(yaml.safe_load(text) | {"scale": "n"}, nc=2, verbose=False)

    build(GOOD)
    for before, after, _ in FAULTS:
        with pytest.raises(Exception):  # noqa: B017 - of any kind: it is not built
            build(GOOD.replace(before, after, 1))
