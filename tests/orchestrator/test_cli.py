"""The command line: help that is whole, errors that scripts can read, output that fits."""

import io
import json
import re
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner
from commands import OFFLOAD
from registry_case import manifest_for
from report_case import T0, report_in
from run_case import run_of

from gpu_offload.errors import EXIT_USAGE, OffloadError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator import cli
from gpu_offload.orchestrator.cli import TopLevelCommands
from gpu_offload.orchestrator.cli.model_commands import next_commands
from gpu_offload.orchestrator.cli.options import command_name
from gpu_offload.orchestrator.cli.run_commands import _form_for, logs, stop
from gpu_offload.orchestrator.demo import DemoError, configuration_text, run_demo, tour
from gpu_offload.orchestrator.lifecycle.status import RunStatus, standings_text
from gpu_offload.orchestrator.lifecycle.train_report import TrainReport, trained_text
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.output.table import for_terminal, text_table
from gpu_offload.orchestrator.registry import publish
from gpu_offload.orchestrator.registry.listing import Listing
from gpu_offload.orchestrator.registry.manifest import IndexEntry
from gpu_offload.orchestrator.report.text import report_text
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.journal_documents import JournalError
from gpu_offload.orchestrator.settings.load import load_settings


def main(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    done = capsys.readouterr()
    return ended.value.code, done.out, done.err


def test_help_lists_every_command_in_a_group_and_cuts_no_sentence(capsys):
    code, out, _ = main(capsys, "--help")
    assert code == 0
    assert "..." not in out.partition("\n")[2]
    assert {name for names in TopLevelCommands.sections.values() for name in names} <= set(
        cli.offload.commands
    )
    assert all(re.search(rf"(?m)^  {name} ", out) for name in cli.offload.commands)
    places = [out.index(f"{title}:") for title in TopLevelCommands.sections]
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("group", ["models", "estimate"])
def test_the_help_of_a_group_within_cuts_no_sentence_either(capsys, group):
    code, out, _ = main(capsys, group, "--help")
    assert code == 0
    assert "..." not in out.partition("\n")[2]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("words", [["status"], ["init"], ["plan", "--json"]])
def test_a_command_in_a_removed_folder_is_refused_with_a_sentence(capsys, tmp_path, monkeypatch, words):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, out, err = main(capsys, *words)
    assert code == 2
    assert "is removed" in err
    assert "--json" not in words or json.loads(out)["error"]["type"] == "UsageError"


@pytest.mark.process
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_standard_streams_are_closed_says_by_its_code_how_it_ended(tmp_path, closed):
    command = f"{shlex.join(OFFLOAD)} plan {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False)
    assert done.returncode == EXIT_USAGE, "there is no configuration"


@pytest.mark.parametrize("words", [[], ["estimate"]])
def test_no_command_shows_the_help_and_calls_it_no_error(capsys, words):
    code, out, err = main(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: offload")
    assert err == main(capsys, *words, "--help")[1]


@pytest.mark.parametrize(
    "words", [["-C", "there", "plan"], ["--set", "training.epochs=2", "train"], ["--json", "plan"]]
)
def test_an_option_before_the_command_is_refused_with_its_place(capsys, words):
    code, _, err = main(capsys, *words)
    assert code == 2
    assert f"offload COMMAND {words[0]}" in err
    assert "comes after the command" not in main(capsys, "--nope", "plan")[2]


@pytest.mark.parametrize("words", [["models", "--nope"], ["pull"], ["nothing"]], ids="-".join)
def test_a_usage_error_is_json_too_where_json_was_asked_for(capsys, words):
    code, out, err = main(capsys, *words, "--json")
    assert code == 2
    error = json.loads(out)["error"]
    assert set(error) == {"type", "message", "remedy"}
    assert "--help" in error["remedy"]
    assert err.startswith("error: ")
    assert not main(capsys, *words)[1]


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--json", "--format", "github"],
        ["report", "--json", "--format", "html"],
        ["stop", "a-1", "--run", "b-1"],
    ],
    ids=" ".join,
)
def test_options_of_which_one_would_be_ignored_are_refused(tmp_path, capsys, words):
    code, out, err = main(capsys, *words, "-C", str(tmp_path))
    assert (code, "one" in err, f"offload {words[0]} --help" in err) == (2, True, True)
    assert "--json" not in words or set(json.loads(out)) == {"error"}


@pytest.mark.parametrize("words", [["report", "-o", "{}/r.html"], ["pull", "{}/m.pt"], ["site", "{}/s"], ["demo", "--into", "{}/d"]], ids=lambda words: words[0])  # fmt: skip
def test_a_path_through_a_file_is_a_usage_error(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "raw"\n[store]\nurl = "file:store"\n')
    store = open_store(f"file:{tmp_path / 'store'}")
    (tmp_path / "model.pt").write_bytes(b"a model")
    publish.publish(store, manifest_for(tmp_path / "model.pt"), tmp_path / "model.pt", note=lambda _: None)
    Journal(store).begin(run_of())
    code, _, err = main(capsys, *(word.format("model.pt") for word in words))
    assert (code, "name another path" in err) == (2, True)


def test_a_status_says_a_shared_reason_once_and_that_nothing_trains_now():
    def one(run, status, **changes):
        given = {"where": "this CPU", "attempt": 1, "epochs_completed": 2, "epochs": 9, "seconds": 5.0}
        given |= {"driven": None, "silent_seconds": None, "cost_usd": 0.0, "instance": None, "version": "v"}
        return RunStatus(run, status, **given | {"message": "out of disk"} | changes)

    text = standings_text([one("a-1", "failed"), one("b-1", "failed"), one("c-1", "open", driven=False)])
    assert text.count("out of disk") == 2
    assert "a-1, b-1: out of disk" in text
    assert "c-1: out of disk; nothing works on it now" in text


def test_ctrl_c_is_said_and_means_run_it_again(monkeypatch, capsys):
    from gpu_offload.orchestrator import api

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "plan", interrupted)
    monkeypatch.setattr("gpu_offload.orchestrator.settings.load.load_settings", lambda *_, **__: None)
    code, _, err = main(capsys, "plan")
    assert code == 75
    assert err.strip().startswith("interrupted: Ctrl-C")


def test_a_table_loses_no_character_of_a_cell():
    rows = [("a heading", "n", "words"), ("Q" * 50, "1.234567", "several words of a text that is long " * 3)]
    for width in (40, 60, 80):
        text = text_table(rows, width=width)
        assert max(map(len, text.splitlines())) <= width
        letters = "".join(text.split())
        assert (letters.count("Q"), letters.count("v")) == (50, 3)


@pytest.mark.parametrize("width", [24, 40, 60])
def test_what_is_typed_into_other_commands_is_never_broken(width):
    rows = [
        ("run", "why", "version", "where", "epochs"),
        ("213046fda60c-1", "long words " * 9, "abcdef12", "there", "3 of 9"),
    ]
    text = text_table(rows, width=width)
    assert "213046fda60c-1" in text
    assert "abcdef12" in text
    assert max(map(len, text.splitlines())) <= width
    assert set(re.findall(r"[a-z]+", text)) <= {
        "long",
        "words",
        "there",
        "where",
        "why",
        "run",
        "version",
        "epochs",
        "of",
        "fda",
        "c",
        "abcdef",
    }, "no word is broken"


@pytest.mark.parametrize("command", [["models"], ["status"], ["pull", "x.pt"], ["models", "show"]])
@pytest.mark.parametrize(
    ("store", "reason"), [("file:/dev/null/x", "not a folder"), ("file:/nowhere/x", "no folder")]
)
def test_a_store_that_is_not_there_is_an_error_and_not_an_empty_one(tmp_path, capsys, command, store, reason):
    """A path that is a typing error, or on a disk that is not mounted; no store in the project is a first run."""
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "raw"\n')
    code, _, err = main(capsys, *command, "-C", str(tmp_path), "--set", f"store.url={store}")
    assert (code, reason in err) == (1, True)


def test_without_a_configuration_no_file_is_named_that_does_not_exist(tmp_path, capsys):
    code, out, err = main(capsys, "models", "--json", "-C", str(tmp_path))
    assert code == 2
    assert "there is no offload.toml" in err
    assert "offload init" in json.loads(out)["error"]["remedy"]


def test_an_error_has_a_remedy_or_says_it_in_its_message():
    class WithRemedyError(OffloadError):
        remedy = "do this"

    assert OffloadError("what and what to do").json() == {
        "type": "OffloadError",
        "message": "what and what to do",
    }
    assert WithRemedyError("what").json()["remedy"] == "do this"


def test_models_show_whatever_metrics_a_training_has():
    entries = tuple(
        IndexEntry(version=name, created_at=T0, sha256="0" * 64, size=10, metrics=metrics)
        for name, metrics in (("a" * 16, {"r2": 0.75}), ("b" * 16, {"map50": 0.5, "map50_95": 0.25}))
    )
    text = Listing(entries, {"stable": "b" * 16}).text()
    assert "0.750" in text
    assert "mAP50" in text
    assert "stable" in next(line for line in text.splitlines() if "b" * 8 in line)


def test_a_status_is_a_table_that_fits():
    one = RunStatus(
        "abcdef123456-1",
        "open",
        "g4dn.xlarge on-demand us-east-1a",
        2,
        3,
        20,
        200.0,
        True,
        4.0,
        0.02,
        "i-1",
        "v",
        "waits",
    )
    text = standings_text([one])
    assert max(map(len, text.splitlines())) <= 80
    assert "3 of 20" in text
    assert "attempt 2 on i-1: waits" in text


@pytest.mark.simulator
def test_a_report_in_a_terminal_is_text_that_fits_and_elsewhere_markdown(tmp_path, monkeypatch):
    text = report_text(report_in(tmp_path))
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Trained in 10 min on g4dn.xlarge spot, $0.04. mAP50 0.500.")
    assert "|" not in text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert _form_for(None) == "text"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert _form_for(None) == "markdown"
    assert _form_for(tmp_path / "a.html") == "html"


def test_a_report_on_standard_output_is_whole_whatever_its_form(tmp_path, capsys):
    """Text for a terminal is cut after 2,000 characters of a line."""
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "raw"\n[store]\nurl = "file:store"\n')
    Journal(open_store(f"file:{tmp_path / 'store'}")).begin(run_of(why="w" * 5_000))
    code, out, _ = main(capsys, "report", "--json", "-C", str(tmp_path))
    assert (code, json.loads(out)["why"]) == (0, "w" * 5_000)
    page = main(capsys, "report", "--format", "html", "-C", str(tmp_path))[1]
    assert page.endswith("</html>\n")
    assert "w" * 5_000 in page
    assert "w" * 5_000 in main(capsys, "report", "--format", "markdown", "-C", str(tmp_path))[1]


def trained(**changes):
    values = {
        "status": "trained", "version": "v", "run": "r-1", "training_key": "k" * 64, "sha256": "0" * 64,
        "metrics": {"r2": 0.5}, "seconds": 3.0, "estimate": None, "cost_usd": 0.0,
    }  # fmt: skip
    return TrainReport(**(values | changes))


def test_after_a_training_the_next_commands_are_named():
    assert "r2 0.500" in trained_text(trained())
    assert "offload pull model.pt" in next_commands(trained())
    assert "offload logs -f r-1" in next_commands(trained(status="detached"))
    assert "pull model.joblib " in next_commands(trained(file="model.joblib"))
    held = next_commands(trained(candidate="below the floor", semver="1.0.0"))
    assert "pull model.pt --version candidate" in held, "there is no stable version to pull"
    assert "promote 1.0.0" in held


@pytest.fixture
def project(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "offload.toml").write_text("[dataset]\npath = 'raw'\n")
    return tmp_path


def test_logs_without_a_run_are_those_of_the_latest(project):
    done = CliRunner().invoke(logs, ["-C", str(project)])
    assert "there is no run" in str(done.exception)


def test_a_run_that_does_not_exist_is_said_once_where_there_is_no_account(project, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(stop, ["-C", str(project), "0123456789ab-1"])
    assert isinstance(done.exception, JournalError)
    assert "0123456789ab-1" in str(done.exception)


def test_stopping_nothing_says_so(project):
    done = CliRunner().invoke(stop, ["-C", str(project)])
    assert (done.exit_code, done.output) == (0, "no run is open\n")


def test_tend_without_aws_is_quiet_where_nothing_can_have_been_rented(project, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = main(capsys, "tend", "-C", str(project))
    assert (code, out) == (0, "nothing to remove\n")
    assert "error" not in err


def test_the_demos_project_is_one_that_every_command_reads(tmp_path):
    """`cd demo && offload plan` finds what the demo trained with."""
    (tmp_path / "offload.toml").write_text(configuration_text("a test", epochs=15, image_size=96))
    settings = load_settings(tmp_path, environment={})
    assert (settings.training.epochs, settings.training.hyperparameters["mosaic"]) == (15, 0.0)
    assert settings.store_url == f"file:{tmp_path / 'store'}"


def test_a_demo_names_commands_as_the_shell_here_finds_them(tmp_path, monkeypatch):
    """`make demo` runs .venv/bin/offload, which is not on PATH; and `open` is there on macOS only."""
    script = tmp_path / "bin" / "offload"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_name(tmp_path / "demo") == "../bin/offload"
    assert "../bin/offload report" in tour(tmp_path, command_name(tmp_path / "demo"))
    monkeypatch.chdir(tmp_path)
    assert command_name() == "bin/offload"
    monkeypatch.setenv("PATH", str(script.parent))
    assert command_name() == "offload"
    assert " open " not in tour(tmp_path, "offload")


def test_a_result_fits_the_terminal(monkeypatch):
    """Each line is broken by itself, between words."""
    monkeypatch.setenv("COLUMNS", "40")
    assert for_terminal("trained on this CPU in 12 s, free; the plan said 13 s\nsha256 1").splitlines() == [
        "trained on this CPU in 12 s, free; the",
        "  plan said 13 s",
        "sha256 1",
    ]


def test_a_demo_that_is_run_again_keeps_what_is_published(tmp_path, monkeypatch):
    """The project of an earlier demo is carried on with, its configuration and its store included."""
    (tmp_path / "offload.toml").write_text(configuration_text("a test", epochs=15, image_size=96))
    published = tmp_path / "store" / "models" / "a" / "model.pt"
    published.parent.mkdir(parents=True)
    published.write_bytes(b"weights")

    def train(settings, **_):
        raise DemoError(settings.store.url)

    monkeypatch.setattr("gpu_offload.orchestrator.api.train", train)
    with pytest.raises(DemoError, match="file:store"):
        run_demo(tmp_path, Console(io.StringIO()), print)
    assert published.read_bytes() == b"weights"


@pytest.mark.parametrize("demo", [["demo"], ["demo", "--gpu"]], ids="-".join)
@pytest.mark.parametrize("name", ["offload.toml", "store"])
def test_a_demo_refuses_a_folder_with_something_else_in_it(tmp_path, capsys, demo, name):
    """It would train the user's own project, perhaps for money, or delete its files and state."""
    (tmp_path / name).write_text('[dataset]\npath = "raw"\n')
    code, _, err = main(capsys, *demo, "--into", str(tmp_path))
    assert (code, "--into" in err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("command", [["drill"], ["demo", "--gpu"], ["simulate", "--", "true"]])
def test_without_the_simulator_its_commands_say_what_to_install(monkeypatch, tmp_path, capsys, command):
    """Also drill, whose faults are processes of their own: they would fail one by one for want of moto."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "moto" else True)
    code, _, err = main(capsys, *command)
    assert code == 1
    assert "pip install 'gpu-offload[simulator]'" in err
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_next_training_keeps_no_command_from_the_runs_that_are_there(tmp_path, monkeypatch):
    """As `offload tend` on a schedule, which reads what was pushed last."""
    monkeypatch.chdir(tmp_path)
    text = (
        '[dataset]\npath = "raw"\n[training]\nhyperparameters = { lr0 = "x" }\n[store]\nurl = "file:store"\n'
    )
    (tmp_path / "offload.toml").write_text(text)
    for command in ("stop", "status"):
        done = CliRunner().invoke(cli.offload, [command])
        assert done.exit_code == 0, done.output
        assert "warning: offload.toml:4: training.hyperparameters.lr0" in done.stderr
