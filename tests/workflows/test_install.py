"""The action's installation runs nothing from the caller's checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpu_offload.orchestrator.github.inputs import INSTALLED, WorkflowInputs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra/action/install.sh"

MODULES = (
    "venv",
    "sysconfig",
    "io",
    "runpy",
    "tomllib",
    "zipfile",
    "pip",
    "ensurepip",
    "sitecustomize",
    "numpy",
)


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout in which every module that an installation could import leaves a mark."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    (folder / "uv.toml").write_text("this is no configuration")
    return folder


@pytest.mark.process
@pytest.mark.parametrize("relative", [False, True])
def test_modules_of_the_checkout_take_no_part(checkout, tmp_path, relative):
    temp = tmp_path / "temp"
    temp.mkdir()
    given = os.path.relpath(sys.prefix, checkout) if relative else sys.prefix
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        cwd=checkout,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(checkout),
            "RUNNER_TEMP": str(temp),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GPU_OFFLOAD_ACTION": str(ROOT),
            "GPU_OFFLOAD_INSTALL": "plan",
            "GPU_OFFLOAD_PYTHON": given,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    python = (tmp_path / "output").read_text().strip().removeprefix("python=")
    told = subprocess.run(
        [python, "-P", "-c", "import gpu_offload.errors; print(gpu_offload.errors.__file__)"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert Path(told.stdout.strip()).is_relative_to(temp)
    assert not (tmp_path / "ran").exists()


def test_what_the_installation_took_reaches_the_command():
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    [run] = [step for step in action["runs"]["steps"] if step["name"] == "Run"]
    assert run["env"][INSTALLED] == "${{ steps.install.outputs.seconds }}"
    assert 'echo "seconds=$SECONDS" >>"$GITHUB_OUTPUT"' in SCRIPT.read_text()
    assert WorkflowInputs.of({INSTALLED: "37"}).installed_s == 37
    assert WorkflowInputs.of({INSTALLED: ""}).installed_s == 0


def test_no_python_in_the_script_looks_into_the_working_folder():
    text = SCRIPT.read_text()
    lines = "\n".join(line for line in text.splitlines() if "bin/uv" not in line)
    calls = re.findall(r'(?:"\$base"|"\$python"|bin/python"|python3) +(-\S+)', lines)
    assert len(calls) >= 6
    assert set(calls) == {"-I"}
    assert "export UV_NO_CONFIG=1" in text
