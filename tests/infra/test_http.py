"""Requests of our own: named, only over https, with no unsafe redirect and no unbounded reply."""

import errno
import socket
import threading
import urllib.request
from contextlib import contextmanager, suppress
from io import BytesIO

import pytest
from local_http import LocalServer

from gpu_offload.infra import http
from gpu_offload.infra.store import files
from gpu_offload.infra.store.errors import CorruptObjectError, StoreUnreachableError
from gpu_offload.infra.store.web import WebStore

pytestmark = pytest.mark.simulator


@contextmanager
def server(answer):
    """A server on this machine; `answer(handler)` writes each reply."""
    with LocalServer(answer) as running:
        yield running.url


def test_a_server_that_refuses_urllibs_own_name_answers_us(tmp_path):
    def answer(handler):
        refused = handler.headers["User-Agent"].startswith("Python-urllib")
        handler.write(403 if refused else 200, b"" if refused else b"weights", ETag='"1"')

    with server(answer) as address:
        store = WebStore(address)
        assert store.read("index.json") == (b"weights", '"1"')
        assert store.stat("index.json").size == 7
        store.download("models/a/model.pt", tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == b"weights"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https:///x",
        "http://127.0.0.1.example.org/",
    ],
)
def test_only_https_and_this_machine_are_asked(url):
    with pytest.raises(http.UnsafeAddressError, match="not an https address"), http.ask(url):
        pass


def test_a_password_in_an_address_is_refused_and_not_quoted():
    with pytest.raises(http.UnsafeAddressError, match=r"example\.org/x: .*password") as refused:
        http.check_address("https://me:secret@example.org/x?token=secret")
    assert "secret" not in str(refused.value)


def test_a_network_that_goes_away_is_no_answer_and_a_full_disk_is_itself():
    def received(number):
        with server(lambda handler: handler.write(200)) as address, http.ask(address):
            raise OSError(number, "what the system says")

    with pytest.raises(http.NoAnswerError, match="what the system says"):
        received(errno.EHOSTUNREACH)
    with pytest.raises(OSError, match="what the system says") as full:
        received(errno.ENOSPC)
    assert full.value.errno == errno.ENOSPC


def test_a_redirect_to_an_unsafe_address_is_not_followed():
    with (
        server(lambda handler: handler.write(302, Location="http://example.org/x")) as address,
        pytest.raises(http.UnsafeAddressError, match=r"example\.org"),
        http.ask(address),
    ):
        pass


def test_the_body_of_a_redirect_is_not_read():
    sent = []

    def answer(handler):
        if handler.path == "/elsewhere":
            return handler.write(200, b"found")
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        with suppress(OSError):
            while len(sent) < 1_000:
                handler.wfile.write(bytes(1 << 16))
                sent.append(1)
        return None

    with server(answer) as address, http.ask(address) as found:
        assert http.read(found) == b"found"
    assert len(sent) < 1_000


def test_https_is_not_redirected_to_http_not_even_of_this_machine():
    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(http.UnsafeAddressError, match="redirects to"):
        http.Redirects(follow=True).redirect_request(request, BytesIO(), 302, "", {}, "http://127.0.0.1/x")


def test_a_circle_of_redirects_is_an_error():
    with (
        server(lambda handler: handler.write(302, b"body", Location="/")) as address,
        pytest.raises(http.StatusError, match="302"),
        http.ask(address),
    ):
        pass


def test_where_redirects_are_not_allowed_one_is_an_error():
    def answer(handler):
        handler.write(302, Location="/elsewhere") if handler.path == "/" else handler.write(200, b"followed")

    with server(answer) as address:
        with http.ask(f"{address}/") as got:
            assert http.read(got) == b"followed"
        with pytest.raises(http.StatusError) as found, http.ask(f"{address}/", redirects=False):
            pass
    assert found.value.status == 302


def test_a_secret_goes_to_the_first_address_only():
    seen = []

    def answer(handler):
        seen.append((handler.path, handler.headers["Authorization"], handler.headers["Accept"]))
        handler.write(302, Location="/elsewhere") if handler.path == "/" else handler.write(200)

    secret = {"Authorization": "Bearer token"}
    with server(answer) as address, http.ask(f"{address}/", headers={"Accept": "x"}, secret=secret):
        pass
    assert seen == [("/", "Bearer token", "x"), ("/elsewhere", None, "x")]


def test_an_error_status_brings_the_servers_words():
    with (
        server(lambda handler: handler.write(418, b"short and stout")) as address,
        pytest.raises(http.StatusError) as found,
        http.ask(address, method="POST", body=b"{}"),
    ):
        pass
    assert (found.value.status, found.value.said) == (418, "short and stout")


def test_a_reply_that_is_too_large_or_cut_short_is_an_error(tmp_path):
    with (
        server(lambda handler: handler.write(200, b"12345")) as address,
        http.ask(address) as got,
        pytest.raises(http.TooLargeError),
    ):
        http.read(got, limit=4)
    with server(lambda handler: handler.write(200, b"12345", Content_Length="9")) as address:
        with http.ask(address) as got, pytest.raises(http.NoAnswerError, match="5 of 9 bytes"):
            http.read(got)
        with pytest.raises(StoreUnreachableError):
            WebStore(address).download("model.pt", tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_a_document_that_none_is_as_large_as_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(files, "DOCUMENT", 1000)
    with (
        server(lambda handler: handler.write(200, bytes(2000))) as address,
        pytest.raises(CorruptObjectError, match="larger than"),
    ):
        WebStore(address).read("index.json")


@pytest.mark.parametrize("length", ["abc", "-5", "9" * 5000, "\xb2"])
def test_a_length_that_is_no_number_is_an_error(length):
    with (
        server(lambda handler: handler.write(200, b"weights", Content_Length=length)) as address,
        pytest.raises(StoreUnreachableError, match="Content-Length"),
    ):
        WebStore(address).read("index.json")


@pytest.mark.parametrize("target", ["https://[::1", f"https://{'a' * 300}.example/"])
def test_a_redirect_to_what_is_no_address_is_an_error(target):
    with (
        server(lambda handler: handler.write(302, Location=target)) as address,
        pytest.raises(StoreUnreachableError),
    ):
        WebStore(address).read("index.json")


def test_a_date_that_is_none_is_no_error():
    with server(lambda handler: handler.write(200, b"w", Last_Modified="\xff bad 99")) as address:
        assert WebStore(address).stat("index.json").size == 1


def test_silence_is_an_error_of_its_own():
    with (
        server(lambda handler: handler.close_connection) as address,
        pytest.raises(http.NoAnswerError, match="no answer"),
        http.ask(address),
    ):
        pass
    with pytest.raises(http.NoAnswerError), http.ask("http://127.0.0.1:1/"):
        pass


HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = HEAD + b"Content-Length: 1000000\r\n\r\n"
PIECES = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (HEAD + b"X: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
        (BODY, b"x"),
        (BODY.replace(b"200 OK", b"500 Error"), b"x"),
        (PIECES + b"1;", b"x"),
        (PIECES + b"0\r\n", b"X: y\r\n" * 1_000),
    ],
    ids=["head", "continue", "body", "error", "piece", "trailer"],
)
def test_a_server_that_sends_in_drops_or_without_content_is_left(begin, again):
    """No single read times out, so that without this a job would wait until its own end."""
    over = threading.Event()

    def drip(handler):
        with suppress(OSError):
            handler.wfile.write(begin)
            for _ in range(1_000):
                if over.wait(0.02):
                    return
                handler.wfile.write(again)
            over.set()

    with server(drip) as address, pytest.raises(http.HttpError), http.ask(address, timeout=0.3) as got:
        http.read(got)
    assert not over.is_set()
    over.set()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
        (PIECES, (b"1;" + b"x" * 60_000 + b"\r\n \r\n")),
        (PIECES + b"0\r\n", b"X: y\r\n" * 10_000),
    ],
    ids=["continue", "piece", "trailer"],
)
def test_a_fast_server_that_sends_next_to_no_content_is_left(begin, again):
    """It is never waited for, so that no time is counted: its bytes are."""
    sent = []

    def flood(handler):
        with suppress(OSError):
            handler.wfile.write(begin)
            while len(sent) < 2_000:
                handler.wfile.write(again)
                sent.append(len(again))

    with (
        server(flood) as address,
        pytest.raises(http.NoAnswerError, match="no content"),
        http.ask(address) as got,
    ):
        http.read(got)
    assert sum(sent) < 64 << 20


def test_a_handshake_that_comes_in_drops_is_left():
    """A record of TLS that never ends."""
    over = threading.Event()

    def drip(listener):
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
            for _ in range(1_000):
                if over.wait(0.02):
                    return
                connection.sendall(b"\0")
            over.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(http.NoAnswerError), http.ask(url, timeout=0.3):
            pass
        assert not over.is_set()
        over.set()
        thread.join()


def test_a_reader_that_takes_its_time_is_not_the_servers_fault():
    with (
        server(lambda handler: handler.write(200, bytes(1 << 20))) as address,
        http.ask(address, timeout=1) as got,
    ):
        length = 0
        for chunk in http.chunks(got):
            length += len(chunk)
            if length == len(chunk):
                threading.Event().wait(1.5)
    assert length == 1 << 20
