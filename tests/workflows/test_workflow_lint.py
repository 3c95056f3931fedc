"""Our workflows under linters that know what goes wrong in workflows, and under rules of our own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpu_offload.orchestrator.github.pin import Pin
from gpu_offload.orchestrator.github.workflows import TEMPLATES, WorkflowProject, write_workflows

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
REUSABLE = [path for path in WORKFLOWS if path.name not in {"ci.yml", "docs.yml", "release.yml"}]
ACTION = ROOT / "action.yml"
BAD = ROOT / "tests/workflows/fixtures/bad.yml"
UNTRUSTED = {"pull_request", "pull_request_target", "issue_comment", "workflow_run"}


def tool(name):
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def zizmor(*paths):
    command = [
        tool("zizmor"),
        "--offline",
        "--strict-collection",
        "--quiet",
        "--no-progress",
        *map(str, paths),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def actionlint(*paths):
    command = [tool("actionlint"), "-no-color", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A repository with the workflows that `offload init` writes."""
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    pin = Pin("acme/gpu-offload", "0123456789" * 4, "v0.1.0")
    write_workflows(root, WorkflowProject(pin, keep=True, lfs=True, submodules=True))
    write_workflows(root, WorkflowProject(pin, directory="apps/a", keep=True))
    return root


@pytest.mark.process
def test_zizmor_finds_nothing_in_the_action_and_the_workflows():
    done = zizmor("--config", ROOT / ".github/zizmor.yml", ACTION, *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_zizmor_finds_nothing_in_what_init_writes(written):
    done = zizmor(*sorted((written / ".github/workflows").glob("*.yml")), *sorted(TEMPLATES.glob("*.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_zizmor_would_find_it():
    done = zizmor(BAD)
    assert done.returncode != 0
    for audit in ("dangerous-triggers", "template-injection", "unpinned-uses", "artipacked"):
        assert audit in done.stdout


@pytest.mark.process
def test_actionlint_finds_nothing(written):
    templates = sorted(TEMPLATES.glob("*.yml"))
    done = actionlint(*WORKFLOWS, *templates, *sorted((written / ".github/workflows").glob("*.yml")))
    assert done.returncode == 0, done.stdout


@pytest.mark.process
def test_actionlint_would_find_it(tmp_path):
    bad = tmp_path / "bad.yml"
    bad.write_text(BAD.read_text().replace("runs-on: ubuntu-latest", "runs_on: ubuntu-latest"))
    assert actionlint(bad).returncode != 0


def load(path):
    document = yaml.safe_load(path.read_text())
    document["on"] = document.pop(True, document.get("on"))
    return document


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_has_no_permission_that_a_job_does_not_name_and_no_job_without_an_end(path):
    document = load(path)
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        assert isinstance(job["timeout-minutes"], int), name
        own = {"pages"} if path.name == "docs.yml" else set()
        assert set(job["permissions"]) <= {"contents", "id-token"} | own, name
        writes = {("keep.yml", "keep"), ("rollback-in-release.yml", "rollback"), ("release.yml", "release")}
        may = "write" if (path.name, name) in writes else "read"
        assert job["permissions"].get("contents", may) == may, name


@pytest.mark.parametrize("path", REUSABLE, ids=lambda p: p.name)
def test_a_job_that_can_get_credentials_runs_on_trusted_events_only(path):
    document = load(path)
    assert set(document["on"]) == {"workflow_call"}
    for name, job in document["jobs"].items():
        if "id-token" in job["permissions"]:
            needs = document["jobs"].get("offload", {}) if name == "clean-up" else job
            events = re.search(r"fromJSON\('(\[.*?\])'\)", needs["if"])
            assert events is not None, name
            assert not set(yaml.safe_load(events[1])) & UNTRUSTED, name
        else:
            given = [key for step in job["steps"] for key in step.get("with", {})]
            assert not [key for key in given if "role" in key], name


@pytest.mark.parametrize(("file", "command"), [("keep", "keep"), ("rollback-in-release", "rollback")])
def test_what_may_write_to_the_repository_runs_none_of_its_code_and_gets_no_other_credentials(file, command):
    job = load(ROOT / f".github/workflows/{file}.yml")["jobs"][command]
    assert job["permissions"] == {"contents": "write"}
    assert not set(yaml.safe_load(re.search(r"fromJSON\('(\[.*?\])'\)", job["if"])[1])) & UNTRUSTED
    checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert ["repository" in step["with"] for step in checkouts] == [True]
    assert [s["with"]["command"] for s in job["steps"] if s.get("uses") == "./.gpu-offload"] == [command]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_third_party_action_is_pinned_to_a_commit_with_its_version(path):
    for line in path.read_text().splitlines():
        match = re.search(r"uses: *(\S+)(.*)", line)
        if match and not match[1].startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", match[1]), line
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", match[2]), line


@pytest.mark.parametrize("path", [ACTION, *REUSABLE], ids=lambda p: p.name)
def test_a_script_holds_no_expression_and_becomes_what_it_starts(path):
    document = yaml.safe_load(path.read_text())
    jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
    for step in (step for job in jobs for step in job["steps"]):
        if "run" in step:
            assert "${{" not in step["run"]
            assert step["run"].startswith("exec ")


def test_the_trainings_of_one_key_wait_for_each_other():
    jobs = load(ROOT / ".github/workflows/train.yml")["jobs"]
    for name in ("train", "offload"):
        assert jobs[name]["concurrency"] == {
            "group": "gpu-offload-${{ needs.plan.outputs.training-key }}",
            "cancel-in-progress": False,
        }


def test_two_projects_tend_in_groups_of_their_own():
    """GitHub keeps one waiting job of a group: of three projects at the same minute, one would never be tended."""
    for job in load(ROOT / ".github/workflows/tend.yml")["jobs"].values():
        assert job["concurrency"]["group"].endswith("-${{ inputs.directory }}-${{ inputs.config }}")


def test_what_spends_stands_behind_the_environment_and_what_cleans_up_does_not():
    jobs = load(ROOT / ".github/workflows/train.yml")["jobs"]
    assert [name for name, job in jobs.items() if "environment" in job] == ["offload"]
    assert jobs["clean-up"]["if"].startswith("always()")


def test_a_training_moves_only_where_the_plan_let_it_and_its_job_has_no_role_that_rents():
    jobs = load(ROOT / ".github/workflows/train.yml")["jobs"]
    steps = [step.get("with", {}) for step in jobs["train"]["steps"]]
    assert {step["role"] for step in steps if "role" in step} == {"${{ inputs.publisher-role }}"}
    (begins,) = (step for step in steps if step.get("command") == "train")
    assert begins["launched-later"] == "${{ needs.plan.outputs.can-move == 'true' }}"
    rents = jobs["offload"]
    assert rents["needs"] == ["plan", "train"]
    words = ("plan.outputs.can-move == 'true'", "train.result == 'success'", "train.outputs.moves == 'true'")
    assert " && ".join(f"needs.{word}" for word in words) in rents["if"]
    assert rents["if"].startswith("!cancelled() && needs.plan.result == 'success'")


def test_inputs_and_outputs_are_kebab_case_and_every_input_reaches_the_program():
    action = yaml.safe_load(ACTION.read_text())
    run = action["runs"]["steps"][1]
    for name in [*action["inputs"], *action["outputs"]]:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", str(name)), name
    given = {value for step in action["runs"]["steps"] for value in step["env"].values()}
    assert {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]} <= given
    assert {"where", "version", "run", "cost-usd", "seconds", "model-url", "already-trained"} <= set(
        action["outputs"]
    )
    assert run["id"] == "run"


@pytest.mark.process
def test_the_script_that_installs_is_sound():
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([checker, str(ROOT / "infra/action/install.sh")], check=True)
