"""A network relay to an instance without a network of its own; it can be cut, healed and slowed."""

import asyncio
import contextlib
import ctypes
import functools
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
BPF_RETURN = 0x06
"""The classic BPF instruction `ret #k`; k = 0 drops the packet."""
CHUNK = 65_536
POLL_SECONDS = 0.02


class LinkRelay:
    """The thread that relays for every link."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="simulated-cloud-network", daemon=True)

    def start(self) -> None:
        """Begin to relay."""
        self._thread.start()

    def submit(self, task: Any) -> "Future[Any]":
        """Run a coroutine in the network's thread."""
        return asyncio.run_coroutine_threadsafe(task, self.loop)

    def stop(self) -> None:
        """End every connection and the thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=10)
        if not self.loop.is_closed():
            self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


class Link:
    """Relays from `here` to `there`, once a server listens there.

    A cut is silent, as a black-holed route is: a socket filter drops every packet that arrives from the client, so
    that nothing is acknowledged and nothing is closed. The kernel allows that for any user's own sockets.
    """

    def __init__(self, network: LinkRelay, here: tuple[str, int], there: tuple[str, int]) -> None:
        self.network = network
        self.here = here
        self.there = there
        self.is_cut = False
        self.bits_per_second: float | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._clients: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self) -> None:
        """Wait in the background until a server listens there, then listen here; connections are refused until then."""
        self.network.submit(self._serve())

    def cut(self) -> None:
        """Drop every packet silently, in both directions."""
        self.network.submit(self._set_cut(cut=True)).result(timeout=10)

    def heal(self) -> None:
        """Let packets through again; what was sent meanwhile arrives when it is sent again."""
        self.network.submit(self._set_cut(cut=False)).result(timeout=10)

    def slow(self, bits_per_second: float | None) -> None:
        """Relay no faster than this; None for as fast as it goes."""
        self.bits_per_second = bits_per_second

    def close(self) -> None:
        """End every connection and stop listening."""
        with contextlib.suppress(RuntimeError, TimeoutError):
            self.network.submit(self._close()).result(timeout=10)

    async def _serve(self) -> None:
        # Real instances refuse connections until their SSH server listens; a relay would accept them.
        self._keep(asyncio.current_task())
        loop = asyncio.get_running_loop()
        while not self._closed:
            try:
                probe = await self._dial()
            except OSError:
                await asyncio.sleep(POLL_SECONDS)
                continue
            probe.close()
            break
        if self._closed:
            return
        self._listener = listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind(self.here)
            listener.listen(64)
            if self.is_cut:  # before it listened
                _drop_packets(listener, drop=True)
            loop.add_reader(listener, self._accept, listener)
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(listener)
            self._listener = None
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        """Relay a new connection. Not by `sock_accept`: it would lose one that is accepted when its task is cancelled."""
        try:
            client, _ = listener.accept()
        except OSError:  # the client has gone already
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.add(client)
        relay = asyncio.get_running_loop().create_task(self._relay(client))
        # A task that is cancelled before its first step runs no `finally`.
        relay.add_done_callback(functools.partial(_close_socket, client))
        self._keep(relay)

    def _keep(self, task: "asyncio.Task[None] | None") -> None:
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _dial(self) -> socket.socket:
        server = socket.socket()
        server.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(server, self.there)
        except BaseException:
            server.close()
            raise
        return server

    async def _relay(self, client: socket.socket) -> None:
        server = None
        try:
            server = await self._dial()
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways = [self._pump(client, server), self._pump(server, client)]
            await asyncio.gather(*ways)
        except OSError:
            pass  # one end is gone: so is the connection
        finally:
            try:
                # A client behind a cut line must not notice that the other end has closed.
                if self.is_cut and not self._closed:
                    await self._open.wait()
            finally:
                self._clients.discard(client)
                if server is not None:
                    server.close()

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # Small pieces on a slow line, so that its rate is even.
        while data := await loop.sock_recv(source, CHUNK if self.bits_per_second is None else 4096):
            await self._open.wait()
            if self.bits_per_second is not None:
                await asyncio.sleep(8 * len(data) / self.bits_per_second)
            await loop.sock_sendall(sink, data)
        await self._open.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _set_cut(self, *, cut: bool) -> None:
        self.is_cut = cut
        if cut:
            self._open.clear()
        ends = [*self._clients, *([self._listener] if self._listener else [])]
        for end in ends:
            with contextlib.suppress(OSError):
                _drop_packets(end, drop=cut)
        if not cut:
            self._open.set()

    async def _close(self) -> None:
        self._closed = True
        self._open.set()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _close_socket(end: socket.socket, _task: object) -> None:
    end.close()


def _drop_packets(end: socket.socket, *, drop: bool) -> None:
    """Attach the filter, or detach it."""
    if not drop:
        end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    # struct sock_fprog: the number of instructions, and where they are.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(instruction)))
