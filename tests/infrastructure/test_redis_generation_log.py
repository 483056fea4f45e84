"""What the log leaves in Redis, and for how long."""

import asyncio
import time
from dataclasses import replace

import pytest

from domain.caching import Purge
from domain.chat import Chunk
from domain.errors import StreamUnavailable
from domain.events import StoreFailed
from domain.generation import Reader, Sealed, State
from domain.ports import Recording
from infrastructure.redis.follower import SLICE_BYTES
from infrastructure.redis.generation_log import UNFOLLOWED_MS
from infrastructure.redis.keys import followed_key, lease_key, log_key, stream_key, tag_of
from infrastructure.redis.scripts import READ
from infrastructure.redis.wire import encode_record
from infrastructure.redis.writer import MAX_UNWRITTEN, UNKEPT_MS, UNKEPT_WAIT_S
from tests.contracts.test_generation_log import QUESTION, opened
from tests.loops import settle
from tests.proxies import Proxy
from tests.redis_instances import TTL_S, redis_instances, until
from tests.redis_servers import net_output_bytes

pytestmark = pytest.mark.anyio
DONE = Sealed(state=State.DONE)


async def keys(instance):
    """What is in Redis, but for what says that an instance lives."""
    return {key for key in await instance.client.submit("KEYS", "*") if not key.startswith(b"weir:instance")}


async def test_what_must_not_be_kept_is_read_to_its_end_and_then_gone(own_redis):
    """`no-store`: who follows it elsewhere gets all of it, and a moment later nothing tells that it was."""
    private = replace(opened("g", is_shared=False), is_kept=False)
    async with redis_instances(own_redis.url, "one", "two") as [one, two]:
        claim = await one.log.claim(private, QUESTION)
        followed = await two.log.find("g")
        for record in (Chunk("x"), DONE):
            await one.log.append(claim.lease, record)
        await until(lambda: followed.sealed is not None)
        left_ms = [await one.client.submit("PTTL", key) for key in (log_key(tag_of(private), "g"), stream_key("g"))]

        assert followed.records == [private, Chunk("x"), DONE]
        assert max(left_ms) <= UNKEPT_MS
        own_redis.until("+none", "TYPE", log_key(tag_of(private), "g"))
        own_redis.until("+none", "TYPE", stream_key("g"))
        own_redis.until("+none", "TYPE", followed_key(tag_of(private)))
        assert await keys(one) == set()
        assert [await each.log.find("g") for each in (one, two)] == [None, None]


async def test_what_may_be_kept_is_kept_for_its_time(redis_server):
    """Who was reading can come back; asked past the cache or not."""
    async with redis_instances(redis_server.url, "one") as [one]:
        for name, is_shared in (("a", True), ("b", False)):
            claim = await one.log.claim(opened(name, is_shared=is_shared), QUESTION)
            await one.log.append(claim.lease, DONE)
            left_ms = await one.client.submit("PTTL", log_key(tag_of(claim.generation.opened), name))
            assert left_ms > (TTL_S - 5) * 1000


async def test_a_lease_that_redis_has_lost_is_made_anew_with_the_request(redis_server):
    """As after a failover to a replica that lagged: others still find what is being answered, and can go on with it."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened("g"), QUESTION)
        key = lease_key(tag_of(claim.generation.opened))
        fields = ("id", "epoch", "owner", "request")
        before = await one.client.submit("HMGET", key, *fields)
        await one.client.submit("DEL", key)
        await one.log.append(claim.lease, Chunk("x"))
        await until(lambda: len(claim.generation.records) > 1)

        assert await one.client.submit("HMGET", key, *fields) == before
        assert (await two.log.claim(opened("other"), QUESTION)).lease is None


A_MINUTE_S = 60.0


async def begun(instance, name="g"):
    """A claim whose first chunk has been told: what comes now lingers."""
    claim = await instance.log.claim(opened(name), QUESTION)
    await instance.log.append(claim.lease, Chunk("x"))
    await until(lambda: len(claim.generation.records) > 1)
    return claim


async def test_the_first_chunk_does_not_linger(redis_server):
    """Nor what came with it, nor when Redis has lost the lease meanwhile."""
    async with redis_instances(redis_server.url, "one", linger_s=A_MINUTE_S) as [one]:
        claim = await one.log.claim(opened("g"), QUESTION)
        await one.client.submit("DEL", lease_key(tag_of(claim.generation.opened)))
        for chunk in (Chunk("x"), Chunk("y")):
            await one.log.append(claim.lease, chunk)
        await until(lambda: claim.generation.records[1:] == [Chunk("x"), Chunk("y")])


async def test_the_end_does_not_linger_nor_wait_for_what_does(redis_server):
    """Nor does who goes on elsewhere."""
    async with redis_instances(redis_server.url, "one", linger_s=A_MINUTE_S) as [one]:
        claim = await begun(one)
        await one.log.append(claim.lease, Chunk("y"))
        assert len(claim.generation.records) == 2
        await one.log.append(claim.lease, DONE)
        assert claim.generation.records[1:] == [Chunk("x"), Chunk("y"), DONE]

        left = await begun(one, "left")
        await one.log.append(left.lease, Chunk("y"))
        assert await one.log.can_go_on_elsewhere(left.generation)
        assert left.generation.records[1:] == [Chunk("x"), Chunk("y")]


async def test_a_chunk_that_comes_while_others_are_written_leaves_with_whatever_leaves_next(redis_server):
    """In one append with all that came."""
    async with redis_instances(redis_server.url, "one", linger_s=A_MINUTE_S) as [one]:
        claim = await begun(one)
        for text in "yz":
            await one.log.append(claim.lease, Chunk(text))
        before = claim.generation.records.copy()
        await one.client.submit("PING")

        assert before == [opened("g"), Chunk("x")]
        await until(lambda: claim.generation.records == [*before, Chunk("y"), Chunk("z")])


async def test_what_redis_misses_does_not_linger(redis_server):
    """Neither what it lost, in however many slices, nor what stands behind a generation that goes on."""
    async with redis_instances(redis_server.url, "one", "two", linger_s=A_MINUTE_S) as [one, two]:
        running = await begun(one, "running")
        claim = await one.log.claim(replace(opened("long"), fingerprint="another"), QUESTION)
        for number in range(100):
            await one.log.append(claim.lease, Chunk(f"{number}" * 1000))
        assert await one.log.can_go_on_elsewhere(claim.generation)
        redis_server.flush()
        await one.log.append(running.lease, Chunk("y"))
        for name in ("running", "long"):
            one.log.refresh(one.log._roll.get(name))
        log = log_key(tag_of(claim.generation.opened), "long")
        async with asyncio.timeout(5):
            while await two.client.submit("XLEN", log) < 101:
                pass

        assert (await two.log.find("long")).records == claim.generation.records


async def test_a_claim_says_whether_an_answer_is_stored(redis_server):
    """Who looked before it was stored, and claims the question after, need not ask again; others need not look."""
    async with redis_instances(redis_server.url, "one") as [one]:
        first = await one.log.claim(opened("a"), QUESTION)
        await one.log.append(first.lease, DONE)
        await one.cache.put(first.generation.opened.fingerprint, Recording(first.generation, time.time()))
        second = await claimed_anew(one)

        assert (first.may_be_stored, second.may_be_stored) == (False, True)


async def claimed_anew(instance):
    """The claim of who leads next, once the question is free."""
    while not (claim := await instance.log.claim(opened("b"), QUESTION)).lease:
        pass
    return claim


@pytest.mark.parametrize("value", [b"garbage", b"", encode_record(DONE), encode_record(Chunk("x"))[:-1]])
async def test_a_log_that_cannot_be_read_is_not_found(redis_server, value):
    """Whatever somebody has put there, nobody gets an error."""
    async with redis_instances(redis_server.url, "one") as [one]:
        await one.client.submit("SET", stream_key("g"), "q")
        await one.client.submit("XADD", log_key("q", "g"), "1-0", "r", value)

        assert await one.log.find("g") is None


async def test_a_stream_that_means_nothing_is_not_found(redis_server):
    """Its id stands for what nobody has written."""
    async with redis_instances(redis_server.url, "one") as [one]:
        await one.client.submit("SET", stream_key("g"), b"\xffgarbage")

        assert await one.log.find("g") is None


async def test_whose_answer_it_is_is_known_elsewhere(redis_server):
    """Another scope's stream is refused by whichever instance is asked for it."""
    private = replace(opened("g"), scope="user:a", user="a")
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        await one.log.claim(private, QUESTION)
        found = await two.log.find("g")

    assert (found.opened.scope, found.opened.user) == ("user:a", "a")


async def test_what_was_not_heard_of_is_caught_up_with(redis_server):
    """A client that has seen more elsewhere than this instance has heard of is in the right."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened("g"), QUESTION)
        followed = await two.log.find("g")
        await two.subscriptions.close()
        await one.log.append(claim.lease, Chunk("x"))
        await until(lambda: len(claim.generation.records) == 2)

        await two.log.catch_up(followed, 1)

        assert followed.records == claim.generation.records


async def test_what_its_leader_could_not_write_yet_may_still_come(redis_server):
    """Who has seen it there, and comes here before Redis is back, is not told that it never was; nor for good."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened("g"), QUESTION)
        followed = await two.log.find("g")
        with pytest.raises(StreamUnavailable):
            await two.log.catch_up(followed, 1)
        two.client.is_away = True
        with pytest.raises(StreamUnavailable):
            await two.log.catch_up(followed, 1)
        two.client.is_away = False
        await one.log.append(claim.lease, DONE)
        await until(lambda: followed.sealed is not None)

        await two.log.catch_up(followed, 9)


async def test_while_redis_is_away_nobody_can_tell_that_there_is_no_such_stream(redis_server):
    """A client that is told so for good would give up what it can read in a moment."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened("g"), QUESTION)
        for each in (one, two):
            each.client.is_away = True
        assert await one.log.find("g") is claim.generation
        with pytest.raises(StreamUnavailable):
            await two.log.find("g")
        for each in (one, two):
            each.client.is_away = False
        assert await two.log.find("g") is not None
        assert await two.log.find("nobody") is None


async def test_who_is_gone_on_without_finishes_alone(redis_server):
    """Who follows while Redis is away for long, and a leader that another has replaced when it had told more."""
    async with redis_instances(redis_server.url, "one", "two", "three") as [one, two, three]:
        claim = await begun(one)
        generations = [claim.generation, await two.log.find("g"), await three.log.find("g")]
        await two.log.take_over(two.log._roll.get("g"), is_cut_off=True)
        one.client.is_away = True
        await one.log.append(claim.lease, Chunk("y"))
        await until(lambda: len(claim.generation.records) == 3)
        lease = await three.take_over("g")
        await three.log.append(lease, Chunk("z"))
        one.client.is_away = False
        one.log.refresh(one.log._roll.get("g"))
        await until(lambda: claim.generation.is_alone)

    assert [each.is_alone for each in generations] == [True, True, False]


async def test_who_was_told_otherwise_than_what_another_has_written_anew_has_the_rest_alone(redis_server):
    """Redis has lost the log, and who answers the question now has written another under its id."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await begun(one)
        followed, log = await two.log.find("g"), log_key(tag_of(claim.generation.opened), "g")
        await two.client.submit("DEL", log)
        for entry, record in enumerate((claim.generation.opened, Chunk("other")), 1):
            await two.client.submit("XADD", log, f"{entry}-0", "r", encode_record(record))
        known = two.log._roll.get("g")
        known.written = 0
        two.log.refresh(known)
        await until(lambda: followed.is_alone)
        with pytest.raises(StreamUnavailable):
            await two.log.catch_up(followed, 9)


async def claimed_apart(instance, name):
    """What an instance leads that could not ask Redis whether another does."""
    instance.client.is_away = True
    claim = await instance.log.claim(opened(name), QUESTION)
    instance.client.is_away = False
    return claim


async def test_two_that_answer_one_question_apart_are_both_found_elsewhere(redis_server):
    """While they run and afterwards: whoever reads either may come back to any instance."""
    async with redis_instances(redis_server.url, "one", "two", "three") as [one, two, three]:
        claims = [await one.log.claim(opened("g"), QUESTION), await claimed_apart(two, "h")]
        for claim, leader in zip(claims, (one, two), strict=True):
            await leader.log.append(claim.lease, Chunk(leader.name))
            await until(lambda claim=claim: len(claim.generation.records) == 2)
        found = [await three.log.find(name) for name in ("g", "h")]
        for claim, leader in zip(claims, (one, two), strict=True):
            await leader.log.append(claim.lease, DONE)
        await until(lambda: all(each.sealed for each in found))
        async with redis_instances(redis_server.url, "late") as [late]:
            later = [await late.log.find(name) for name in ("g", "h")]

    records = [claim.generation.records for claim in claims]
    assert [each.records for each in found] == [each.records for each in later] == records


async def test_one_that_is_answered_apart_is_gone_on_with_when_its_leader_is_gone(redis_server):
    """By whoever reads it, beside the one that has its question."""
    async with redis_instances(redis_server.url, "one", "two", "three") as [one, two, three]:
        await one.log.claim(opened("g"), QUESTION)
        lost = await claimed_apart(two, "h")
        await two.log.append(lost.lease, Chunk("x"))
        await until(lambda: len(lost.generation.records) == 2)
        found = await three.log.find("h")
        lease = await three.take_over("h")
        await three.log.append(lease, DONE)

        assert found.records == [opened("h"), Chunk("x"), DONE]
        assert three.requests == [QUESTION]
        assert (await two.log.under_way("q")) is lost.generation
        assert (await one.log.under_way("q")).opened == opened("g")


async def test_who_comes_here_while_the_question_is_closed_has_it_open_again(redis_server):
    """Else the next who asks elsewhere would pay for a second answer."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened("g"), QUESTION)
        closing = asyncio.ensure_future(one.log.is_read_elsewhere(claim.generation))
        reader = Reader(claim.generation)
        assert not await closing
        assert (await two.log.claim(opened("other"), QUESTION)).lease is None
        reader.close()


async def followed(one, two):
    """What `one` leads, `two` follows, and `one` has been told so."""
    claim = await one.log.claim(opened("g"), QUESTION)
    await two.log.claim(opened("other"), QUESTION)
    assert await one.log.is_read_elsewhere(claim.generation)
    return claim


async def test_what_was_followed_may_be_until_nobody_has_been_seen_to_for_long(redis_server):
    """An instance that stands still for some seconds says nothing, and has readers who wait for it."""
    async with redis_instances(redis_server.url, "one", "two", "three", "four") as [one, two, three, four]:
        claim = await followed(one, two)
        tag = tag_of(claim.generation.opened)
        await one.client.submit("DEL", followed_key(tag))
        looks = [await one.log.is_read_elsewhere(claim.generation) for _ in range(2)]
        await pass_unfollowed(one, tag)
        is_joined = (await three.log.claim(opened("third"), QUESTION)).lease is None
        await one.client.submit("DEL", followed_key(tag))
        looks.append(await one.log.is_read_elsewhere(claim.generation))
        await pass_unfollowed(one, tag)

        assert (looks, is_joined) == ([True] * 3, True)
        assert not await one.log.is_read_elsewhere(claim.generation)
        assert (await four.log.claim(opened("fourth"), QUESTION)).lease is not None


async def pass_unfollowed(instance, tag):
    """It is a while ago that nobody was first seen to follow."""
    since_ms = int(await instance.client.submit("HGET", lease_key(tag), "unfollowed_ms"))
    await instance.client.submit("HSET", lease_key(tag), "unfollowed_ms", since_ms - UNFOLLOWED_MS)


async def test_who_joins_by_the_streams_id_follows_too(redis_server):
    """It counts anew from then on."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened("g"), QUESTION)
        tag = tag_of(claim.generation.opened)
        await two.log.find("g")
        await one.client.submit("DEL", followed_key(tag))

        assert await one.log.is_read_elsewhere(claim.generation)


@pytest.mark.parametrize("is_written_again", [False, True])
async def test_a_redis_that_was_emptied_says_nothing_of_who_follows(redis_server, is_written_again):
    """They have not had the time to say so again, however soon the leader has."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await followed(one, two)
        await one.client.submit("DEL", followed_key(tag_of(claim.generation.opened)))
        await one.log.is_read_elsewhere(claim.generation)
        await pass_unfollowed(one, tag_of(claim.generation.opened))
        redis_server.flush()
        if is_written_again:
            await one.log.append(claim.lease, Chunk("x"))
            await until(lambda: len(claim.generation.records) == 2)

        assert await one.log.is_read_elsewhere(claim.generation)


async def test_while_redis_is_away_what_is_in_it_may_be_read(redis_server):
    """And just after its return: it may be a replica that has not heard of all. What was never in it may not."""
    async with redis_instances(redis_server.url, "one") as [one]:
        claim = await one.log.claim(opened("g"), QUESTION)
        one.client.is_away = True
        unwritten = await one.log.claim(opened("h", "r"), QUESTION)
        looks = [await one.log.is_read_elsewhere(each.generation) for each in (claim, unwritten)]
        one.client.is_away = False
        for returned in one.client.on_return:
            returned()
        looks.append(await one.log.is_read_elsewhere(claim.generation))

        assert looks == [True, False, True]


async def test_when_redis_does_not_answer_it_may_be_read(own_redis):
    """No answer is none."""
    async with redis_instances(own_redis.url, "one") as [one]:
        claim = await one.log.claim(opened("g"), QUESTION)
        own_redis.stop()

        assert await one.log.is_read_elsewhere(claim.generation)


async def led(instance, *contents):
    """A generation with those chunks, all in Redis."""
    claim = await instance.log.claim(opened("g"), QUESTION)
    for content in contents:
        await instance.log.append(claim.lease, Chunk(content))
    await until(lambda: len(claim.generation.records) == 1 + len(contents))
    return claim


async def test_however_many_join_at_once_the_log_is_read_once(redis_server):
    """Nor is it read anew because one of them leaves."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await led(one, *map(str, range(3000)))
        sent_bytes = net_output_bytes(redis_server)
        first, *others = [asyncio.ensure_future(two.log.under_way("q")) for _ in range(100)]
        by_id = [asyncio.ensure_future(two.log.find("g")) for _ in range(100)]
        await until(lambda: two.log._follower._joining._under_way)
        first.cancel()
        joined = await asyncio.gather(*others, *by_id)

        assert net_output_bytes(redis_server) - sent_bytes < 300_000
        assert first.cancelled()
        assert {each.opened.generation_id for each in joined} == {"g"}
        assert len({id(each) for each in joined}) == 1
        assert joined[0].records == claim.generation.records


@pytest.mark.parametrize("contents", [["x" * 1000] * 300, ["x" * (2 * SLICE_BYTES)] * 3, [""] * 2000])
async def test_a_log_is_read_in_slices(redis_server, contents):
    """No answer of Redis is so large that it takes too long; what is larger by itself is read all the same."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await led(one, *contents)
        log = log_key("q", "g")
        is_more, request, told = await one.client.submit_script(READ, (log, lease_key("q")), "g", "1-0", SLICE_BYTES)
        found = await two.log.find("g")
        lease = await two.take_over("g")

        assert (is_more, request) == (1, b"")
        assert len(told) == 2 or sum(len(data) for _, data in told) <= SLICE_BYTES + 2000
        assert found.records == claim.generation.records
        assert (lease is not None, two.requests) == (True, [QUESTION])


async def test_much_that_was_not_heard_of_is_caught_up_with(redis_server):
    """As when this instance stood still for a while."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claim = await led(one, "x")
        found = await two.log.find("g")
        await two.subscriptions.close()
        for number in range(500):
            await one.log.append(claim.lease, Chunk(str(number)))
        await until(lambda: len(claim.generation.records) == 502)
        two.log.refresh(two.log._roll.get("g"))
        await until(lambda: len(found.records) == 502)

        assert found.records == claim.generation.records


async def test_a_log_that_goes_on_behind_its_end_is_not_found(redis_server):
    """Somebody else has written it."""
    async with redis_instances(redis_server.url, "one") as [one]:
        await one.client.submit("SET", stream_key("g"), "q")
        for at, record in enumerate([opened("g"), DONE, Chunk("x")], 1):
            await one.client.submit("XADD", log_key("q", "g"), f"{at}-0", "r", encode_record(record))

        assert await one.log.find("g") is None


async def test_what_ended_without_redis_waits_for_it_within_the_bounds_of_memory(redis_server):
    """However long it is away: of those that had to go from memory nothing is left."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        one.client.is_away = True
        largest = "x" * 4_000_000
        for name in "abcdefgh":
            claim = await one.log.claim(opened(name, name), QUESTION)
            await one.log.append(claim.lease, Chunk(largest))
            await one.log.append(claim.lease, DONE)
        waiting = [known.generation_id for known in one.log._roll]
        one.client.is_away = False
        one.log._catch_up()
        await until(lambda: not list(one.log._roll), limit_s=20)

        assert waiting == ["e", "f", "g", "h"]
        assert (await two.log.find("h")).records == claim.generation.records
        assert await two.log.find("a") is None


async def ended(instance, name, *, text="x", is_kept=True, request=QUESTION):
    """An answer that has ended there."""
    claim = await instance.log.claim(replace(opened(name, name), is_shared=is_kept, is_kept=is_kept), request)
    for record in (Chunk(text), DONE):
        await instance.log.append(claim.lease, record)
    return claim.generation


def waiting_bytes(instance):
    """What all that waits for Redis there takes."""
    return sum(known.generation.size_bytes for known in instance.log._roll)


async def test_what_waits_for_redis_waits_once_however_often_it_is_looked_after(redis_server):
    """Each beat looks; for as long as Redis is away, nothing is taken for one more that waits."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        one.client.is_away = True
        answers = [await ended(one, name) for name in "abc"]
        for _ in range(MAX_UNWRITTEN // 2):
            one.log._catch_up()
        one.client.is_away = False
        one.log._catch_up()
        await until(lambda: not list(one.log._roll))

        assert [(await two.log.find(name)).records for name in "abc"] == [each.records for each in answers]
        assert len(one.log._writer._unwritten) == 0


@pytest.mark.parametrize("unkept_every", [1, 40])
async def test_what_must_not_be_kept_waits_within_the_same_bounds(redis_server, unkept_every):
    """Whatever else waits, and in which order: nobody can fill the memory of an instance without Redis."""
    async with redis_instances(redis_server.url, "one") as [one]:
        for _ in range(2):
            one.client.is_away = True
            for at in range(40):
                await ended(one, f"g{at}", text="x" * 1_000_000, is_kept=bool(at % unkept_every))
            assert 0 < waiting_bytes(one) <= one.generations.max_bytes
            one.client.is_away = False
            one.log._catch_up()
            await until(lambda: not list(one.log._roll), limit_s=20)

            assert len(one.log._writer._unwritten) == one.log._writer._unwritten.size_bytes == 0


async def test_the_requests_of_what_waits_are_counted_too(redis_server):
    """They may be larger than their answers."""
    large = replace(QUESTION, messages=({"role": "user", "content": "x" * 1_000_000},))
    async with redis_instances(redis_server.url, "one") as [one]:
        one.client.is_away = True
        for at in range(120):
            await ended(one, f"g{at}", request=large)

        assert sum(len(known.request) for known in one.log._roll) <= one.generations.max_bytes


async def test_what_was_purged_before_it_could_be_written_is_asked_anew(redis_server):
    """It is held still, in case it has not been stored yet; what ended after the purge is joined."""
    async with redis_instances(redis_server.url, "one", "two") as instances:
        one, two = instances
        claim = await one.log.claim(replace(opened("g"), created_at_s=1000.0), QUESTION)
        one.client.is_away = True
        await one.log.append(claim.lease, replace(DONE, duration_s=24.0))
        await settle()
        one.client.is_away = False
        one.log._catch_up()
        await until(lambda: not list(one.log._roll))

        for instance in instances:
            instance.purges.add(Purge(at_s=1023.0))
        assert (await two.log.claim(opened("joins"), QUESTION)).lease is None
        for instance in instances:
            instance.purges.add(Purge(at_s=1024.0))
        anew = await two.log.claim(opened("anew"), QUESTION)
        assert anew.lease
        assert (await one.log.claim(opened("follows"), QUESTION)).generation.opened == opened("anew")
        assert (await one.log.find("g")) is claim.generation


async def test_what_must_not_be_kept_is_told_elsewhere_when_redis_is_back_soon(redis_server):
    """Who follows it there would wait for ever for its end; later that one has gone on alone, and none is left here."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        claims = [
            await one.log.claim(replace(opened(name), is_shared=False, is_kept=False), QUESTION) for name in ("g", "h")
        ]
        followed = await two.log.find("g")
        one.client.is_away = True
        for claim in claims:
            await one.log.append(claim.lease, DONE)
        late = one.log._roll.get("h")
        assert late.wanted_until_s - asyncio.get_running_loop().time() <= UNKEPT_WAIT_S
        late.wanted_until_s = 0.0
        one.client.is_away = False
        one.log._catch_up()
        await until(lambda: followed.sealed is not None)

        assert not list(one.log._roll)


async def test_a_backlog_is_written_over_a_slow_link(redis_server):
    """Slice by slice, at whatever speed the link has: Redis does not count as away for it."""
    large = replace(QUESTION, messages=({"role": "user", "content": "x" * 30_000},))
    proxy = Proxy(redis_server.port, bytes_per_s=1_000_000)
    try:
        async with (
            redis_instances(f"redis://127.0.0.1:{proxy.port}", "one") as [one],
            redis_instances(redis_server.url, "two") as [two],
        ):
            one.client.is_away = True
            for at in range(40):
                await ended(one, f"g{at}", request=large)
            long = await ended(one, "long", text="x" * 400_000)
            running = await one.log.claim(opened("running", "running"), large)
            for _ in range(1000):
                await one.log.append(running.lease, Chunk("x" * 400))
            one.client.is_away = False
            one.log._catch_up()
            await until(lambda: [each.generation_id for each in one.log._roll] == ["running"], limit_s=20)
            await until(lambda: one.log._roll.get("running").is_written, limit_s=20)

            assert not one.events.of(StoreFailed)
            assert (await two.log.find("long")).records == long.records
            assert (await two.log.find("g39")).sealed
            assert (await two.log.find("running")).records == running.generation.records
    finally:
        proxy.close()
