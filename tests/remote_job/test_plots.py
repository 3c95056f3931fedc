"""Plots are drawn by another process where there is a core for it, and are there in any case."""

import os
import sys
import threading

import pytest
from resources import Deferred, needs

plots = Deferred("gpu_offload.remote_job.yolo.plots")
best_model = Deferred("gpu_offload.remote_job.yolo.best_model")
pytestmark = [needs("ultralytics"), pytest.mark.training]


@pytest.fixture(autouse=True)
def without_polars(monkeypatch):
    monkeypatch.delitem(sys.modules, "polars", raising=False)


def drawn(tmp_path, draw, *, beside=True):
    """Draw through `Plots`; return what the drawing wrote."""
    all_plots = plots.Plots(beside=beside)
    all_plots.later(draw, tmp_path / "plot.txt")
    all_plots.start()
    all_plots.finish()
    return (tmp_path / "plot.txt").read_text()


def write_process(path):
    path.write_text(str(os.getpid()))


def test_a_second_core_draws_beside_the_training(tmp_path):
    assert int(drawn(tmp_path, write_process)) != os.getpid()


def test_a_single_core_draws_in_the_training_itself(tmp_path):
    assert int(drawn(tmp_path, write_process, beside=False)) == os.getpid()


def test_polars_is_not_forked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", threading)
    assert int(drawn(tmp_path, write_process)) == os.getpid()


@pytest.mark.parametrize("end", [lambda: os._exit(1), threading.Event().wait], ids=["fails", "hangs"])
def test_what_a_process_does_not_draw_is_drawn_in_the_training(tmp_path, monkeypatch, end):
    monkeypatch.setattr(sys.modules["gpu_offload.remote_job.yolo.plots"], "DRAWING_S", 0.2)
    own = os.getpid()

    def draw(path):
        if os.getpid() != own:
            end()
        write_process(path)

    assert int(drawn(tmp_path, draw)) == own


@pytest.mark.parametrize("beside", [True, False])
def test_a_plot_that_fails_and_a_process_that_cannot_start_lose_no_training(tmp_path, monkeypatch, beside):
    """A picture is no reason for a trained model to be lost, and neither is a lack of memory or processes."""

    def fail():
        raise ZeroDivisionError

    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    for forked in (True, False):
        all_plots = plots.Plots(beside=beside)
        if not forked:
            monkeypatch.setattr(os, "fork", refuse)
        all_plots.later(fail)
        all_plots.later(write_process, tmp_path / "plot.txt")
        all_plots.start()
        all_plots.finish()
        assert int((tmp_path / "plot.txt").read_text()) == os.getpid()
        (tmp_path / "plot.txt").unlink()


def test_curves_and_matrices_of_a_validation_are_postponed(tmp_path):
    from ultralytics.utils import metrics

    drawing, before = plots.Plots(beside=False), metrics.plot_mc_curve
    with drawing.postponed():
        metrics.ConfusionMatrix({0: "one"}).plot(save_dir=tmp_path)
        assert not list(tmp_path.iterdir())
    assert metrics.plot_mc_curve is before
    drawing.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["confusion_matrix_normalized.png"]


@pytest.mark.parametrize(
    "text",
    [
        "epoch,time,loss\n1,2.5,0\n2,4,1e-05\n",
        "epoch,loss,lr\n1,nan,inf\n2,0.25,-1\n",
        "epoch,loss\n",
    ],
)
def test_results_are_read_as_ultralytics_reads_them(tmp_path, text):
    import polars as pl

    path = tmp_path / "results.csv"
    path.write_text(text)
    theirs = pl.read_csv(path.read_bytes(), infer_schema_length=None).to_dict(as_series=False)
    ours = best_model.results(path)
    assert repr(ours) == repr(theirs)
    assert best_model.results(tmp_path / "none.csv") == {}
