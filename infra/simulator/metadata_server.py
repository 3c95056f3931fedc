"""The instance metadata service, version 2, as an instance sees it. Standard library only."""

import json
import secrets
import socketserver
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN_PATH = "/latest/api/token"  # noqa: S105  a path, not a secret
MAX_TTL = 21_600


class MetadataServer(ThreadingHTTPServer):
    """Serves on `address` the content of the file `document`: JSON, `{"/latest/...": text}`.

    The cloud replaces the file on every change, so that a notice is served as soon as the cloud gives it.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], document: Path) -> None:
        self.document = document
        self.tokens: dict[str, float] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking DNS for our own name, which HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer
    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        """Give out a session token."""
        if self.path != TOKEN_PATH:
            return self._answer(404, "")
        try:
            ttl = int(self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", ""))
        except ValueError:
            return self._answer(400, "")
        if not 1 <= ttl <= MAX_TTL or self.headers.get("X-Forwarded-For"):
            return self._answer(400 if ttl < 1 or ttl > MAX_TTL else 403, "")
        token = secrets.token_urlsafe(40)
        self.server.tokens[token] = time.monotonic() + ttl
        return self._answer(200, token, ttl=ttl)

    def do_GET(self) -> None:
        """Answer with a value, or with the names one level below."""
        token = self.headers.get("X-aws-ec2-metadata-token", "")
        if self.server.tokens.get(token, 0.0) < time.monotonic():
            return self._answer(401, "")
        values: dict[str, str] = json.loads(self.server.document.read_text())
        path = self.path.partition("?")[0]
        if path in values:
            return self._answer(200, values[path])
        folder = path.rstrip("/") + "/"
        below = [key.removeprefix(folder) for key in values if key.startswith(folder)]
        names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})
        return self._answer(200 if names else 404, "\n".join(names))

    def _answer(self, status: int, text: str, *, ttl: int | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if ttl is not None:
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", str(ttl))
        self.end_headers()
        self.wfile.write(body)
