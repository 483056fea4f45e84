"""What is refused in a crowd before it has been read."""

import asyncio
from types import SimpleNamespace

import pytest
from litestar import Litestar, Request, post
from litestar.datastructures import State

from app.connections import Connections
from app.crowds import refuse_unread
from app.edge import Edge
from app.errors import on_weir_error
from domain.chat import Caller
from domain.errors import AtCapacity, WeirError
from tests.loops import run, settle

ANN = Caller(user="ann")
AT_ONCE = 4


class Full:
    """A lifecycle that has room for nobody."""

    def check_room(self, caller, thread_id):
        assert (caller, thread_id) == (ANN, "t")
        raise AtCapacity(1.0)


@post("/")
async def ask(request: Request) -> None:
    refuse_unread(request.scope, request.app.state.service, ANN)
    await request.body()


async def never():
    await asyncio.Event().wait()


async def asked(count, headers):
    """What so many requests are told that come at once, and whose bodies do not come."""
    service, told = SimpleNamespace(lifecycle=Full()), []
    litestar = Litestar([ask], state=State({"service": service}), exception_handlers={WeirError: on_weir_error})
    edge = Edge(litestar, [].append, Connections(idle_s=1.0, places=1))

    async def send(message):
        if message["type"] == "http.response.start":
            told.append(message["status"])

    def scope():
        where = {"path": "/", "raw_path": b"/", "root_path": "", "query_string": b"", "client": ("192.0.2.1", 1)}
        given = {"method": "POST", "http_version": "1.1", "headers": [(b"x-thread-id", b"t"), *headers]}
        return {"type": "http", **where, **given}

    tasks = [asyncio.create_task(edge(scope(), never, send)) for _ in range(count)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return told


def test_who_had_to_wait_and_has_no_slot_to_come_is_told_at_once():
    """Its body would only keep others waiting; who did not have to wait is read as ever."""
    assert run(asked(20, [(b"content-length", b"4096")])) == [503] * (20 - AT_ONCE)


@pytest.mark.parametrize("headers", [[(b"content-length", b"4097")], []])
def test_a_long_body_is_read_in_a_crowd_too(headers):
    """Whoever is still sending it may not see the answer."""
    assert run(asked(20, headers)) == []
