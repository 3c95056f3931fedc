"""A pull request: a summary whatever it holds, faults at their places, and what it changes in the dataset."""

import html
import json
import re
import shutil

import pytest
from click.testing import CliRunner
from clone_case import git
from github_case import GitHub

from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.infra.store.errors import StoreUnreachableError
from gpu_offload.orchestrator import api
from gpu_offload.orchestrator.cli.check_commands import check
from gpu_offload.orchestrator.github import train_step
from gpu_offload.orchestrator.github.action import main
from gpu_offload.orchestrator.github.data_change import DataChange, base_of, data_change
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.settings.findings import relative_to
from gpu_offload.orchestrator.settings.load import load_settings

pytestmark = pytest.mark.process

CONFIGURATION = """\
[dataset]
path = "shapes"
classes = ["circle", "square", "triangle"]
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a project in a subfolder, on a branch for a pull request."""
    root, project = tmp_path / "boards", tmp_path / "boards/apps/a"
    generate(project / "shapes", images=30, size=32)
    (project / "offload.toml").write_text(CONFIGURATION)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    git(root, "checkout", "-qb", "request")
    payload = tmp_path / "event.json"
    payload.write_text(json.dumps({"pull_request": {"base": {"sha": git(root, "rev-parse", "main")}}}))
    given = {
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(payload),
        "GITHUB_REPOSITORY": "us/boards",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GPU_OFFLOAD_INPUT_COMMAND": "plan",
        "GPU_OFFLOAD_INPUT_CALIBRATE": "false",
        "GPU_OFFLOAD_INPUT_DIRECTORY": str(project),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return project


def first_label(project):
    return next(path for path in sorted((project / "shapes").glob("*.txt")) if path.name != "classes.txt")


def summary_of(tmp_path):
    return html.unescape((tmp_path / "summary.md").read_text())


def test_broken_labels_get_a_summary_and_annotations_at_their_lines(repository, tmp_path, capsys):
    label = first_label(repository)
    label.write_text("0 0.5 0.5 0.1 0.1\n9 0.5 0.5 0.1 0.1\n")
    assert main() == 1
    place = f"apps/a/shapes/{label.name}"
    assert f"::error title=gpu-offload,file={place},line=2::" in capsys.readouterr().out
    text = summary_of(tmp_path)
    assert text.startswith("### The dataset has 1 fault\n")
    assert f"{place}:2" in text


def test_a_store_that_fails_while_a_failure_is_reported_does_not_hide_it(
    repository, tmp_path, capsys, monkeypatch
):
    def unreachable(*_):
        raise StoreUnreachableError("the store does not answer")

    given = {"GITHUB_EVENT_NAME": "push", "GPU_OFFLOAD_INPUT_COMMAND": "train", "GPU_OFFLOAD_INPUT_ON": "cpu"}
    for name, value in (given | {"GPU_OFFLOAD_INPUT_DEADLINE": "1s"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(train_step, "_latest", unreachable)
    assert main() == 1
    assert "does not answer" not in capsys.readouterr().out
    assert "could not do it" in summary_of(tmp_path)


def test_a_broken_configuration_gets_a_summary_and_annotations_at_its_lines(repository, tmp_path, capsys):
    (repository / "offload.toml").write_text(CONFIGURATION + "[training]\nepochs = 0\n")
    assert main() == 2
    assert "::error title=gpu-offload,file=apps/a/offload.toml,line=5::" in capsys.readouterr().out
    assert summary_of(tmp_path).startswith("### The configuration has 1 fault\n")


def test_the_plan_says_what_the_request_changes_in_the_dataset(repository, tmp_path):
    shapes = repository / "shapes"
    image = next(iter(sorted(shapes.glob("*.png")) + sorted(shapes.glob("*.jpg"))))
    body = image.read_bytes()
    for number in range(3):
        (shapes / f"new{number}{image.suffix}").write_bytes(body + bytes([number]))
        (shapes / f"new{number}.txt").write_text("2 0.5 0.5 0.2 0.2\n")
    label = first_label(repository)
    label.write_text(label.read_text() + "1 0.5 0.5 0.2 0.2\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "more")
    assert main() == 0
    (line,) = [line for line in summary_of(tmp_path).splitlines() if line.startswith("**Data.**")]
    assert re.search(
        r"\+3 images: (\d (train|val)(, )?)+; class square \+1, triangle \+3; 1 label changed", line
    )


def test_a_request_without_a_change_of_data_says_nothing_of_it(repository, tmp_path):
    assert main() == 0
    assert "**Data.**" not in summary_of(tmp_path)


@pytest.mark.parametrize("given", ["", "/opt/python"])
def test_the_installation_of_the_job_is_in_the_plan_where_it_installs(
    repository, tmp_path, monkeypatch, given
):
    monkeypatch.setenv("GPU_OFFLOAD_INPUT_PYTHON", given)
    assert main() == 0
    assert ("the job installs its software first" in summary_of(tmp_path)) is not given


def test_removed_and_replaced_images_of_class_folders_are_counted(tmp_path):
    generate(tmp_path / "shapes", images=30, size=32, task=Task.CLASSIFY)
    (tmp_path / "offload.toml").write_text(
        "[dataset]\npath = 'shapes'\n[training]\nmodel = 'yolov8n-cls.yaml'\n"
    )
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "base")
    settings = load_settings(tmp_path, environment={})
    samples = list(api.snapshot(settings).samples)
    gone, other = samples[0], samples[-1]
    (tmp_path / "shapes" / gone.image).unlink()
    with (tmp_path / "shapes" / other.image).open("ab") as file:
        file.write(b"x")
    change = data_change(api.snapshot(settings), "HEAD")
    assert (change.removed, change.replaced, sum(change.added.values())) == (1, 1, 0)
    assert change.objects[api.snapshot(settings).classes[gone.class_index]] == -1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (DataChange(), ""),
        (DataChange(added={"train": 34, "val": 6}, objects={"triangle": 12, "circle": 0}, labels=2),
         "+40 images: 34 train, 6 val; class triangle +12; 2 labels changed"),
        (DataChange(removed=2, replaced=1, objects={"a": -3}), "-2 images; 1 image replaced; class a -3"),
    ],
)  # fmt: skip
def test_a_change_reads_in_a_line(change, text):
    assert str(change) == text


def test_the_base_of_a_merge_is_its_first_parent_and_of_nothing_there_is_none(repository):
    git(repository, "commit", "-q", "--allow-empty", "-m", "ours")
    git(repository, "checkout", "-q", "main")
    main_commit = git(repository, "rev-parse", "HEAD")
    git(repository, "merge", "-q", "--no-ff", "-m", "merge", "request")
    assert base_of(WorkflowEvent("pull_request"), repository) == main_commit
    git(repository, "checkout", "-q", "request")
    assert base_of(WorkflowEvent("pull_request"), repository) is None
    hostile = WorkflowEvent("pull_request", payload={"pull_request": {"base": {"sha": "--output=x"}}})
    assert base_of(hostile, repository) is None


def test_a_plan_that_sees_nothing_of_the_store_says_that_it_may_be_trained_already(repository, tmp_path):
    with GitHub() as github:  # answers 404 to everybody
        store = f'[store]\nurl = "s3://bucket"\npublic-url = "{github.address}"\n'
        (repository / "offload.toml").write_text(CONFIGURATION + store)
        assert main() == 0
    assert "cannot tell whether the same was trained before" in summary_of(tmp_path)
    assert "the job installs its software first" in summary_of(tmp_path)


def run_check(project, *words):
    return CliRunner().invoke(check, ["-C", str(project), *words])


def test_check_as_json_lists_faults_as_well_as_the_error(repository):
    label = first_label(repository)
    label.write_text("9 0.5 0.5 0.1 0.1\n")
    done = run_check(repository, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [(fault["path"], fault["line"]) for fault in found["faults"]] == [
        (f"apps/a/shapes/{label.name}", 1)
    ]
    assert set(found["error"]) == {"type", "message"}, "each fault says what to do"


def test_check_shows_warnings_beside_faults_with_paths_from_the_root_of_the_repository(repository):
    label = first_label(repository)
    label.write_text("9 0.5 0.5 0.1 0.1\n")
    empty = sorted(label.parent.glob("*.txt"))[1]
    empty.unlink()
    done = run_check(repository)
    assert done.exit_code == 1
    top = repository.parents[1]
    assert f"{label.relative_to(top).as_posix()}:1: " in done.output
    assert "the dataset has 1 warning:" in done.output, "one warning is not some warnings"
    git(repository, "checkout", "-q", "--", ".")
    assert json.loads(run_check(repository, "--json").stdout)["faults"] == []


def test_check_for_github_prints_annotations_relative_to_the_repository(repository):
    label = first_label(repository)
    label.write_text("9 0.5 0.5 0.1 0.1\n")
    done = run_check(repository, "--format", "github")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"::error title=gpu-offload,file=apps/a/shapes/{label.name},line=1::")
    shutil.rmtree(repository.parents[1] / ".git")
    assert f"file=shapes/{label.name}" in run_check(repository, "--format", "github").stdout


@pytest.mark.parametrize(
    ("runner", "may_rent", "where"),
    [("github-hosted", "false", "none"), ("github-hosted", "true", "ec2"), ("self-hosted", "false", "ec2")],
)
def test_a_plan_offers_a_gpu_only_where_a_job_may_rent_one(
    repository, tmp_path, monkeypatch, runner, may_rent, where
):
    """Without the launcher's role the next job would fail; a runner of one's own may have a role by itself."""
    (repository / "offload.toml").write_text(
        CONFIGURATION + '[store]\nurl = "file:store"\n[ec2]\ninstance-profile = "p"\n'
        '[limits]\nmax-cost-usd = 100\ndeadline = "2d"\n[training]\nepochs = 3\n'
    )
    monkeypatch.setenv("GPU_OFFLOAD_INPUT_ON", "ec2")
    monkeypatch.setenv("RUNNER_ENVIRONMENT", runner)
    monkeypatch.setenv("GPU_OFFLOAD_INPUT_MAY_RENT", may_rent)
    # The folder stands for a bucket.
    monkeypatch.setenv("GPU_OFFLOAD_SIMULATOR", "http://127.0.0.1:1/")
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    main()
    found = summary_of(tmp_path)
    assert re.search(r"^where<<.*\n(\w+)$", outputs.read_text(), re.MULTILINE)[1] == where
    assert ("OFFLOAD_LAUNCHER_ROLE" in found) == (where == "none")


def test_a_fault_of_a_link_is_annotated_at_the_link_and_below_a_linked_folder_at_the_file(tmp_path):
    """GitHub places an annotation by the path that git knows; the target of a link may be anywhere."""
    real, outside = tmp_path / "real", tmp_path.parent / f"{tmp_path.name}-outside"
    real.mkdir()
    outside.mkdir()
    (real / "a.txt").touch()
    (tmp_path / "b.txt").symlink_to("real/a.txt")
    (tmp_path / "c.txt").symlink_to(outside / "c.txt")
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "away").symlink_to(outside)
    wanted = {
        "b.txt": "b.txt",
        "c.txt": "c.txt",
        "linked/a.txt": "real/a.txt",
        "away/d.txt": "away/d.txt",
        "real/a.txt": "real/a.txt",
    }
    assert {name: relative_to(tmp_path / name, tmp_path) for name in wanted} == wanted
