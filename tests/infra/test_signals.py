"""Signal handlers that last for a while and respect what was ignored before."""

import os
import signal
import sys
import threading

import pytest

from gpu_offload.infra.signals import ENDING_SIGNALS, handled
from gpu_offload.orchestrator.backends import training_process
from gpu_offload.orchestrator.run.signals import EndingSignal, ending_signals


@pytest.fixture
def ignored():
    """Ignore a signal in this process until the test ends, as its parent may have done before the start."""
    before = {}

    def ignore(number):
        before[number] = signal.signal(number, signal.SIG_IGN)

    yield ignore
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_handler_lasts_as_long_as_its_context(number, foreground):
    received = []
    with handled(lambda which, _frame: received.append(which)):
        os.kill(os.getpid(), number)
    assert received == [number]
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_what_was_ignored_at_the_start_stays_ignored(number, foreground, ignored):
    """`nohup` ignores SIGHUP; a shell without job control ignores SIGINT in background jobs."""
    ignored(number)
    received = []
    with handled(lambda which, _frame: received.append(which)):
        for each in ENDING_SIGNALS:
            os.kill(os.getpid(), each)
    assert set(received) == {*ENDING_SIGNALS} - {number}
    assert signal.getsignal(number) is signal.SIG_IGN


def test_only_the_first_ending_signal_interrupts_and_handlers_return(foreground):
    with ending_signals():
        with pytest.raises(EndingSignal, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
        for each in ENDING_SIGNALS:  # during the cleanup
            os.kill(os.getpid(), each)
    assert {signal.getsignal(each) for each in ENDING_SIGNALS} == {signal.SIG_DFL}


def test_a_background_job_is_ended_by_a_plain_kill_and_not_by_ctrl_c(foreground, ignored):
    ignored(signal.SIGINT)
    with ending_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(EndingSignal, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_leave_the_handlers_alone(foreground):
    seen = []

    def work():
        with handled(lambda *_: None), ending_signals():
            seen.extend(signal.getsignal(each) for each in ENDING_SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(seen) == {signal.SIG_DFL}


@pytest.mark.process
@pytest.mark.parametrize(
    ("numbers", "apart", "ended_by"),
    [
        ((signal.SIGINT, signal.SIGINT), 2.0, signal.SIGKILL),
        ((signal.SIGINT, signal.SIGINT), 0.1, None),
        ((signal.SIGINT, signal.SIGTERM), 9.0, None),
    ],
)
def test_a_second_ctrl_c_ends_a_training_at_once_and_an_echo_of_the_first_does_not(
    foreground, monkeypatch, numbers, apart, ended_by
):
    """A wrapper may pass on what the terminal sent; GitHub sends SIGTERM after SIGINT, and the checkpoint may still be saved."""
    clock = [100.0]
    monkeypatch.setattr(training_process.time, "monotonic", lambda: clock[0])
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    with training_process.TrainingProcess([sys.executable, "-c", stubborn]) as process:
        process.stdout.readline()
        with training_process.passing_signals_on(process):
            for number in numbers:
                os.kill(os.getpid(), number)
                clock[0] += apart
        assert process.told == numbers[0]
        if ended_by is None:
            process.communicate("\n")
        assert process.wait() == (-ended_by if ended_by else 0)
