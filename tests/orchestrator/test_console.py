"""What a person sees: safe for any terminal, and the time that is left."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.orchestrator.output.console import Console, plain
from gpu_offload.orchestrator.output.epoch import TimeLeft, closing_stage, epoch_line
from gpu_offload.orchestrator.output.terminal import TerminalConsole
from gpu_offload.remote_job.result import ProgressEvent


def batch(epoch, number, time, epochs=4, batches=10):
    return ProgressEvent(event="batch", time=time, epoch=epoch, epochs=epochs, batch=number, batches=batches)


@given(st.text())
def test_no_text_from_elsewhere_moves_the_cursor_or_hides(text):
    assert not set(plain(text)) & {"\x1b", "\r", "\x07", "\x08", "\u202e", "\x9b"}


def test_every_line_of_a_message_has_its_kind():
    stream = io.StringIO()
    console = Console(stream)
    console.warning("first\nsecond")
    console.detail("not shown")
    assert stream.getvalue() == "warning: first\nwarning: second\n"


def test_before_the_first_batch_the_estimate_is_the_time_left():
    assert TimeLeft(100.0).seconds() == 100.0
    assert TimeLeft(None).seconds() is None


def test_a_wrong_estimate_gives_way_to_what_the_epochs_took():
    left = TimeLeft(likely_seconds=1000.0)
    for epoch in (1, 2):
        for number in range(1, 11):
            left.update(batch(epoch, number, time=10.0 * epoch + number))
    assert 20 < left.seconds() < 200, "20 s measured, 500 s estimated"


def test_a_resumed_training_counts_from_where_it_resumed():
    left = TimeLeft(likely_seconds=None)
    left.update(batch(3, 0, time=100.0))
    left.update(batch(4, 0, time=110.0))
    assert left.seconds() == 10.0


def test_a_line_of_an_epoch_shows_losses_and_metrics_by_their_short_names():
    stream = io.StringIO()
    with Console(stream).training(None) as show:
        show(
            ProgressEvent(
                event="epoch", time=0, epoch=1, epochs=3, seconds=2.5,
                losses={"train/box_loss": 1.5}, metrics={"metrics/mAP50(B)": 0.25, "lr/pg0": 0.1},
            )
        )  # fmt: skip
    assert stream.getvalue().splitlines()[-1] == "    epoch 1/3  2.5 s  loss 1.50  mAP50 0.250"


def test_a_log_is_never_silent_for_more_than_a_minute():
    """A first epoch of minutes would look like a process that hangs."""
    stream = io.StringIO()
    with Console(stream).training(300.0) as show:
        for number in range(10):
            show(batch(1, number, time=20.0 * number))
    assert re.findall(r"batch (\d+)/10", stream.getvalue()) == ["3", "6", "9"]


def test_all_of_a_detection_fits_in_eighty_columns():
    names = ("mAP50", "mAP50-95", "precision", "recall")
    line = epoch_line(
        ProgressEvent(
            event="epoch", time=0, epoch=30, epochs=100, seconds=62.5, losses={"train/box_loss": 11.5},
            metrics={f"metrics/{name}(B)": 0.25 for name in names},
        )
    )  # fmt: skip
    assert line.endswith("loss 11.5  mAP50 0.250  mAP50-95 0.250  P 0.250  R 0.250")


def test_lines_in_a_terminal_break_between_words_and_stay_above_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    console = TerminalConsole(stream)
    with console.training(10.0):
        console.warning("it may not make it: " + "some words " * 12)
        console.note("a class :cat: and a [bold]name[/bold]")
    assert "a class :cat: and a [bold]name[/bold]" in stream.getvalue()
    lines = stream.getvalue().splitlines()
    assert len([line for line in lines if "words" in line]) > 1
    assert all(len(line) <= 60 and not re.search(r"\b(?:wor|word|som)$", line.strip()) for line in lines)


def test_how_far_one_of_several_trainings_is_takes_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    log, screen = io.StringIO(), io.StringIO()
    for console in (Console(log), TerminalConsole(screen)):
        for number in (1, 2, 3):
            console.progress("trial 1", f"epoch {number}/9 " + "loss 1.0 " * 9)
        console.note("trial 1: complete")
    assert [line.split("epoch ")[-1][:3] for line in log.getvalue().splitlines()] == ["1/9", "   "]
    *shown, end = screen.getvalue().split("\r\x1b[K")[1:]
    assert [line.split()[3] for line in shown] == ["1/9", "2/9", "3/9"]
    assert all(len(line) < 60 and "\n" not in line for line in shown)
    assert end == "    trial 1: complete\n"


def epoch(**changes):
    return ProgressEvent(**({"event": "epoch", "time": 0, "epoch": 1, "epochs": 3, "seconds": 2.5} | changes))


def test_metrics_of_boxes_and_masks_are_told_apart():
    metrics = {"metrics/precision(B)": 0.1, "metrics/mAP50(B)": 0.25, "metrics/mAP50(M)": 0.125}
    line = epoch_line(epoch(metrics=metrics))
    assert line == "epoch 1/3  2.5 s  box mAP50 0.250  mask mAP50 0.125  box P 0.100"


@given(st.dictionaries(st.text(min_size=1, max_size=30), st.floats(-1e6, 1e6), max_size=20))
def test_a_line_of_an_epoch_fits_whatever_a_training_measures(metrics):
    assert len(epoch_line(epoch(metrics=metrics, losses=metrics))) <= 76


@pytest.mark.parametrize("no_colour", [True, False])
def test_no_color_is_obeyed_where_a_terminal_would_have_colours(monkeypatch, no_colour):
    """https://no-color.org"""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with TerminalConsole(stream).training(10.0) as show:
        show(batch(1, 1, time=1.0))
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", stream.getvalue())) != no_colour


def test_the_clock_of_the_bar_goes_on_after_the_last_epoch(monkeypatch):
    """A finished task's clock stops, and validation and export are still to come."""
    shown = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda _bar, _task, **now: shown.append(now))
    with TerminalConsole(io.StringIO()).training(10.0) as show:
        show(epoch(epoch=2, epochs=2))
    assert shown[0]["completed"] < shown[0]["total"]
    assert f"{shown[0]['completed']:.0%}" == "100%"


def test_after_its_last_epoch_a_training_says_what_it_does():
    assert closing_stage(epoch(epoch=1, epochs=2)) is None
    assert closing_stage(epoch(epoch=2, epochs=2)) == "final validation"
    assert closing_stage(ProgressEvent(event="stage", time=0, stage="final")) == "exporting"
    assert closing_stage(ProgressEvent(event="stage", time=0, stage="import")) is None


def test_an_epoch_shows_the_users_own_metrics_by_their_own_names():
    line = epoch_line(epoch(metrics={"val/f1": 0.5, "a/b>": 1e30, "val/loss": 2.0}, losses={"loss": 1e30}))
    assert "val/f1 0.500" in line
    assert "a/b> 1e+30" in line
    assert "loss 1e+30" in line
    assert "val/loss" not in line
