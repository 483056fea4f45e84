"""The server's connections: those on which nothing is asked are closed.

The server itself has a deadline for the headers of HTTP/1.1, but none for what comes before it knows that it is
HTTP/1.1 (nothing at all, or the beginning of HTTP/2's preface), and none in HTTP/2. Nor does it say which connections
it has: they are looked up among the open files of this process.
"""

import asyncio
import errno
import fcntl
import os
import resource
import socket
import struct
import termios
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from domain.addresses import client_address

Client: TypeAlias = tuple[str, int]
"""Who has connected: address and port."""

_SPARE_CONNECTIONS = 4096
"""Connections that Granian holds beyond twice our own limit, idle ones and probes among them: ours answers, its own
hangs.
"""

_SPARE_FILES = 512
"""Open files that are no clients' connections: providers', Redis', pipes. One file more than there may be and even
closing a connection goes wrong; so the connections stop before.
"""

_LOOKS = 8
"""In the time that a connection may be idle it is looked at so often, if that is not more than once a second."""

_SOONEST_S = 0.25
"""No look is sooner after another, if there is room."""

_SLICE = 50
_SLICE_PAUSE_S = 0.005
"""So many files are looked at in one go, a few tenths of a millisecond, and then others have their turn."""

_CROWDED_RATIO, _RELIEVED_RATIO = 7 / 8, 3 / 4
"""Of all places: when more are taken, idle connections are closed until no more than that are."""

_LAG_S = 1.0
"""So long a request may be on its way to us when the process is busy, while its connection looks idle."""

_UNREAD_S = 60.0
"""A client that takes nothing for so long of what it has asked for counts as gone."""


def places(streams: int) -> int:
    """How many connections Granian holds for so many streams, with as many open files as the system allows."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted = 2 * streams + _SPARE_CONNECTIONS
    return wanted if most == resource.RLIM_INFINITY else max(min(wanted, most - _SPARE_FILES), 128)


class _Idle(NamedTuple):
    """A connection that asks nothing: since when, and how much its client has taken, if there is more for it."""

    file: int
    since_s: float
    taken_bytes: int | None


class Connections:
    """Closes connections on which nothing is asked for `idle_s`, within two seconds more.

    When nearly all `places` are taken it does so sooner: whoever has most idle ones loses the oldest of them.
    """

    def __init__(self, *, idle_s: float, places: int) -> None:
        self._idle_s = idle_s
        self._places = places
        self._under_way: dict[Client, int] = {}
        self._idle: dict[Client, _Idle] = {}
        self._closed: set[Client] = set()
        self._files = _Files(self._under_way)
        self._watching: asyncio.Task[None] | None = None

    def began(self, client: Client) -> None:
        """The client has asked for something; all its headers are here."""
        self._under_way[client] = self._under_way.get(client, 0) + 1
        self._idle.pop(client, None)

    def ended(self, client: Client) -> None:
        """That has been answered."""
        if (count := self._under_way.pop(client) - 1) > 0:
            self._under_way[client] = count

    def start(self) -> None:
        """Connections are watched, until `close`."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def drain(self) -> None:
        """The process is about to end: idle ones are closed soon. Granian would wait for their clients to do so.

        It closes the socket that it listens on next, by which what it has accepted is known: that is looked up now.
        """
        for _ in self._files.connections():
            pass
        self._idle_s = 0.0

    async def close(self) -> None:
        """They are watched no longer."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            is_crowded = await self._look()
            await asyncio.sleep(_SLICE_PAUSE_S if is_crowded else min(max(self._idle_s / _LOOKS, _SOONEST_S), 1.0))

    async def _look(self) -> bool:
        """All connections have been looked at, a few at a time, and those closed that have to be; whether many are."""
        now_s = asyncio.get_running_loop().time()
        idle: dict[Client, _Idle] = {}
        count = 0
        for number, (file, client) in enumerate(self._files.connections()):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(_SLICE_PAUSE_S)
            if client is not None and client not in self._closed:
                count += 1
            if client is not None and client not in self._under_way:
                idle[client] = self._still_idle(file, client, now_s)
        lasting = [(client, each) for client, each in idle.items() if each.since_s <= now_s - _LAG_S]
        self._idle, self._closed = idle, set()
        self._close(each for each in lasting if now_s - each[1].since_s >= self._limit_s(each[1]) + _LAG_S)
        if count > self._places * _CROWDED_RATIO:
            self._close(_greediest_first(lasting)[: count - int(self._places * _RELIEVED_RATIO)])
            return True
        return False

    def _still_idle(self, file: int, client: Client, now_s: float) -> _Idle:
        taken_bytes, known = _taken_bytes(file), self._idle.get(client)
        is_as_before = known is not None and known.taken_bytes == taken_bytes
        return _Idle(file, known.since_s if known and is_as_before else now_s, taken_bytes)

    def _limit_s(self, idle: _Idle) -> float:
        return self._idle_s if idle.taken_bytes is None else max(self._idle_s, _UNREAD_S)

    def _close(self, idle: Iterable[tuple[Client, _Idle]]) -> None:
        for client, each in idle:
            if client not in self._under_way:
                _shut_down(each.file, client)
                self._closed.add(client)


def _greediest_first(idle: list[tuple[Client, _Idle]]) -> list[tuple[Client, _Idle]]:
    """Those of whoever has most before those of others, the oldest first."""
    owners: dict[str, str] = {}
    owned: defaultdict[str, list[tuple[Client, _Idle]]] = defaultdict(list)
    for each in sorted(idle, key=lambda each: each[1].since_s, reverse=True):
        host = each[0][0]
        owner = owners.get(host) or owners.setdefault(host, client_address(host, (), ()))
        owned[owner].append(each)
    ranked = [(rank, each) for own in owned.values() for rank, each in enumerate(own)]
    ranked.sort(key=lambda ranked: -ranked[0])
    return [each for _, each in ranked]


class _Files:
    """The open files of this process, as far as they are connections that it has accepted.

    Those of clients in `under_way` are known without asking the system.
    """

    _GAP = 256
    """After so many numbers without a file there are no more: a new file gets the lowest number that is free."""

    def __init__(self, under_way: dict[Client, int]) -> None:
        self._under_way = under_way
        self._clients: dict[int, Client] = {}
        self._ports: set[int] = set()

    def connections(self) -> Iterator[tuple[int, Client | None]]:
        """Each number that a file may have, and who is at the other end of it."""
        clients, self._clients = self._clients, {}
        last, unused, file = max(clients, default=0), 0, 0
        while unused < self._GAP or file <= last:
            client = clients.get(file)
            if client is None or client not in self._under_way:
                is_open, client = self._look_up(file)
                unused = 0 if is_open else unused + 1
            else:
                unused = 0
            if client is not None:
                self._clients[file] = client
            yield file, client
            file += 1

    def _look_up(self, file: int) -> tuple[bool, Client | None]:
        """Whether there is such a file, and who is at the other end if it is a connection that was accepted."""
        try:
            found = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, file)
        except OSError as error:
            return error.errno != errno.EBADF, None
        try:
            return True, self._accepted(found)
        except OSError:
            return True, None
        finally:
            found.detach()

    def _accepted(self, found: socket.socket) -> Client | None:
        here = found.getsockname()
        if not isinstance(here, tuple):
            return None
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._ports.add(here[1])
            return None
        return _peer(found) if here[1] in self._ports else None


def _peer(connected: socket.socket) -> Client:
    """Who is at the other end, as the server names it: without the interface of a link-local address.

    Raises:
        OSError: nobody, any more.
    """
    there = connected.getpeername()
    return there[0].partition("%")[0], there[1]


def _taken_bytes(file: int) -> int | None:
    """What the client's system has taken of all that it was sent; None: there is no more for it.

    Source: Linux, include/uapi/linux/tcp.h: `tcpi_bytes_acked` is the 64 bits at 120 of `struct tcp_info`.
    """
    try:
        if fcntl.ioctl(file, termios.TIOCOUTQ, bytes(4)) == bytes(4):
            return None
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, os.dup(file)) as connected:
            return int(struct.unpack_from("Q", connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128), 120)[0])
    except (OSError, struct.error):
        return None


def _shut_down(file: int, client: Client) -> None:
    """The connection is closed, if it is that file still: the server sees its end, as if the client had closed it."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, os.dup(file)) as connected:
        if _peer(connected) == client:
            connected.shutdown(socket.SHUT_RDWR)
