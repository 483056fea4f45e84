"""Who begins when more begin at once than the loop can do at once."""

import asyncio

import pytest

from app.connections import Connections
from app.edge import Edge
from app.entrance import Entrance
from domain.addresses import network
from tests.loops import run


def unasked():
    pytest.fail("where nobody waits, nobody is asked where it comes from")


def begun(*addresses):
    """In which round of the loop each of these exchanges begins that come all at once."""

    async def play():
        entrance, rounds = Entrance(), {}
        turns = [
            (number, address, entrance.pass_by(lambda address=address: address))
            for number, address in enumerate(addresses)
        ]
        waiting = [(number, turn) for number, _, turn in turns if turn is not None]
        rounds |= {number: 0 for number, _, turn in turns if turn is None}
        for count in range(1, len(addresses) + 110):
            await asyncio.sleep(0)
            rounds |= {number: count for number, turn in waiting if turn.done() and number not in rounds}
        assert entrance.pass_by(unasked) is None
        return [rounds[number] for number in range(len(addresses))]

    return run(play())


def test_a_few_begin_at_once():
    """Nobody pays for a crowd that is not there."""
    assert begun("a", "a", "b", "a") == [0, 0, 0, 0]


def test_a_crowd_begins_a_few_at_a_time():
    """So that others have a turn in between."""
    assert begun(*"a" * 10) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_others_begin_at_once():
    """Wherever they stand behind the crowd."""
    assert begun(*"a" * 1000, "b", "c")[-2:] == [0, 0]


def test_many_others_begin_in_turn():
    """Each of them soon; all at once they would be a crowd too."""
    assert begun(*"a" * 1000, *"bcdefghi")[-8:] == [0, 0, 0, 0, 2, 3, 4, 5]


def test_a_crowd_begins_one_at_a_time_when_others_come():
    """They have more to do than to begin, and each of its steps waits for a round; then the crowd goes on as before."""
    rounds = begun(*"a" * 150, "b")
    assert rounds[:103] == [0, 0, 0, 0, *range(1, 100)]
    assert rounds[103:] == [100 + number // 4 for number in range(47)] + [0]


def test_who_is_cancelled_keeps_nobody_waiting():
    """Its turn is the next one's."""

    async def play():
        entrance = Entrance()
        turns = [entrance.pass_by(lambda: "a") for _ in range(6)]
        turns[4].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return turns[5].done()

    assert run(play())


@pytest.mark.parametrize(("trusted", "order"), [(("10.0.0.0/8",), "aaaabaaaa"), ((), "aaaaaaaab")])
def test_behind_a_proxy_it_is_the_clients_address_that_counts(trusted, order):
    """If the proxy is trusted; if not, all there is of others is its own."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["query_string"].decode())

    async def play():
        edge = Edge(app, [].append, Connections(idle_s=1.0, places=1), trusted=tuple(map(network, trusted)))
        await asyncio.gather(*(edge(asked(name), None, None) for name in "aaaaaaaab"))

    def asked(name):
        headers = [(b"x-forwarded-for", b"192.0.2.%d" % ord(name))]
        return {"type": "http", "client": ("10.0.0.1", 1), "headers": headers, "query_string": name.encode()}

    run(play())
    assert "".join(seen) == order
