"""The design's import table, held by reading the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"dataset", "remote_job", "infra", "orchestrator"}

PURE = {
    "chart",
    "cost",
    "estimate",
    "interval",
    "ladder",
    "market_choice",
    "model_facts",
    "next_step",
    "offers",
    "plan",
    "posterior",
    "quantity",
    "receipt",
    "report",
    "report_html",
    "report_markdown",
    "run",
    "seen",
    "summary",
    "stray",
    "training_key",
    "workload",
}
"""Modules of the orchestrator's pure half: values in, values out."""

SOLE_IMPORTERS = {
    "ultralytics": "remote_job",
    "torch": "remote_job",
    "boto3": "infra",
    "botocore": "infra",
    "fabric": "infra",
    "paramiko": "infra",
    "moto": "infra",
    "click": "orchestrator",
}

EFFECTS = {
    "os",
    "subprocess",
    "socket",
    "time",
    "shutil",
    "tempfile",
    "urllib",
    "threading",
    "random",
    "signal",
}
"""Standard modules that a pure module has no use for."""


def modules():
    for package in sorted(PACKAGES):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT)


def imports_of(path):
    """Dotted names that a file imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("gpu_offload.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            module = node.module.removeprefix("gpu_offload.")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def allowed(path, name):
    """Whether the table allows this file to import this dotted name."""
    package, top = path.parts[0], name.split(".")[0]
    if top in SOLE_IMPORTERS:
        if top == "click":
            return path == Path("orchestrator/cli.py") or path.parts[:2] == ("orchestrator", "cli")
        return package == SOLE_IMPORTERS[top]
    if top not in PACKAGES or top == package:
        return not (package == "orchestrator" and name.startswith("remote_job.train"))
    if package in {"dataset", "infra"}:
        return False
    if package == "remote_job":
        if top == "infra":
            return path.name == "__main__.py" and name.startswith("infra.object_store")
        return top == "dataset"
    return name != "remote_job.train" and not name.startswith("remote_job.train.")


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_a_module_imports_only_what_the_table_allows(path):
    assert [name for name in imports_of(path) if not allowed(path, name)] == []


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_has_no_effects(name):
    path = Path("orchestrator") / f"{name}.py"
    if not (ROOT / path).exists():
        pytest.skip(f"{path} does not exist yet")
    names = list(imports_of(path))
    assert [n for n in names if n.split(".")[0] in EFFECTS or n.split(".")[0] == "infra"] == []
    shell = {p.stem for p in (ROOT / "orchestrator").glob("*.py")} - PURE - {"__init__"}
    assert [n for n in names if n.startswith("orchestrator.") and n.split(".")[1] in shell] == []
    ours = [n for n in names if n.startswith("remote_job.")]
    assert [n for n in ours if n.split(".")[1] not in {"spec", "result", "wire"}] == []


def test_no_module_is_called_utils_or_models():
    assert [p for p in modules() if p.stem in {"utils", "models", "helpers", "common"}] == []
