"""Granian, set up so that the service's own limits speak first."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from time import monotonic, sleep
from typing import Any

from granian import _granian, _signals
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from app.connections import places
from app.loopback import open_directly
from config.settings import Settings

_HEAD_BYTES = 65_536
"""A request's line and headers together: more is answered 431."""

_WINDOW_BYTES = 65_536
"""What a client of HTTP/2 may send of a body before we have read it: the server holds that, for each of them."""

_SPARE_S = 30
"""Seconds beyond the longest answer that a worker is given to end by itself."""

_POLL_S = 0.05
_STARTING_S = 10.0

_STDERR_LOG = {
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.NullHandler"},
    }
}


class PortTaken(Exception):
    """Something listens at that address already."""


def serve(settings: Settings, host: str, port: int, workers: int, announce: Callable[[str], None]) -> None:
    """Serve with so many `workers` until SIGTERM or SIGINT, having told `announce` the address; port 0: a free one.

    Raises:
        PortTaken: the address cannot be had.
    """
    family, address, port = _free_port(host, port)
    connections = places(settings.limits.max_connections)
    url = f"http://[{address}]:{port}" if family is socket.AF_INET6 else f"http://{address}:{port}"
    server = _Announced(
        "app.asgi:application",
        factory=True,
        address=address,
        port=port,
        workers=workers,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        websockets=False,
        backlog=connections,
        backpressure=connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(settings.limits.header_timeout_s * 1000), max_buffer_size=_HEAD_BYTES
        ),
        http2_settings=HTTP2Settings(
            initial_connection_window_size=2 * _WINDOW_BYTES,
            initial_stream_window_size=_WINDOW_BYTES,
            max_concurrent_streams=settings.limits.max_connections,
            max_headers_size=_HEAD_BYTES,
        ),
        workers_kill_timeout=int(settings.deadlines.total_s) + _SPARE_S,
        log_level=LogLevels.warning,
        log_dictconfig=_STDERR_LOG,
    )
    server.announcing = Thread(target=_announce_when_up, args=(url, announce), daemon=True)
    server.serve()


_ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Those that end the service come when this is over; to threads and workers that were begun meanwhile, never."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _heard_once(loop: asyncio.AbstractEventLoop) -> "_granian.WorkerSignal":
    """The server's own signal that ends it, set once however many come.

    Who stops a process group ends the worker, and so does the main process then: set twice before it serves, the
    server's signal would not return.
    """
    ending = _granian.WorkerSignal()
    is_set = False

    def end() -> None:
        nonlocal is_set
        if not is_set:
            is_set = True
            ending.set()

    for number in _ENDING:
        loop.add_signal_handler(number, end)
    return ending


def _worker(*arguments: Any) -> None:
    """What a worker does. While it is starting SIGTERM ends it at once, and so does one that came before that.

    It was forked with the main process's own handlers, and would take the signal for one to that. Ctrl-C reaches both:
    the main process sees to it.
    """
    _signals.set_loop_signals = _heard_once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    MPServer._spawn_asgi_lifespan_worker(*arguments)  # noqa: SLF001  # what this stands for


class _Announced(MPServer):
    """Starts a thread once the worker has been forked.

    A hook of Granian's would start it before, and a lock that it held in that moment would be held in the worker for
    good: that of a module being imported, for one.

    Signals are for the main thread alone. Python acts on them there, and it would sleep on when the system gave one to
    another thread, as it does to a process that has just been stopped and continued.
    """

    announcing: Thread
    _spawn_asgi_lifespan_worker = staticmethod(_worker)

    def _stop_workers(self) -> None:
        """Ask them to end, and do not take one for alive that Granian's own thread is just about to find dead."""
        workers: list[Any] = self.wrks
        for worker in workers:
            worker.terminate()
        deadline_s = monotonic() + (self.workers_kill_timeout or 0)
        for worker in workers:
            worker.join(max(0, deadline_s - monotonic()))
            while worker.is_alive() and monotonic() < deadline_s:
                sleep(_POLL_S)
        super()._stop_workers()  # type: ignore[no-untyped-call]  # Granian has no types there

    def _spawn_worker(self, *arguments: Any, **named: Any) -> Any:
        """One that is watched: if it was asked to end, by whoever stops the process group, so was the service.

        Granian would tell of a failure, and exit with 1, where it hears of the worker's end before its own signal.
        """
        worker: Any = super()._spawn_worker(*arguments, **named)
        watch = worker._watcher  # noqa: SLF001  # what is watched is said nowhere else

        def watch_for_end() -> None:
            worker.inner.join()
            if worker.inner.exitcode in {0, -signal.SIGTERM}:
                worker.interrupt_by_parent = True
                self.signal_handler_interrupt()  # type: ignore[no-untyped-call]
            watch()

        worker._watcher = watch_for_end  # noqa: SLF001
        return worker

    def _spawn_workers(self, *arguments: Any) -> None:
        with _signals_held_back():
            super()._spawn_workers(*arguments)  # type: ignore[no-untyped-call]  # Granian has no types there
            self.announcing.start()


def _announce_when_up(url: str, announce: Callable[[str], None]) -> None:
    """Granian does not say when its worker answers; so it is asked until it does."""
    while True:
        try:
            with open_directly(f"{url}/health/live", timeout=_STARTING_S):
                return announce(url)
        except OSError:
            sleep(_POLL_S)


def _free_port(host: str, port: int) -> tuple[socket.AddressFamily, str, int]:
    """Where to listen: the address of `host` and the port, which is free now.

    Granian would share a taken one with whoever has it, and each would get some requests.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.create_server(place[:2], family=family) as probe:
            address, found = probe.getsockname()[:2]
            return family, address, found
    except OSError as error:
        reason = str(error.strerror).partition(" (while attempting")[0]  # socket.create_server says the address again
        raise PortTaken(f"{host}:{port} cannot be listened on: {reason}") from error
