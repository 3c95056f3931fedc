"""A web server of published models, as static as S3's, and as bad as a test wants it."""

import contextlib
import hashlib
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """A request that came: bytes of head in and of head and body out."""

    path: str
    query: dict
    headers: dict
    status: int = 0
    sent: int = 0
    received: int = 0


class ModelServer:
    """Serves `files` by path, with etags, conditional requests and ranges; `faults` answer in its place.

    A fault is a function `(handler, request) -> bool`, True where it has answered.
    """

    def __init__(self, context=None):
        self.files = {}
        self.faults = []
        self.requests = []
        self.has_ranges = True
        self.context = context
        self.over = threading.Event()
        """Set when the test ends, for faults that last until then."""

    def __enter__(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                request = Request(parts.path, parse_qs(parts.query), dict(self.headers))
                request.received = len(self.requestline) + 2 + len(str(self.headers))
                server.requests.append(request)
                self.request_seen = request
                with contextlib.suppress(ConnectionError):
                    if not any(fault(self, request) for fault in list(server.faults)):
                        server.serve(self, request)

            def answer(self, status, body=b"", **headers):
                """Answer; a header whose value is None is left out."""
                head = {"Content-Length": str(len(body))} | {
                    k.replace("_", "-"): v for k, v in headers.items()
                }
                if status == 304:
                    head.pop("Content-Length")
                self.send_response(status)
                for name, value in head.items():
                    if value is not None:
                        self.send_header(name, value)
                sent = sum(map(len, self._headers_buffer)) + 2
                self.end_headers()
                self.wfile.write(body)
                self.request_seen.status, self.request_seen.sent = status, sent + len(body)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass  # a client that goes away in the middle of an answer

        self.server = Server(("127.0.0.1", 0), Handler)
        if self.context:
            self.server.socket = self.context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if self.context else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def serve(self, handler, request):
        """Answer as a static server does."""
        body = self.files.get(request.path)
        if body is None:
            handler.answer(404)
            return
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            handler.answer(304, ETag=etag)
            return
        if request.headers.get("If-Match", etag) != etag:
            handler.answer(412)
            return
        wanted = request.headers.get("Range")
        if wanted and self.has_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                handler.answer(416)
                return
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.answer(206, body[start:], ETag=etag, Content_Range=span)
            return
        handler.answer(200, body, ETag=etag)

    def paths(self):
        return [request.path for request in self.requests]

    # ------------------------------------------------------------------------------------- publishing

    def publish(self, version, body=None, exports=(), **alias):
        """Publish a version and let `stable` mean it, keeping its history; `alias` adds to the alias's document.

        `exports` names formats that it is exported to.
        """
        body = body if body is not None else f"model {version} ".encode() * 2000
        self.files[f"/models/{version}/model.pt"] = body
        facts = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
        manifest = {"format": 1, "version": version, "model": {"name": "model.pt", **facts}}
        self.files[f"/models/{version}/manifest.json"] = json.dumps(manifest).encode()
        entry = {
            "version": version,
            **facts,
            **{k: alias.pop(k) for k in ("semver", "rollout") if k in alias},
        }
        for form in exports:
            other = f"{version} as {form}".encode()
            self.files[f"/models/{version}/model.{form}"] = other
            file = {
                "name": f"model.{form}",
                "sha256": hashlib.sha256(other).hexdigest(),
                "size": len(other),
            }
            entry.setdefault("exports", {})[form] = file
        document = self.document
        history = [*document.get("history", []), entry]
        kept = {k: document[k] for k in ("yanked", "minimum") if k in document}
        self.document = {"format": 1, "name": "stable", **kept, **entry, "history": history, **alias}
        return body

    @property
    def document(self):
        """The alias `stable`."""
        return json.loads(self.files.get("/aliases/stable.json", b"{}"))

    @document.setter
    def document(self, document):
        self.files["/aliases/stable.json"] = json.dumps(document).encode()

    # ------------------------------------------------------------------------------------- faults

    def fault(self, match, act, times=1):
        """Let `act(handler, request)` answer the next `times` requests for a path that ends with `match`."""
        left = [times]

        def fault(handler, request):
            if not left[0] or not request.path.endswith(match):
                return False
            left[0] -= 1
            act(handler, request)
            return True

        self.faults.append(fault)

    def status(self, match, status, times=10**6, **headers):
        """Answer with a status."""
        self.fault(match, lambda handler, _: handler.answer(status, **headers), times)

    def cut(self, match, length, times=1):
        """Promise the whole file and break off after `length` bytes of what was asked for."""

        def act(handler, request):
            body = self.files[request.path]
            wanted = request.headers.get("Range", "bytes=0-")
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            rest = body[start:]
            head = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
            handler.answer(206 if start else 200, rest[:length], Content_Length=str(len(rest)), **head)
            handler.close_connection = True

        self.fault(match, act, times)

    def stall(self, match, length, times=1):
        """Send `length` bytes and then nothing."""

        def act(handler, request):
            body = self.files[request.path]
            handler.answer(200, body[:length], Content_Length=str(len(body)))
            handler.wfile.flush()
            self.over.wait(30)

        self.fault(match, act, times)

    def length(self, match, length, times=1):
        """Send the whole file under a false Content-Length."""
        self.fault(
            match,
            lambda handler, request: handler.answer(
                200, self.files[request.path], Content_Length=str(length)
            ),
            times,
        )
