"""An HTTP server on this machine, for as long as a block lasts."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer:
    """Serves on the loopback at `url`; `reply(request)` returns the status and the body: bytes, text or a document.

    A request is http.server's handler with its `body` read. Where it returns nothing, it has replied by itself.
    """

    protocol = "HTTP/1.0"

    def __init__(self, reply):
        self.reply = reply

    def __enter__(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = server.protocol

            def do(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if isinstance(answer := server.reply(self), tuple):
                    self.write(*answer)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815 - as http.server names them

            def write(self, status, body=b"", **headers):
                """Write a reply."""
                if isinstance(body, str):
                    body = body.encode()
                if not isinstance(body, bytes):
                    body, headers = json.dumps(body).encode(), {"Content_Type": "application/json"} | headers
                self.send_response(status)
                for name, value in ({"Content_Length": str(len(body))} | headers).items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def server_bind(self):
                socketserver.TCPServer.server_bind(self)  # HTTPServer's asks DNS for a name
                self.server_name, self.server_port = self.server_address

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
