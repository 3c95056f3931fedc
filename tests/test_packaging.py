"""The wheel holds every package and every file that one reads."""

import importlib.util
import io
import re
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from gpu_offload.infra.instance.wheel import EVERYTHING, pack_wheel

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {ROOT / folder: package for package, folder in SETUPTOOLS["package-dir"].items()}
OF_THE_CHECKOUT = {"infra/action/install.sh"}
"""Read from a checkout of the Action, never from an installed package."""


def package_of(file):
    """Return the package that a file belongs to, by its folder."""
    top = next(folder for folder in FOLDERS if folder in file.parents)
    return ".".join([FOLDERS[top], *file.parent.relative_to(top).parts])


def files():
    for folder in FOLDERS:
        for path in sorted(folder.rglob("*")):
            if (
                path.is_file()
                and path.suffix != ".pyc"
                and str(path.relative_to(ROOT)) not in OF_THE_CHECKOUT
            ):
                yield path


def test_every_folder_with_code_is_listed_as_a_package():
    assert {package_of(path) for path in files() if path.suffix == ".py"} == set(SETUPTOOLS["packages"])


def test_the_action_unpacks_every_package():
    """An instance does without some of them; the action runs the orchestrator."""
    assert set(EVERYTHING) == {package.split(".")[1] for package in SETUPTOOLS["packages"]}
    script = (ROOT / "infra" / "action" / "install.sh").read_text("utf-8")
    assert 'packing["EVERYTHING"]' in script


def test_nothing_is_installed_beside_our_root():
    """PyPI has packages `dataset`, `infra` and `errors`, and repositories have folders of these names."""
    tops = {package.split(".")[0] for package in SETUPTOOLS["packages"]}
    in_the_instances_wheel = zipfile.ZipFile(io.BytesIO(pack_wheel("1.0").body)).namelist()
    tops |= {name.split("/")[0] for name in in_the_instances_wheel}
    installed = metadata.files("gpu-offload") or []
    tops |= {path.parts[0] for path in installed if "__editable__" not in str(path) and path.parts[0] != ".."}
    assert {top for top in tops if not top.endswith(".dist-info")} - {"__pycache__"} == {"gpu_offload"}


def test_every_other_file_is_package_data():
    data = SETUPTOOLS["package-data"]
    missing = [
        str(path.relative_to(ROOT))
        for path in files()
        if path.suffix != ".py"
        and not any(
            path in folder.glob(pattern)
            for package, patterns in data.items()
            for folder in [_folder(package)]
            for pattern in patterns
        )
    ]
    assert missing == []


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_the_installed_package_holds_every_file(package):
    """Of interest where the wheel is installed: `make wheel` runs this."""
    installed = Path(importlib.util.find_spec(package).origin or "").parent
    for path in files():
        if package_of(path) == package or (path.suffix != ".py" and _folder(package) in path.parents):
            assert (installed / path.relative_to(_folder(package))).is_file(), path


def _folder(package):
    """Return a package's folder in the repository."""
    top = next(
        name for name in SETUPTOOLS["package-dir"] if package == name or package.startswith(f"{name}.")
    )
    return ROOT / SETUPTOOLS["package-dir"][top] / Path(*package.removeprefix(top).split("."))


def test_nothing_is_built_with_what_no_hash_pins():
    """Build isolation fetches the newest setuptools, and a source distribution whatever it asks for."""
    files = [ROOT / "Makefile", ROOT / "infra/action/install.sh", ROOT / "infra/instance/job.sh"]
    files += [
        *(ROOT / ".github/workflows").glob("*.yml"),
        *(path for path in (ROOT / ".ci").iterdir() if path.is_file()),
    ]
    lines = [line for path in files for line in path.read_text("utf-8").replace("\\\n", " ").splitlines()]
    builds = [line for line in lines if re.search(r"\buv build\b|--editable|install .*-e \.", line)]
    installs = [line for line in lines if "--require-hashes" in line]
    assert len(builds) >= 3
    assert [line for line in builds if "--no-build-isolation" not in line] == []
    assert len(installs) >= 5
    assert [line for line in installs if "--only-binary :all:" not in line] == []
    pinned = (ROOT / "requirements/dev.txt").read_text("utf-8")
    assert re.search(r"^setuptools==\S+ \\\n +--hash=sha256:", pinned, re.MULTILINE)
