"""The one client of a process, at its end."""

import asyncio

import pytest

from infrastructure.redis.client import MAX_BATCH, RedisAway
from infrastructure.redis.scripting import Script
from tests.proxies import Proxy
from tests.redis_instances import RedisInstance, until

pytestmark = pytest.mark.anyio


async def test_what_was_submitted_last_is_done_before_the_connections_are_closed(redis_server):
    """Nobody waits for a lease that is given back, and it has to be given back."""
    client = RedisInstance(redis_server.url, "i").client
    await client.submit("PING")
    under_way = client.submit("SET", "a", 1)
    await client.submit("PING")
    waiting = client.submit("SET", "b", 2)

    await client.close()

    assert under_way.result()
    assert waiting.result()


class Patient:
    """Has something for Redis that nobody waits for. `answers` are those to what it has submitted."""

    def __init__(self, client):
        self.client, self.count, self.answers = client, 0, []
        client.on_leaving.append(self._submit)

    def has_more(self, count=1):
        self.count += count
        self.client.linger()

    def _submit(self):
        count, self.count = self.count, 0
        self.answers += [self.client.submit("INCR", "n") for _ in range(count)]


async def test_what_lingers_leaves_with_what_does_not(redis_server):
    """In the same round trip."""
    client = RedisInstance(redis_server.url, "i", linger_s=60.0).client
    patient = Patient(client)
    await client.submit("PING")
    patient.has_more(3)
    pipeline, batches = client._connection.pipeline, []
    client._connection.pipeline = lambda transaction: batches.append(pipeline(transaction)) or batches[-1]
    await client.submit("PING")

    assert [each.result() for each in patient.answers] == [1, 2, 3]
    assert len(batches) == 1
    await client.close()


async def test_nothing_lingers_when_no_batch_has_left_for_long(redis_server):
    client = RedisInstance(redis_server.url, "i", linger_s=60.0).client
    patient = Patient(client)
    patient.has_more()
    await until(lambda: patient.answers and patient.answers[0].done())

    assert patient.answers[0].result() == 1
    await client.close()


async def test_what_lingers_leaves_by_itself_in_time_however_much_there_is(redis_server):
    client = RedisInstance(redis_server.url, "i", linger_s=0.02).client
    patient = Patient(client)
    for turn in range(1, 4):
        patient.has_more(MAX_BATCH + 1)
        await until(lambda: len(patient.answers) == turn * (MAX_BATCH + 1))  # noqa: B023  # it is awaited here
        assert await patient.answers[-1] == turn * (MAX_BATCH + 1)
    await client.close()


async def test_what_lingers_at_the_end_is_done_and_what_comes_later_is_refused(redis_server):
    """Whoever asks after the end is answered: an answer that never came would keep the process from ending."""
    client = RedisInstance(redis_server.url, "i", linger_s=60.0).client
    patient = Patient(client)
    await client.submit("PING")
    patient.has_more()
    await client.close()
    assert patient.answers[0].result() == 1

    patient.has_more()
    client.linger()
    with pytest.raises(RedisAway):
        await client.submit("PING")
    assert redis_server.ask("GET", "n") == b"$1\r\n1\r\n"


async def test_who_waits_for_a_batch_that_is_cancelled_is_told(redis_server):
    """As when the process ends: all its tasks are."""
    client = RedisInstance(redis_server.url, "i").client
    answer = client.submit("BLPOP", "nothing", 0)
    await until(lambda: client._sending)
    for batch in client._sending:
        batch.cancel()
    await asyncio.wait([answer], timeout=10)

    assert answer.cancelled()
    await client.close()


async def test_much_at_once_leaves_in_slices_and_is_answered_in_order(redis_server):
    """As after Redis was away: each slice has its own time."""
    client = RedisInstance(redis_server.url, "i").client
    counts = await asyncio.gather(*(client.submit("INCR", "n") for _ in range(10 * MAX_BATCH + 1)))
    await client.close()

    assert counts == list(range(1, 10 * MAX_BATCH + 2))


@pytest.mark.parametrize(("count", "size_bytes"), [(40, 30_000), (1, 1_000_000)])
async def test_much_leaves_over_a_slow_link_in_slices_that_have_their_time(redis_server, count, size_bytes):
    """A link that takes a second for all of it does not make Redis count as away."""
    proxy = Proxy(redis_server.port, bytes_per_s=1_000_000)
    try:
        client = RedisInstance(f"redis://127.0.0.1:{proxy.port}", "i").client
        said = await asyncio.gather(*(client.submit("SET", f"k{at}", "x" * size_bytes) for at in range(count)))
        await client.close()
    finally:
        proxy.close()

    assert said == [True] * count


SAY = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
SAY_AGAIN = Script("redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('RPUSH', KEYS[1], ARGV[1])")


async def test_scripts_that_the_server_does_not_know_yet_are_done_in_their_order(redis_server):
    """What is freed and then asked for, in one batch, is free."""
    client = RedisInstance(redis_server.url, "i").client
    redis_server.ask("SCRIPT", "FLUSH")
    await client.submit_script(SAY, ("l",), "a")
    said = [client.submit_script(SAY_AGAIN, ("l",), "b"), client.submit_script(SAY, ("l",), "c")]
    counts = await asyncio.gather(*said)
    await client.close()

    assert counts == [3, 4]


async def test_scripts_that_the_server_has_forgotten_are_done_all_the_same(redis_server):
    """After a restart, a failover or an operator's SCRIPT FLUSH."""
    client = RedisInstance(redis_server.url, "i").client
    await client.submit_script(SAY, ("l",), "a")
    redis_server.ask("SCRIPT", "FLUSH")

    assert await client.submit_script(SAY, ("l",), "b") == 2
    await client.close()
