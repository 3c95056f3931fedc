"""Why a training stops: signals, a dead parent, a spot notice."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from local_http import LocalServer

from gpu_offload.remote_job.interruption import InterruptedTrainingError, Interruption
from gpu_offload.remote_job.mirror import spot_notice

PATIENCE_S = 60


@pytest.fixture
def metadata():
    """An instance metadata service that wants a token, on the loopback."""
    documents = {}
    tokens = []

    def reply(request):
        if request.command == "PUT":
            assert request.path == "/latest/api/token"
            assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            tokens.append(f"token-{len(tokens)}")
            return 200, tokens[-1]
        if not tokens or request.headers["X-aws-ec2-metadata-token"] != tokens[-1]:
            return 401, ""
        return (200, documents[request.path]) if request.path in documents else (404, "")

    with LocalServer(reply) as server:
        server.documents, server.tokens = documents, tokens
        yield server


def test_the_first_reason_counts():
    interruption = Interruption()
    interruption.check()
    interruption.request("first")
    interruption.request("second")
    assert interruption.requested
    with pytest.raises(InterruptedTrainingError, match="first"):
        interruption.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_wish_that_is_kept_until_the_next_boundary(number, foreground):
    interruption = Interruption()
    before = signal.getsignal(number)
    with interruption.signals():
        os.kill(os.getpid(), number)
        assert interruption.reason == f"received {number.name}"
    assert signal.getsignal(number) is before


def stage(interruption, begin):
    """A stage that would take long."""
    with interruption.at_once():
        begin()
        threading.Event().wait(PATIENCE_S)
        pytest.fail("the stage went on")


def test_a_signal_ends_a_stage_without_boundaries_at_once():
    interruption = Interruption()
    with interruption.signals(), pytest.raises(InterruptedTrainingError):
        stage(interruption, lambda: os.kill(os.getpid(), signal.SIGTERM))


def test_another_thread_ends_a_stage_without_boundaries_too():
    interruption = Interruption()
    asker = threading.Thread(target=interruption.request, args=("a notice",))
    with interruption.signals(), pytest.raises(InterruptedTrainingError, match="a notice"):
        stage(interruption, asker.start)
    asker.join()


def test_a_wish_before_a_stage_keeps_it_from_beginning():
    interruption = Interruption()
    interruption.request("early")
    with pytest.raises(InterruptedTrainingError), interruption.at_once():
        pytest.fail("the stage began")


@pytest.mark.process
def test_the_end_of_standard_input_means_that_the_parent_is_gone():
    program = (
        "from gpu_offload.remote_job.interruption import Interruption\n"
        "i = Interruption(); i.watch_parent().join(); print(i.reason)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        child.stdin.write("something")
        child.stdin.flush()
        assert child.poll() is None
        output, _ = child.communicate(timeout=PATIENCE_S)
    assert output.strip() == "the process that started the training is gone"


def test_a_spot_notice_says_what_happens_when(metadata):
    metadata.documents[spot_notice.ACTION] = json.dumps(
        {"action": "terminate", "time": "2030-01-01T00:02:00Z"}
    )
    assert spot_notice.reason(spot_notice.Metadata(metadata.url)) == (
        "spot interruption notice: terminate at 2030-01-01T00:02:00Z"
    )


def test_a_rebalance_recommendation_is_noticed_too(metadata):
    metadata.documents[spot_notice.REBALANCE] = json.dumps({"noticeTime": "2030-01-01T00:00:00Z"})
    assert "rebalance recommendation of 2030" in spot_notice.reason(spot_notice.Metadata(metadata.url))


def test_no_notice_is_no_reason(metadata):
    assert spot_notice.reason(spot_notice.Metadata(metadata.url)) is None


def test_an_expired_token_is_renewed(metadata):
    service = spot_notice.Metadata(metadata.url)
    assert service.read(spot_notice.ACTION) is None
    metadata.tokens.append("another")
    metadata.documents[spot_notice.ACTION] = "{}"
    assert service.read(spot_notice.ACTION) == "{}"


def test_a_service_that_does_not_answer_is_no_reason(metadata):
    dead = spot_notice.Metadata("http://127.0.0.1:9")
    assert spot_notice.reason(dead) is None


def test_a_watch_reports_a_notice_that_comes_later(metadata):
    told = threading.Event()
    reasons = []

    def tell(reason):
        reasons.append(reason)
        told.set()

    close = spot_notice.watch(metadata.url, tell, interval=0.02)
    assert not told.wait(0.1)
    metadata.documents[spot_notice.ACTION] = "not even JSON"
    assert told.wait(PATIENCE_S)
    close()
    assert reasons == ["spot interruption notice: reclaim at any moment"]


def test_an_interruption_that_a_library_wraps_is_still_an_interruption():
    """Ultralytics turns whatever is raised while it builds a dataset into a RuntimeError."""

    def build(interruption, cause):
        with interruption.unwrapped():
            raise RuntimeError("Dataset error") from cause

    with pytest.raises(InterruptedTrainingError, match="received SIGTERM"):
        build(Interruption(), InterruptedTrainingError("received SIGTERM"))
    with pytest.raises(RuntimeError, match="Dataset error"):
        build(Interruption(), ValueError("a real one"))
