"""A store behind a web address: it is read without an account, and never written to."""

import hashlib
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from gpu_offload.infra.store.errors import (
    CorruptObjectError,
    ObjectMissingError,
    StoreReadOnlyError,
    StoreUnreachableError,
)
from gpu_offload.infra.store.factory import open_store


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class LocalServer(HTTPServer):
    def server_bind(self):  # HTTPServer's asks DNS for a name
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address


@pytest.fixture
def site(tmp_path):
    """A store and a web server that shows it."""
    written = open_store("file:store", base=tmp_path)
    server = LocalServer(("127.0.0.1", 0), lambda *args: QuietHandler(*args, directory=tmp_path / "store"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield written, open_store(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.simulator
def test_what_a_store_has_made_public_is_read_without_an_account(site, tmp_path):
    written, public = site
    written.put("models/v 1/model.pt", b"weights")
    assert public.read("models/v 1/model.pt")[0] == b"weights"
    assert public.stat("models/v 1/model.pt").size == 7
    assert public.stat("models/none") is None
    sha256 = hashlib.sha256(b"weights").hexdigest()
    public.download("models/v 1/model.pt", tmp_path / "model.pt", size=7, sha256=sha256)
    assert (tmp_path / "model.pt").read_bytes() == b"weights"
    with pytest.raises(CorruptObjectError):
        public.download("models/v 1/model.pt", tmp_path / "other.pt", sha256="0" * 64)
    with pytest.raises(ObjectMissingError):
        public.read("models/none")
    assert public.public_url("a b") == f"{public.url}/a%20b"


@pytest.mark.simulator
def test_a_web_address_is_never_written_to_or_listed(site, tmp_path):
    public = site[1]
    for act in (
        lambda: public.put("k", b""),
        lambda: public.create("k", b""),
        lambda: public.replace("k", b"", ""),
        lambda: public.upload("k", tmp_path),
        lambda: public.delete("k"),
        lambda: public.list(""),
    ):
        with pytest.raises(StoreReadOnlyError, match=r"can(not| only) be"):
            act()


@pytest.mark.simulator
def test_a_web_address_that_does_not_answer_is_an_error():
    with pytest.raises(StoreUnreachableError, match="no answer"):
        open_store("https://127.0.0.1:9/x").read("k")
