"""What a person sees: safe for any terminal, and the time that is left."""

import io

from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.orchestrator.output.console import Console, TimeLeft, plain
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
    assert stream.getvalue() == "    epoch 1/3  2.5 s  box_loss 1.500  mAP50 0.250\n"
