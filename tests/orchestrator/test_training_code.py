"""The user's training code, read without running it: what it imports, what it lacks."""

import pytest

from gpu_offload.orchestrator.plan import code as module
from gpu_offload.orchestrator.plan.code import read_code
from gpu_offload.orchestrator.plan.project import PlanningError, pack_project, unpack_project

MAIN = "def main(context):\n    ...\n"


def project(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "entrypoint", "found"),
    [
        ({"mine.py": "import helper\n" + MAIN, "helper.py": ""}, "mine:main", {"mine.py", "helper.py"}),
        (
            {"mine.py": "def main(context):\n    from lib.deep import f\n", "lib/__init__.py": "", "lib/deep.py": ""},
            "mine:main",
            {"mine.py", "lib/__init__.py", "lib/deep.py"},
        ),
        (
            {"mine.py": "from lib import deep\n" + MAIN, "lib/deep.py": "", "lib/unused.py": ""},
            "mine:main",
            {"mine.py", "lib/deep.py"},
        ),
        (
            {"mine/__init__.py": "", "mine/train.py": "from . import net\n" + MAIN, "mine/net.py": "import common\n",
             "mine/plugin.py": "", "common.py": ""},
            "mine.train:main",
            {"mine/__init__.py", "mine/train.py", "mine/net.py", "mine/plugin.py", "common.py"},
        ),
        (
            {"mine.py": "try:\n    import fast\nexcept ImportError:\n    pass\n" + MAIN, "fast.py": ""},
            "mine:main",
            {"mine.py", "fast.py"},
        ),
        # Names that are ours, too.
        (
            {"mine.py": "import dataset, infra\nfrom orchestrator import x\n" + MAIN, "dataset/__init__.py": "",
             "infra.py": "", "orchestrator/__init__.py": "x = 1"},
            "mine:main",
            {"mine.py", "dataset/__init__.py", "infra.py", "orchestrator/__init__.py"},
        ),
        # A folder of pictures is no package, whatever its name.
        ({"mine.py": "import numpy\n" + MAIN, "numpy/1.png": "x"}, "mine:main", {"mine.py"}),
        # Two modules that import each other.
        ({"mine.py": "import b\n" + MAIN, "b.py": "import mine"}, "mine:main", {"mine.py", "b.py"}),
    ],
)  # fmt: skip
def test_what_an_entrypoint_imports_below_the_root_is_its_code(tmp_path, files, entrypoint, found):
    code = read_code(project(tmp_path, files), entrypoint)
    assert set(code.files) == found
    assert code.faults == ()


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"mine.py": "import os\nfrom lib.gone import f\n" + MAIN, "lib/__init__.py": ""}, "mine.py:2: the project has no module lib.gone"),
        ({"mine.py": "from .helper import f\n" + MAIN, "helper.py": ""}, "mine.py:1: a relative import leads out"),
        ({"mine.py": "import helper\n" + MAIN, "helper.py": "x = 1\ndef f(:\n"}, "helper.py:2: "),
        ({"mine.py": "def train(context): ...\n"}, "has no function main; it has train"),
        ({"mine.py": "\ndef main(): ...\n"}, "mine.py:2: main is called with one argument"),
        ({"mine.py": "def main(context, other): ...\n"}, "mine.py:1: main is called with one argument"),
        ({"mine.py": "def main(context, *, other): ...\n"}, "mine.py:1: main is called with one argument"),
        ({"mine.py": "main = 3\n"}, "mine.py:1: main is no function"),
        ({"mine.py": "async def main(context): ...\n"}, "does not run when it is called"),
        ({"mine.py": "def main(context):\n    yield 1\n"}, "does not run when it is called"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_named_with_file_and_line(tmp_path, files, fault):
    [found] = read_code(project(tmp_path, files), "mine:main").faults
    assert fault in found


def test_an_entrypoint_whose_module_is_missing_in_its_package_is_not_called_a_folder(tmp_path):
    (fault,) = read_code(
        project(tmp_path, {"ml/__init__.py": "", "ml/train.py": MAIN}), "ml.trainer:main"
    ).faults
    assert "the project has no module ml.trainer" in fault


def test_modules_from_elsewhere_are_those_that_are_imported_in_any_case(tmp_path):
    text = (
        "from __future__ import annotations\nimport json\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import only_types\n"
        "try:\n    import faster\nexcept ImportError:\n    faster = None\n"
        "def main(context):\n    import sklearn.ensemble\n    from gpu_offload.remote_job.entrypoint import Trained\n"
    )
    [external] = read_code(project(tmp_path, {"mine.py": text}), "mine:main").externals
    assert (external.name, external.where) == ("sklearn", "mine.py:11")


def test_a_name_that_is_bound_in_any_way_is_a_function(tmp_path):
    for text in ("from other import main", "main = print", "from other import *", "class main: ..."):
        files = {"mine.py": text, "other.py": MAIN}
        assert read_code(project(tmp_path, files), "mine:main").faults == ()


def test_a_changed_helper_changes_the_digest_and_an_unused_file_does_not(tmp_path):
    project(tmp_path, {"mine.py": "import helper\n" + MAIN, "helper.py": "", "unused.py": ""})
    before = read_code(tmp_path, "mine:main").sha256
    project(tmp_path, {"unused.py": "changed"})
    assert read_code(tmp_path, "mine:main").sha256 == before
    project(tmp_path, {"helper.py": "changed = 1"})
    assert read_code(tmp_path, "mine:main").sha256 != before


def test_include_names_files_folders_and_patterns_below_the_root_only(tmp_path):
    project(
        tmp_path / "p",
        {"mine.py": MAIN, "data/words.txt": "", "data/.hidden": "", "a.yaml": "", "b.yaml": ""},
    )
    (tmp_path / "secret.txt").write_text("")
    (tmp_path / "p" / "data" / "link.txt").symlink_to(tmp_path / "secret.txt")
    code = read_code(tmp_path / "p", "mine:main", ("data", "*.yaml", "../secret.txt", str(tmp_path)))
    assert set(code.files) == {"mine.py", "data/words.txt", "a.yaml", "b.yaml"}
    assert len(code.faults) == 2


def test_a_pattern_finds_no_hidden_and_no_installed_file(tmp_path):
    """The token of actions/checkout is in .git/config, and what is shipped is readable in the store."""
    hidden = {".git/config": "token", "env/pyvenv.cfg": "", "env/lib/numpy.py": "", "data/.env": "secret"}
    project(tmp_path, {"mine.py": MAIN, "data/words.txt": "", **hidden})
    for pattern in ("**/*", "*", "*/*"):
        assert set(read_code(tmp_path, "mine:main", (pattern,)).files) <= {"mine.py", "data/words.txt"}
    assert "data/.env" in read_code(tmp_path, "mine:main", ("data/.env",)).files, "where it is named itself"


def test_too_much_to_ship_is_refused_and_says_which_file_it_is(tmp_path, monkeypatch):
    project(tmp_path, {"mine.py": MAIN, "big.bin": "x" * 2_000})
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    with pytest.raises(PlanningError, match=r"big\.bin"):
        read_code(tmp_path, "mine:main", ("big.bin",))


def test_an_entrypoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PlanningError, match="there is no module nowhere"):
        read_code(tmp_path, "nowhere:main")


def test_a_packed_project_comes_out_as_it_was(tmp_path):
    project(tmp_path, {"a.py": "1", "b/c.py": "2"})
    body = pack_project({"b/c.py": tmp_path / "b" / "c.py", "a.py": tmp_path / "a.py", "d.txt": b"3"})
    unpack_project(body, tmp_path / "out")
    files = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_text() for p in (tmp_path / "out").rglob("*.*")
    }
    assert files == {"a.py": "1", "b/c.py": "2", "d.txt": "3"}
