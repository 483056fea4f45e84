"""The server's connections: those on which nothing is asked are closed."""

import asyncio
import socket
from contextlib import ExitStack, suppress

import pytest

from app.connections import Connections
from tests.loops import run

IDLE_S = 64.0
PLACES = 16


class Accepted:
    """A connection that this process has accepted, from its client's side."""

    def __init__(self, server, address="127.0.0.1"):
        self.socket = socket.create_connection(server.getsockname(), source_address=(address, 0))
        self.accepted, _ = server.accept()
        self.accepted.setblocking(False)  # noqa: FBT003  # the library's signature
        self.client = self.socket.getsockname()
        asyncio.get_running_loop().add_reader(self.accepted, self._end)

    def _end(self):
        """The server's part when it is told that the client has gone."""
        asyncio.get_running_loop().remove_reader(self.accepted)
        self.accepted.close()

    @property
    def is_open(self):
        try:
            return self.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True

    def take_all(self):
        with suppress(BlockingIOError):
            while self.socket.recv(65_536, socket.MSG_DONTWAIT):
                pass

    def close(self):
        self.socket.close()
        self.accepted.close()


@pytest.fixture
def connect():
    """Makes connections to a server of this process."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def connected(address="127.0.0.1"):
            connection = Accepted(server, address)
            stack.callback(connection.close)
            return connection

        yield connected


def watched(during):
    """What `during` does with connections that are watched."""

    async def watch():
        connections = Connections(idle_s=IDLE_S, places=PLACES)
        connections.start()
        try:
            await asyncio.sleep(2.0)
            return await during(connections)
        finally:
            await connections.close()

    return run(watch())


def test_a_connection_on_which_nothing_is_asked_is_closed(connect):
    """In its time, and not before."""

    async def idle(_):
        connection = connect()
        await asyncio.sleep(IDLE_S - 2.0)
        assert connection.is_open
        await asyncio.sleep(6.0)
        return connection.is_open

    assert not watched(idle)


def test_a_connection_on_which_something_is_asked_stays(connect):
    """However long it takes; it is idle from then on."""

    async def asking(connections):
        connection = connect()
        for _ in range(2):
            connections.began(connection.client)
        await asyncio.sleep(10 * IDLE_S)
        connections.ended(connection.client)
        await asyncio.sleep(10 * IDLE_S)
        assert connection.is_open
        connections.ended(connection.client)
        await asyncio.sleep(IDLE_S - 2.0)
        assert connection.is_open
        await asyncio.sleep(6.0)
        return connection.is_open

    assert not watched(asking)


def test_when_the_process_is_to_end_idle_connections_are_closed_soon(connect):
    """Those that are asked on stay."""

    async def draining(connections):
        idle, busy = connect(), connect()
        connections.began(busy.client)
        connections.drain()
        await asyncio.sleep(3.0)
        return idle.is_open, busy.is_open

    assert watched(draining) == (False, True)


def test_a_client_that_is_still_reading_its_answer_is_not_idle(connect):
    """The exchange is over when all has been given to the system; the client may need longer."""

    async def reading(_):
        connection = connect()
        for _ in range(4):
            connection.accepted.send(bytes(2_000_000))
            await asyncio.sleep(IDLE_S - 2.0)
            assert connection.is_open
            connection.take_all()
        await asyncio.sleep(2 * IDLE_S)
        connection.take_all()
        return connection.is_open

    assert not watched(reading)


def test_connections_that_were_not_accepted_are_left_alone(connect):
    """A provider's may be silent for as long as it likes."""

    async def silent(connections):
        connection = connect()
        connections.began(connection.client)
        await asyncio.sleep(10 * IDLE_S)
        connection.accepted.send(b"x")
        return connection.socket.recv(1)

    assert watched(silent) == b"x"


def test_when_places_run_out_whoever_has_most_idle_ones_loses_the_oldest(connect):
    """Who is being answered keeps its own, and so does who has few."""

    async def crowd(connections):
        busy, other = connect(), connect("127.0.0.3")
        connections.began(busy.client)
        await asyncio.sleep(4.0)
        greedy = []
        for _ in range(PLACES - 2):
            greedy.append(connect("127.0.0.2"))
            await asyncio.sleep(4.0)
        return busy.is_open, other.is_open, [each.is_open for each in greedy]

    assert watched(crowd) == (True, True, [False] * 3 + [True] * 11)


def test_as_long_as_there_are_places_idle_connections_keep_them(connect):
    """For as long as they may."""

    async def many(_):
        connections = [connect() for _ in range(PLACES * 7 // 8)]
        await asyncio.sleep(IDLE_S - 2.0)
        return [each.is_open for each in connections]

    assert all(watched(many))
