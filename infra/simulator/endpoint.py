"""The simulated cloud's HTTP endpoint: a WSGI application around moto."""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import cache
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from gpu_offload.infra.simulator.api_front import ApiFront
from gpu_offload.infra.simulator.call import Reply, read_call

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
CONTROL = "/_simulator/"
"""Requests below this path are for the simulation itself."""


class Dispatcher(DomainDispatcherApplication):  # type: ignore[misc]  # moto is not typed
    """moto's application. It looks for a host's backend once: moto lists all its folders for that, at every request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self.get_backend_for_host = cache(super().get_backend_for_host)


class Application:
    """The WSGI application."""

    def __init__(self, cloud: ApiFront) -> None:
        self._cloud = cloud
        self._moto = Dispatcher()
        self._writing = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("PATH_INFO", "")
        if path.startswith(CONTROL):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _send(self._cloud.control(environ["REQUEST_METHOD"], path, body), start_response)
        call = read_call(environ, self._cloud.behaviour.region)
        verdict = self._cloud.before(call)
        if verdict.drop:
            raise ConnectionAbortedError  # the server closes the connection
        if verdict.reply is not None:
            if verdict.lose:
                raise ConnectionAbortedError
            return _send(verdict.reply, start_response)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._cloud.compute.account
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        # moto looks at a write's condition first and writes then: two threads may both find it true.
        is_write = call.service == "s3" and environ["REQUEST_METHOD"] not in {"GET", "HEAD"}
        with self._cloud.during(call), self._writing if is_write else nullcontext():
            replies = self._moto(environ, lambda status, headers, *_: answers.append((status, headers)))
            body = b"".join(replies)
            if hasattr(replies, "close"):
                replies.close()
        status, headers = answers[-1]
        self._cloud.after(call, int(status.split()[0]), body)
        if verdict.lose:
            raise ConnectionAbortedError
        start_response(status, headers)
        return [body]


def _send(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*reply.headers, ("Content-Length", str(len(reply.body)))]
    start_response(reply.status_line, headers)
    return [reply.body]


class _EndpointHandler(MotoRequestHandler):  # type: ignore[misc]  # moto is not typed
    """Logs nothing, and dates its replies by the cloud's clock."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """See `BaseHTTPRequestHandler`."""
        return str(super().date_time_string(self.server.clock() if timestamp is None else timestamp))

    def log(self, *_: object) -> None:
        """Say nothing."""

    def connection_dropped(self, *_: object) -> None:
        """A lost reply: the connection just ends."""
        self.close_connection = True


class Server:
    """Serves an application on an address, in threads."""

    def __init__(
        self, application: Application, address: str, clock: Callable[[], float] = time.time
    ) -> None:
        # Bound here: HTTPServer would ask DNS for the name of the address.
        self._listener = socket.create_server((address, 0), backlog=256)
        self.address, self.port = self._listener.getsockname()[:2]
        self._server: BaseWSGIServer = make_server(
            address,
            self.port,
            application,
            threaded=True,
            request_handler=_EndpointHandler,
            fd=self._listener.fileno(),
        )
        self._server.clock = clock
        self._server.daemon_threads = True
        # A request that waits for a cut network must not keep the cloud from closing.
        self._server.block_on_close = False
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="simulated-cloud-endpoint",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join(timeout=10)
        self._server.server_close()
        self._listener.close()
