"""Starting weights: fetched once, verified, kept in the store."""

import hashlib
import json

import pytest
from local_http import LocalServer

from gpu_offload.remote_job import weights
from gpu_offload.remote_job.spec import Weights
from gpu_offload.remote_job.weights import (
    WeightsMismatchError,
    WeightsUnavailableError,
    fetch,
    local,
    resolve,
)

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A web server with `yolo11n.pt`; it counts, and misbehaves on request."""
    requests = []

    def reply(request):
        requests.append(request.path)
        if request.path.endswith("/elsewhere.pt"):
            request.write(302, Location="http://192.0.2.1/x.pt")
        elif request.path.endswith("/short.pt"):
            request.write(200, CONTENT[:100], Content_Length=str(len(CONTENT)))
        else:
            known = request.path.endswith("/yolo11n.pt")
            request.write(200 if known else 404, CONTENT if known else b"no")

    with LocalServer(reply) as server:
        server.requests = requests
        yield server


def test_a_model_definition_needs_no_weights(tmp_path, store):
    assert resolve("yolov8n.yaml", store=store, cache=tmp_path / "cache") is None


def test_published_weights_are_fetched_once_and_kept_in_the_store(tmp_path, server, store):
    first = resolve("yolo11n.pt", store=store, cache=tmp_path / "one", assets=server.url)
    second = resolve("yolo11n.pt", store=store, cache=tmp_path / "two", assets=server.url)
    assert first.sha256 == second.sha256 == SHA256
    assert first.key == "weights/yolo11n.pt"
    assert server.requests == ["/yolo11n.pt"]
    assert (tmp_path / "two" / "yolo11n.pt").read_bytes() == CONTENT
    note = json.loads(store.read("weights/yolo11n.pt.json")[0])
    assert note == {"sha256": SHA256, "size": len(CONTENT), "source": f"{server.url}/yolo11n.pt"}


def test_weights_that_changed_in_the_store_are_refused(tmp_path, server, store):
    resolve("yolo11n.pt", store=store, cache=tmp_path / "one", assets=server.url)
    store.put("weights/yolo11n.pt", b"something else")
    with pytest.raises(Exception, match=r"sha256|bytes"):
        resolve("yolo11n.pt", store=store, cache=tmp_path / "two", assets=server.url)


def test_a_damaged_local_copy_is_fetched_anew(tmp_path, server, store):
    first = resolve("yolo11n.pt", store=store, cache=tmp_path / "one", assets=server.url)
    (tmp_path / "one" / "yolo11n.pt").write_bytes(b"damaged")
    assert resolve("yolo11n.pt", store=store, cache=tmp_path / "one", assets=server.url) == first
    assert (tmp_path / "one" / "yolo11n.pt").read_bytes() == CONTENT


def test_a_url_with_its_sha256_is_verified(tmp_path, server, store):
    found = resolve(f"{server.url}/yolo11n.pt#sha256={SHA256}", store=store, cache=tmp_path / "cache")
    assert found.sha256 == SHA256
    assert store.stat(found.key).size == len(CONTENT)
    with pytest.raises(WeightsMismatchError):
        resolve(f"{server.url}/yolo11n.pt#sha256={'0' * 64}", store=store, cache=tmp_path / "cache")


def test_a_url_without_its_sha256_is_refused(tmp_path, server, store):
    with pytest.raises(WeightsUnavailableError, match="add the file's sha256"):
        resolve(f"{server.url}/yolo11n.pt", store=store, cache=tmp_path / "cache")
    assert server.requests == []


def test_an_object_in_the_store_is_used_where_it_is(tmp_path, store):
    store.put("own/start.pt", CONTENT)
    found = resolve("store:own/start.pt", store=store, cache=tmp_path / "cache")
    assert (found.sha256, found.key) == (SHA256, "own/start.pt")


def test_a_missing_object_is_a_clear_error(tmp_path, store):
    with pytest.raises(WeightsUnavailableError, match="no such object"):
        resolve("store:own/start.pt", store=store, cache=tmp_path / "cache")


@pytest.mark.simulator
def test_no_network_is_a_clear_error_with_a_remedy(tmp_path, store):
    with pytest.raises(WeightsUnavailableError, match=r"cannot be fetched.*train from scratch"):
        resolve("yolo11n.pt", store=store, cache=tmp_path / "cache", assets="http://127.0.0.1:9")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_name_that_is_not_published_is_a_clear_error(tmp_path, server, store):
    with pytest.raises(WeightsUnavailableError, match="404"):
        resolve("yolo99n.pt", store=store, cache=tmp_path / "cache", assets=server.url)


@pytest.mark.parametrize("fault", ["short", "large", "redirect", "plain http"])
def test_what_is_fetched_is_whole_bounded_and_over_tls(tmp_path, server, fault):
    url = f"{server.url}/{'short' if fault == 'short' else 'elsewhere' if fault == 'redirect' else 'yolo11n'}.pt"
    if fault == "plain http":
        url = "http://192.0.2.1/yolo11n.pt"
    with pytest.raises(WeightsUnavailableError):
        fetch(url, tmp_path / "x.pt", limit=100 if fault == "large" else weights.MAX_BYTES)
    assert list(tmp_path.iterdir()) == []


def test_a_training_takes_the_local_file_and_else_the_stores(tmp_path, store):
    path = tmp_path / "start.pt"
    path.write_bytes(CONTENT)
    store.put("weights/start.pt", CONTENT)
    both = Weights(sha256=SHA256, path=str(path), key="weights/start.pt")
    assert local(both, store=store, folder=tmp_path / "work") == path
    path.unlink()
    assert local(both, store=store, folder=tmp_path / "work").read_bytes() == CONTENT


def test_a_training_refuses_weights_that_are_not_the_ones_meant(tmp_path):
    path = tmp_path / "start.pt"
    path.write_bytes(b"other")
    with pytest.raises(WeightsMismatchError):
        local(Weights(sha256=SHA256, path=str(path)), store=None, folder=tmp_path)


# ------------------------------------------------------------------------------------------- what is pinned


@pytest.fixture
def official(server, monkeypatch):
    """Let the test's server be the place where Ultralytics publishes, with other content than it has there."""
    monkeypatch.setattr(weights, "ASSETS", server.url)
    return server.url


def test_published_weights_with_other_content_are_refused(tmp_path, official, store):
    with pytest.raises(WeightsMismatchError, match=weights.PINNED["yolo11n.pt"]):
        resolve("yolo11n.pt", store=store, cache=tmp_path / "cache", assets=official)
    assert list(store.list("")) == []
    assert not list((tmp_path / "cache").iterdir())


def test_planted_weights_under_a_published_name_are_refused(tmp_path, official, store):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "yolo11n.pt").write_bytes(CONTENT)
    with pytest.raises(WeightsMismatchError):  # not believed: fetched anew, and that is not it either
        resolve("yolo11n.pt", store=store, cache=tmp_path / "cache", assets=official)
    store.put("weights/yolo11n.pt", CONTENT)
    store.put("weights/yolo11n.pt.json", json.dumps({"sha256": SHA256}).encode())
    with pytest.raises(WeightsMismatchError, match="look who wrote it"):
        resolve("yolo11n.pt", store=store, cache=tmp_path / "cache", assets=official)


def test_a_file_of_the_repository_does_not_pass_for_published_weights(tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo11n.pt").write_bytes(CONTENT)
    with pytest.raises(WeightsMismatchError, match="another name"):
        resolve("yolo11n.pt", store=store, cache=tmp_path / "cache")
    (tmp_path / "mine.pt").write_bytes(CONTENT)
    assert resolve("mine.pt", store=store, cache=tmp_path / "cache").sha256 == SHA256


def test_weights_in_the_store_are_created_once(tmp_path, server, store):
    store.put("weights/yolo11n.pt", b"an upload that was interrupted or planted")
    with pytest.raises(WeightsMismatchError, match=r"delete weights/yolo11n\.pt"):
        resolve("yolo11n.pt", store=store, cache=tmp_path / "cache", assets=server.url)
    store.put("weights/yolo11n.pt", CONTENT)
    assert resolve("yolo11n.pt", store=store, cache=tmp_path / "cache", assets=server.url).sha256 == SHA256


@pytest.mark.parametrize("digest", weights.PINNED.values())
def test_a_pin_is_a_sha256(digest):
    assert len(bytes.fromhex(digest)) == 32
