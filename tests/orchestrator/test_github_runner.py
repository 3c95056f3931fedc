"""The runner of a workflow: its inputs, and what it must not take for a command."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.orchestrator.github.action import main
from gpu_offload.orchestrator.github.console import MOST_ANNOTATIONS, GitHubConsole
from gpu_offload.orchestrator.github.event import WorkflowEvent
from gpu_offload.orchestrator.github.inputs import COMMANDS, InputsError, WorkflowInputs
from gpu_offload.orchestrator.github.runner import SUMMARY_LIMIT, Runner, command
from gpu_offload.orchestrator.state import state_folder


def obeyed(log):
    """The commands that a runner obeys in a log, by the rules of its own parser."""
    found, token = [], None
    for line in log.splitlines():
        match = re.match(r"\s*::([^:]*?)(?: [^:]*)?::(.*)", line)
        if match is None and "##[" not in line:
            continue
        name = match[1] if match else "##"
        if token is not None:
            if name == token:
                token = None
            continue
        if name == "stop-commands":
            token = match[2]
        else:
            found.append((name, match[2] if match else line))
    return found


@given(st.text(), st.text())
def test_a_command_is_one_line_whatever_its_text(text, title):
    line = command("warning", text, title=title)
    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("::warning")


@given(st.text(alphabet=st.sampled_from("\n\r :%,#[]setoutpu=nvx<>"), max_size=60))
def test_text_from_elsewhere_is_never_obeyed(text):
    log = io.StringIO()
    console = GitHubConsole(log)
    console.note(f"ours\n{text}")
    console.text(f"{text}\n::error::from a log\n  ##[error]x\n ::add-mask::a")
    log.write(f"{text}\n::set-env name=PATH::evil\n##[command]x\n")  # a child that shares our stream
    console.close()
    assert obeyed(log.getvalue()) == []


def test_stages_are_groups_and_warnings_are_annotations():
    log = io.StringIO()
    console = GitHubConsole(log)
    console.stage("planning")
    console.note("::error::not ours")
    console.stage("training")
    console.warning("look: 100 %\nhere")
    console.close()
    assert obeyed(log.getvalue()) == [
        ("group", "planning"),
        ("endgroup", ""),
        ("group", "training"),
        ("warning", "look: 100 %25%0Ahere"),
        ("endgroup", ""),
    ]


def test_many_warnings_stay_within_what_a_step_may_annotate():
    log = io.StringIO()
    console = GitHubConsole(log)
    for number in range(50):
        console.warning(f"number {number}")
    console.error("the end")
    console.close()
    names = [name for name, _ in obeyed(log.getvalue())]
    assert names.count("warning") == MOST_ANNOTATIONS
    assert names.count("error") == 1
    assert "number 49" in log.getvalue()


def test_after_closing_the_runner_obeys_again():
    log = io.StringIO()
    console = GitHubConsole(log)
    console.note("something")
    console.close()
    log.write("::notice::of a script\n")
    assert obeyed(log.getvalue()) == [("notice", "of a script")]


def read_outputs(text):
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, _, mark = line.partition("<<")
        value = []
        for part in lines:
            if part == mark:
                break
            value.append(part)
        found[name] = "\n".join(value)
    return found


def test_an_output_cannot_smuggle_in_another(tmp_path):
    file = tmp_path / "out"
    runner = Runner({"GITHUB_OUTPUT": str(file)})
    runner.outputs({"why": "because\nEOF\nwhere<<EOF\nec2\nEOF", "where": "cpu"})
    assert read_outputs(file.read_text()) == {"why": "because\nEOF\nwhere<<EOF\nec2\nEOF", "where": "cpu"}


def test_outside_a_workflow_nothing_is_written():
    Runner({}).outputs({"where": "cpu"})
    Runner({}).summary("text")


def test_a_summary_that_github_would_drop_is_refused(tmp_path):
    runner = Runner({"GITHUB_STEP_SUMMARY": str(tmp_path / "summary")})
    with pytest.raises(ValueError, match="more than GitHub keeps"):
        runner.summary("é" * (SUMMARY_LIMIT // 2 + 1))


def test_secrets_are_masked():
    runner = Runner({"AWS_SECRET_ACCESS_KEY": "abc%\n", "HOME": "/root"})
    assert list(runner.masks()) == ["::add-mask::abc%25%0A"]


@pytest.mark.parametrize(
    "name",
    ["pull_request", "pull_request_target", "issue_comment", "workflow_run", "issues", "fork", "discussion_comment",
     "merge_group", "an_event_of_next_year", ""],
)  # fmt: skip
def test_what_is_not_on_the_list_is_not_trusted(name):
    assert not WorkflowEvent(name).is_trusted
    assert all(WorkflowEvent(known).is_trusted for known in ("push", "workflow_dispatch", "schedule"))


def test_a_private_repository_is_known():
    assert WorkflowEvent("push", payload={"repository": {"private": True}}).is_private
    assert not WorkflowEvent("push", payload={"repository": {}}).is_private
    assert not WorkflowEvent("push", payload={"repository": "x"}).is_private


def test_inputs_become_settings_and_stay_values():
    inputs = WorkflowInputs.of(
        {
            "GPU_OFFLOAD_INPUT_COMMAND": "train",
            "GPU_OFFLOAD_INPUT_SET": "training.epochs=2\n\n store.url=s3://b \n",
            "GPU_OFFLOAD_INPUT_INSTANCE_TYPE": 'g4dn.xlarge"]\nx=1',
            "GPU_OFFLOAD_INPUT_MARKET": "auto",
            "GPU_OFFLOAD_INPUT_MAX_COST_USD": "0.5",
            "GPU_OFFLOAD_INPUT_CALIBRATE": "false",
        }
    )
    assert inputs.settings == (
        "training.epochs=2",
        "store.url=s3://b",
        'ec2.instance-types=["g4dn.xlarge\\"]\\nx=1"]',
        "limits.max-cost-usd=0.5",
    )
    assert inputs.calibrate is False


def test_every_bad_input_is_named_at_once():
    with pytest.raises(InputsError, match=r"command is 'rm'.*on is 'moon'.*detach is 'perhaps'"):
        WorkflowInputs.of(
            {
                "GPU_OFFLOAD_INPUT_COMMAND": "rm",
                "GPU_OFFLOAD_INPUT_ON": "moon",
                "GPU_OFFLOAD_INPUT_DETACH": "perhaps",
            }
        )


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "plan"])
def test_a_step_that_an_outsider_can_trigger_only_plans(monkeypatch, tmp_path, capsys, command):
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "x"\n')
    given = {
        "GITHUB_EVENT_NAME": "workflow_run",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_API_URL": "http://127.0.0.1:1",
        "GPU_OFFLOAD_INPUT_COMMAND": command,
        "GPU_OFFLOAD_INPUT_DIRECTORY": str(tmp_path),
        "GPU_OFFLOAD_INPUT_TRAINING_KEY": "a" * 64,
        "GPU_OFFLOAD_INPUT_TOKEN": "secret-of-the-job",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main() == 2
    told = capsys.readouterr().out
    assert "::add-mask::secret-of-the-job" in told
    assert f"::error title=gpu-offload::'{command}' does not run on workflow_run" in told
    assert "does not run on workflow" in (tmp_path / "summary.md").read_text()
    assert not state_folder(tmp_path).exists()
