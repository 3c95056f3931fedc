"""What `offload init` writes into a repository."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.orchestrator.github.pin import Pin, PinError
from gpu_offload.orchestrator.github.workflows import (
    FOLDER,
    NAMES,
    TEMPLATES,
    WorkflowProject,
    badge,
    slug,
    with_badge,
    workflow_texts,
    write_workflows,
)

PIN = Pin("acme/gpu-offload", "0123456789" * 4, "v0.1.0")
NEWER = Pin("acme/gpu-offload", "abcdef0123" * 4, "v0.2.0")


TARGET, MOVED = WorkflowProject(PIN), WorkflowProject(NEWER)


def test_a_project_gets_its_workflows(tmp_path):
    done = write_workflows(tmp_path, WorkflowProject(PIN, "trunk"))
    assert {w.state for w in done} == {"written"}
    train = (tmp_path / ".github/workflows/offload-train.yml").read_text()
    assert f"acme/gpu-offload/.github/workflows/train.yml@{PIN.commit} # v0.1.0" in train
    assert yaml.safe_load(train)[True]["push"]["branches"] == ["trunk"]


def test_running_it_again_changes_nothing(tmp_path):
    write_workflows(tmp_path, TARGET)
    assert {w.state for w in write_workflows(tmp_path, TARGET)} == {"unchanged"}


def test_running_a_newer_one_writes_the_whole_file_anew_if_it_was_not_edited(tmp_path):
    write_workflows(tmp_path, TARGET)
    assert {w.state for w in write_workflows(tmp_path, WorkflowProject(NEWER, keep=True))} == {"updated"}
    train = (tmp_path / ".github/workflows/offload-train.yml").read_text()
    assert train == workflow_texts(WorkflowProject(NEWER, keep=True))[FOLDER / "offload-train.yml"]


def test_of_an_edited_workflow_only_the_pins_move(tmp_path):
    """The user's own settings in it, such as another runner, are never undone."""
    write_workflows(tmp_path, TARGET)
    file = tmp_path / ".github/workflows/offload-train.yml"
    mine = file.read_text().replace("with:\n", "with:\n      runner: my-own\n")
    file.write_text(mine)
    assert {w.path.name: w.state for w in write_workflows(tmp_path, TARGET)}["offload-train.yml"] == "edited"
    assert file.read_text() == mine
    write_workflows(tmp_path, WorkflowProject(NEWER, "other", keep=True))
    assert file.read_text() == mine.replace(PIN.commit, NEWER.commit).replace("# v0.1.0", "# v0.2.0")


def test_a_workflow_that_bears_no_mark_of_ours_stays(tmp_path):
    write_workflows(tmp_path, TARGET)
    file = tmp_path / ".github/workflows/offload.yml"
    file.write_text("# Mine now\n" + file.read_text())
    done = {w.path.name: w.state for w in write_workflows(tmp_path, MOVED)}
    assert done["offload.yml"] == "foreign"
    assert PIN.commit in file.read_text()


def test_projects_in_one_repository_get_workflows_of_their_own():
    one, two = (
        workflow_texts(WorkflowProject(PIN, directory=where, keep=True)) for where in ("apps/a", "apps/b")
    )
    assert not set(one) & set(two)
    train = yaml.safe_load(one[FOLDER / "offload-train-apps-a.yml"])
    assert train["name"] == "train apps/a"
    assert {name: job["with"]["directory"] for name, job in calls(train).items()} == {
        "train": "apps/a",
        "keep": "apps/a",
    }
    assert "offload-train-apps-a.yml" in badge("acme/boards", WorkflowProject(PIN, directory="apps/a"))


def test_a_folder_of_any_name_gets_workflows_with_readable_names():
    texts = workflow_texts(WorkflowProject(PIN, directory="apps/Türen und Tore"))
    [path] = [path for path in texts if path.name.startswith("offload-train-")]
    assert path.name.startswith("offload-train-apps-Tueren-und-Tore-")
    assert 'name: "train apps/Türen und Tore"\n' in texts[path]
    assert yaml.safe_load(texts[path])["jobs"]["train"]["with"]["directory"] == "apps/Türen und Tore"


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_folders_never_share_a_word(one, two):
    assert re.fullmatch(r"[A-Za-z0-9._-]+", slug(one))
    assert (slug(one) == slug(two)) == (one == two)


def test_what_the_checkout_needs_is_fetched_where_the_dataset_is_read():
    texts = workflow_texts(WorkflowProject(PIN, keep=True, lfs=True, submodules=True))
    for path, text in texts.items():
        for name, job in calls(yaml.safe_load(text)).items():
            wanted = None if name in {"keep", "tend"} else True
            assert [job["with"].get(key) for key in ("lfs", "submodules")] == [wanted] * 2, (path, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_a_workflow_of_its_own(name):
    document = yaml.safe_load((TEMPLATES / f"{name}.yml").read_text())
    assert all(job["uses"].startswith("OWNER/gpu-offload/") for job in calls(document).values())
    assert "OWNER" not in "".join(workflow_texts(WorkflowProject(PIN, keep=True)).values())


def test_no_input_becomes_part_of_a_script_and_nothing_is_kept_in_a_cache():
    """A shell's characters in an input stay text; a pull request cannot fill a cache that the default branch reads."""
    ours = Path(__file__).parents[2]
    files = [ours / "action.yml", *(ours / ".github/workflows").glob("*.yml"), *TEMPLATES.glob("*.yml")]
    for file in files:
        document = yaml.safe_load(file.read_text())
        jobs = [document["runs"]] if "runs" in document else document["jobs"].values()
        for step in (step for job in jobs for step in job.get("steps", ())):
            assert "${{" not in step.get("run", ""), file
            assert "actions/cache" not in step.get("uses", ""), file
            assert not {"cache", "enable-cache"} & {k for k, v in step.get("with", {}).items() if v}, file


@pytest.mark.parametrize(
    "text",
    [
        "acme/x@main",
        "acme@" + "0" * 40,
        "acme/x",
        "acme/x@" + "0" * 40 + "#v1\nrun: evil",
        "a b/c@" + "0" * 40,
    ],
)
def test_what_is_no_commit_is_no_pin(text):
    with pytest.raises(PinError):
        Pin.of(text)


def test_an_older_badge_is_replaced():
    old = with_badge("# A\n", badge("acme/old", TARGET))
    assert with_badge(old, badge("acme/new", TARGET)).count("[![train]") == 1
    assert with_badge("no title\n", badge("a/b", TARGET)).startswith("[![train]")


def jobs_of(document):
    return document["jobs"].values()


def calls(document):
    """Return the jobs that call a workflow of ours: all but the one that attests."""
    return {name: job for name, job in document["jobs"].items() if name != "attest"}


@pytest.mark.parametrize(
    ("keep", "name", "before"),
    [
        (False, "offload-train", "train"),
        (True, "offload-train", "keep"),
        (False, "offload", "offload"),
        (False, "offload-tend", "tend"),
    ],
)
def test_a_model_is_attested_in_a_job_that_runs_nothing_else_and_only_where_it_is_asked_for(
    keep, name, before
):
    """Whichever workflow publishes it, and also where its job fails afterwards."""
    texts = workflow_texts(WorkflowProject(PIN, keep=keep))
    attest = yaml.safe_load(texts[FOLDER / f"{name}.yml"])["jobs"]["attest"]
    assert attest["needs"] == before
    assert attest["if"].startswith("vars.OFFLOAD_ATTEST == 'true' && !cancelled() && ")
    assert attest["permissions"] == {"attestations": "write", "id-token": "write"}
    (step,) = attest["steps"]
    assert re.fullmatch(r"actions/attest-build-provenance@[0-9a-f]{40}", step["uses"])
    assert step["with"]["subject-checksums"] == f"${{{{ needs.{before}.outputs.checksums }}}}"
    called = yaml.safe_load(texts[FOLDER / f"{name}.yml"])["jobs"][before]["uses"].partition("@")[0]
    ours = yaml.safe_load((Path(__file__).parents[2] / called.split("/", 2)[2]).read_text())
    assert "checksums" in ours[True]["workflow_call"]["outputs"]


def test_a_pull_request_reaches_a_workflow_that_may_only_read():
    for path, text in workflow_texts(TARGET).items():
        document = yaml.safe_load(text)
        events = set(document[True])
        assert document["permissions"] == {}, path
        if events & {"pull_request", "pull_request_target", "issue_comment", "workflow_run"}:
            assert events == {"pull_request"}, path
            assert [job["permissions"] for job in jobs_of(document)] == [{"contents": "read"}], path
            assert all("secrets" not in job and "role" not in str(job) for job in jobs_of(document)), path


def test_a_folder_store_gets_a_job_that_keeps_whatever_became_of_the_training():
    texts = {
        path.name: yaml.safe_load(text)
        for path, text in workflow_texts(WorkflowProject(PIN, keep=True)).items()
    }
    keep = texts["offload-train.yml"]["jobs"]["keep"]
    assert keep["if"].startswith("always()")
    assert keep["needs"] == "train"
    assert keep["with"]["training-key"] == "${{ needs.train.outputs.training-key }}"
    jobs = calls(texts["offload-train.yml"]).values()
    assert not any("id-token" in job["permissions"] for job in jobs), "nothing that a training could take"
    assert keep["permissions"] == {"contents": "write"}
    assert "keep" not in yaml.safe_load(workflow_texts(TARGET)[FOLDER / "offload-train.yml"])["jobs"]


@pytest.mark.parametrize("name", ["offload-train.yml", "offload-rollback.yml"])
def test_a_branch_name_stays_a_value(name):
    text = workflow_texts(WorkflowProject(PIN, 'x"]\n  pull_request_target:\n#'))
    document = yaml.safe_load(next(t for p, t in text.items() if p.name == name))
    assert set(document[True]) == {"push", "workflow_dispatch"}


def test_a_branch_name_is_no_pattern():
    texts = workflow_texts(WorkflowProject(PIN, "port/c++"))
    train = yaml.safe_load(texts[FOLDER / "offload-train.yml"])
    assert train[True]["push"]["branches"] == [r"port/c\+\+"]


@pytest.mark.parametrize(
    ("keep", "called", "permissions"),
    [
        (False, "rollback", {"contents": "read", "id-token": "write"}),
        (True, "rollback-in-release", {"contents": "write"}),
    ],
)
def test_a_push_can_roll_back_with_the_permission_of_its_store_only(keep, called, permissions):
    texts = workflow_texts(WorkflowProject(PIN, keep=keep))
    job = yaml.safe_load(texts[FOLDER / "offload-rollback.yml"])["jobs"]["rollback"]
    assert job["uses"] == f"{PIN.repository}/.github/workflows/{called}.yml@{PIN.commit}"
    assert job["permissions"] == permissions
