"""`training.requirements` is resolved without builds, configuration or secrets."""

import io
import json
import os
import sys
import tarfile

import pytest
from dataset_case import put
from remote_job_case import bare_spec

from gpu_offload.errors import EXIT_USAGE
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.plan.project import PlanningError
from gpu_offload.orchestrator.plan.requirements import RequirementLineError, lock, read_requirements
from gpu_offload.remote_job import requirements as installing

BACKEND = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys
seen = {{"environment": dict(os.environ), "folder": os.getcwd(), "files": sorted(os.listdir()), "arguments": sys.argv[1:]}}
pathlib.Path(sys.argv[0]).with_name("seen.json").write_text(json.dumps(seen))
if "--output-file" in sys.argv:
    pathlib.Path(sys.argv[sys.argv.index("--output-file") + 1]).write_text(
        f"--index-url {{os.environ.get('UV_INDEX_URL')}}\\na==1 --hash=sha256:00\\n"
    )
"""
SECRETS = (
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "STORE_SECRET",
    "HF_TOKEN",
    "GITHUB_TOKEN",
    "OTHER",
)


@pytest.mark.parametrize(
    "line",
    [
        "./evil",
        "../evil",
        "/evil",
        "evil/",
        "./evil.whl",
        "file:evil",
        "-e ./evil",
        "-e./evil",
        "--editable=./evil",
        "--editable evil",
        "evil @ file:///evil",
        "evil@file:evil",
        "evil[x] @ ./evil",
        "evil @ https://example.org/evil.tar.gz",
        "evil @ git+https://example.org/evil",
        "git+https://example.org/evil",
        "git+ssh://git@example.org/evil#egg=evil",
        "https://example.org/evil.tar.gz",
        "--no-binary :all:",
        "--no-binary=evil",
        "--only-binary :none:",
        "--index-url file:///evil",
        "--find-links ./evil",
        "--index-url https://${AWS_SECRET_ACCESS_KEY}@example.org/simple",
        "-rmore.txt",
        "# a comment \\\n-e ./evil",
        "numpy # a comment \\\n./evil",
    ],
)
def test_what_would_be_built_or_reveal_secrets_is_refused_with_file_and_line(tmp_path, line):
    put(tmp_path / "r.txt", f"numpy\n{line}\n")
    with pytest.raises(RequirementLineError, match=r"r\.txt:[23]: ") as caught:
        read_requirements(tmp_path, "r.txt")
    assert caught.value.exit_code == EXIT_USAGE


def test_all_faults_of_all_files_come_at_once(tmp_path):
    put(tmp_path / "r.txt", "-r sub/more.txt\n./evil\nnumpy\n\nevil @ \\\n  file:evil\n")
    put(tmp_path / "sub/more.txt", "-e .\n")
    with pytest.raises(RequirementLineError) as caught:
        read_requirements(tmp_path, "r.txt")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "r.txt:2",
        "r.txt:5",
        "sub/more.txt:1",
    ]


def test_usual_lines_are_read(tmp_path):
    put(
        tmp_path / "r.txt",
        "-i https://example.org/simple\n--extra-index-url=http://127.0.0.1/simple\n--only-binary :all:\n-c c.txt\n"
        "a @ https://example.org/a-1-py3-none-any.whl#sha256=00\nb [x] >= 1 ; python_version > '3'\nc (>=1)\nd\\\n==1\n",
    )
    put(tmp_path / "c.txt", "a<2\n")
    assert read_requirements(tmp_path, "r.txt").names == {"a", "b", "c", "d"}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A uv that notes what it is given; returns where."""
    uv = tmp_path / "bin" / "uv"
    put(uv, STAND_IN)
    uv.chmod(0o755)
    monkeypatch.setattr("gpu_offload.remote_job.uv.sys.executable", str(tmp_path / "bin" / "python"))
    for name in SECRETS:
        monkeypatch.setenv(name, "secret-value")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    return uv.with_name("seen.json")


@pytest.mark.process
def test_uv_resolves_without_secrets_in_a_folder_of_its_own(tmp_path, stand_in):
    put(tmp_path / "p/r.txt", "-r sub/more.txt\na\n")
    put(tmp_path / "p/sub/more.txt", "-c ../c.txt\nb\n")
    put(tmp_path / "p/c.txt", "b<2\n")
    assert lock(read_requirements(tmp_path / "p", "r.txt"), open_store(f"file:{tmp_path / 'store'}"))
    seen = json.loads(stand_in.read_text())
    assert "secret-value" not in seen["environment"].values()
    assert seen["environment"]["UV_INDEX_URL"] == "http://127.0.0.1:9/simple"
    assert seen["environment"]["UV_NO_CONFIG"] == "1"
    assert seen["files"] == ["0.txt", "1.txt", "2.txt"]
    assert not seen["folder"].startswith(str(tmp_path / "p"))


@pytest.mark.process
def test_a_password_of_the_index_is_never_kept_in_the_lock(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("UV_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    put(tmp_path / "p/r.txt", "a\n")
    store = open_store(f"file:{tmp_path / 'store'}")
    with pytest.raises(PlanningError, match="password") as caught:
        lock(read_requirements(tmp_path / "p", "r.txt"), store)
    assert "secret" not in str(caught.value)
    assert list(store.list("")) == []


@pytest.mark.process
def test_uv_installs_without_secrets(tmp_path, stand_in):
    put(tmp_path / "p" / installing.REQUIREMENTS, "a==1 --hash=sha256:00\n")
    spec = bare_spec(tmp_path / "output", project=str(tmp_path / "p"))
    assert installing.with_packages(spec, tmp_path / "packages").packages
    seen = json.loads(stand_in.read_text())
    assert "secret-value" not in seen["environment"].values()
    assert "--no-config" in seen["arguments"]
    assert seen["folder"].startswith(str(tmp_path / "packages"))


@pytest.mark.process
def test_an_archive_that_needs_a_build_is_never_built(tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    ran = tmp_path / "ran"
    files = {"pyproject.toml": BACKEND, "backend.py": f"open({str(ran)!r}, 'w')\n"}
    with tarfile.open(tmp_path / "links/evil-1.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"evil-1/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    put(tmp_path / "p/r.txt", "evil\n")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(PlanningError, match="evil"):
        lock(read_requirements(tmp_path / "p", "r.txt"), open_store(f"file:{tmp_path / 'store'}"))
    assert not ran.exists()


@pytest.mark.process
@pytest.mark.parametrize("name", ["uv.toml", "pyproject.toml"])
def test_no_configuration_is_read_and_no_source_is_built(tmp_path, monkeypatch, name):
    links = tmp_path / "links"
    put(links / "evil-1.tar.gz", "no archive")
    put(tmp_path / "p/evil/pyproject.toml", BACKEND + '[project]\nname = "evil"\nversion = "1"\n')
    put(tmp_path / "p/evil/backend.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    table = "[tool.uv.sources]\nevil = { path = 'evil' }\n[tool.uv]\n" if name == "pyproject.toml" else ""
    put(tmp_path / "p" / name, f"{table}find-links = [{str(links)!r}]\nno-index = 'no boolean'\n")
    put(tmp_path / "p/r.txt", "evil\n")
    for variable in [v for v in os.environ if v.startswith("UV_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(PlanningError) as caught:
        lock(read_requirements(tmp_path / "p", "r.txt"), open_store(f"file:{tmp_path / 'store'}"))
    assert "evil" in str(caught.value)
    assert "no-index" not in str(caught.value), "the configuration was parsed"
    assert not (tmp_path / "ran").exists()
