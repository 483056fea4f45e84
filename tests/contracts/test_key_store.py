"""The contract of domain.ports.KeyStore, in a file, on one Redis and on a cluster."""

import asyncio
import stat
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from domain.errors import KeysUnavailable
from domain.events import ComponentChanged
from domain.limiting import Rate
from infrastructure.memory.key_file import KeyFileError, read_keys
from infrastructure.memory.key_store import FileKeyStore
from infrastructure.redis import key_store as redis_keys
from infrastructure.redis.key_store import RedisKeyStore
from tests.api_keys import api_key
from tests.fakes import FakeClock, RememberedEvents
from tests.redis_instances import RedisInstance, until

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]

NOBODYS = "000000000000"
WHOLE, _ = api_key(
    user="ann@example.com",
    scope="acme",
    tier="premium",
    expires_at_s=2_000.0,
    rate=Rate(amount=10, per_s=60.0),
    tokens_per_minute=1_000,
    budget_usd_per_day=2.5,
    models=frozenset({"a", "b"}),
    created_at_s=900.0,
)
PLAIN, _ = api_key()


class InFile:
    """Two processes' views of one file; time passes when told to."""

    def __init__(self, path):
        self.path, self.clock, self.events = path, FakeClock(), RememberedEvents()
        path.touch()
        self.one, self.other = (FileKeyStore(path, publish=self.events.publish, clock=self.clock) for _ in range(2))

    async def until(self, condition):
        self.clock.advance(0.5)
        assert await condition()


class InRedis:
    """Two instances' views of one Redis, which hear of each other."""

    def __init__(self, *instances):
        self.instances = instances
        self.one, self.other = (redis_store(each) for each in instances)

    async def until(self, condition):
        async with asyncio.timeout(1.0):
            while not await condition():  # noqa: ASYNC110  # what is waited for happens in Redis
                await asyncio.sleep(0.002)


def redis_store(instance, clock=None):
    return RedisKeyStore(
        client=instance.client,
        events=instance.fleet_events,
        publish=instance.events.publish,
        clock=clock or asyncio.get_running_loop().time,
    )


@asynccontextmanager
async def at_redis(url):
    one, other = RedisInstance(url, "one"), RedisInstance(url, "other")
    both = InRedis(one, other)
    async with one.running(), other.running():
        both.one.start()
        both.other.start()
        try:
            yield both
        finally:
            await both.one.close()
            await both.other.close()


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def kept(request, tmp_path):
    if request.param == "memory":
        yield InFile(tmp_path / "keys")
        return
    async with at_redis(request.getfixturevalue(request.param).url) as both:
        yield both


async def test_a_key_is_found_as_it_was_added(kept):
    """By its id alone; whoever else looks."""
    for key in (WHOLE, PLAIN):
        assert await kept.one.add(key)

    for store in (kept.one, kept.other):
        assert await store.find(WHOLE.key_id) == WHOLE
        assert await store.find(PLAIN.key_id) == PLAIN
        assert await store.find(NOBODYS) is None


async def test_all_keys_can_be_listed_the_oldest_first(kept):
    """Revoked ones too."""
    assert await kept.one.all() == []
    for key in (PLAIN, WHOLE):
        await kept.one.add(key)
    await kept.one.revoke(PLAIN.key_id, 1_500.0)

    assert await kept.other.all() == [WHOLE, replace(PLAIN, revoked_at_s=1_500.0)]


async def test_an_id_is_given_once(kept):
    """Whoever has it keeps it."""
    await kept.one.add(PLAIN)

    assert not await kept.other.add(replace(WHOLE, key_id=PLAIN.key_id))
    assert await kept.one.find(PLAIN.key_id) == PLAIN


async def test_a_key_is_revoked_for_good(kept):
    """The first time counts; one that is not there cannot be."""
    await kept.one.add(PLAIN)
    revoked = replace(PLAIN, revoked_at_s=1_500.0)

    assert await kept.one.revoke(PLAIN.key_id, 1_500.0) == revoked
    assert await kept.other.revoke(PLAIN.key_id, 1_600.0) == revoked
    assert await kept.one.revoke(NOBODYS, 1_500.0) is None


async def test_a_key_that_was_seen_is_known_to_be_revoked_within_a_second(kept):
    """Wherever that was done."""
    await kept.one.add(PLAIN)
    for store in (kept.one, kept.other):
        assert (await store.find(PLAIN.key_id)).revoked_at_s is None
    await kept.other.revoke(PLAIN.key_id, 1_500.0)

    async def is_known():
        found = [await store.find(PLAIN.key_id) for store in (kept.one, kept.other)]
        return [key.revoked_at_s for key in found] == [1_500.0] * 2

    await kept.until(is_known)


async def test_an_id_that_was_nobodys_is_found_soon_after_it_was_given(kept):
    """A client that comes too early is not locked out."""
    assert await kept.other.find(PLAIN.key_id) is None
    await kept.one.add(PLAIN)

    async def is_known():
        return await kept.other.find(PLAIN.key_id) == PLAIN

    await kept.until(is_known)


# The file


@pytest.fixture
def file(tmp_path):
    return InFile(tmp_path / "keys")


async def test_a_file_that_is_made_is_for_its_owner_alone(tmp_path):
    """One that is changed keeps the mode that it has."""
    store = FileKeyStore(tmp_path / "new", publish=print, clock=FakeClock())
    await store.add(PLAIN)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600

    (tmp_path / "new").chmod(0o640)
    await store.add(WHOLE)

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


async def test_a_file_has_a_digest_and_no_key(tmp_path):
    """Whoever reads it cannot ask."""
    key, text = api_key()
    await FileKeyStore(tmp_path / "keys", publish=print, clock=FakeClock()).add(key)

    assert text.rpartition("_")[2] not in (tmp_path / "keys").read_text()
    assert key.digest in (tmp_path / "keys").read_text()


async def test_a_link_is_followed(tmp_path):
    """And stays one."""
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    store = FileKeyStore(tmp_path / "link", publish=print, clock=FakeClock())
    await store.add(PLAIN)
    await store.add(WHOLE)

    assert (tmp_path / "link").is_symlink()
    assert len(read_keys(tmp_path / "keys")) == 2


GOOD = '{"id":"aaaaaaaaaaaa","user":"ann","tier":"standard","created_at":"2026-11-23T00:00:00Z","sha256":"%s"}' % (
    "0" * 64
)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("weir_key", "not a JSON object"),
        ('{"id"', "not a JSON object"),
        ("\x00", "not a JSON object"),
        ("[]", "Expected `object`, got `array`"),
        (GOOD.replace('"ann"', "5"), "user: Expected `str`, got `int`"),
        (GOOD.replace('"user":"ann",', ""), "missing required field `user`"),
        (GOOD.replace("user", "usr"), "unknown field `usr`"),
        (GOOD.replace("ann", "a:b"), "user: 1 to 100 of"),
        (GOOD.replace("standard", "gold"), "tier: one of anonymous, standard, premium"),
        (GOOD.replace("00Z", "00"), "created_at: "),
        (GOOD.replace('"ann"', '"ann","rate":{"requests":0,"per_s":1}'), "rate: a rate allows at least one"),
        (GOOD, "id: an earlier line has it too"),
    ],
)
async def test_a_file_that_cannot_be_right_is_refused_with_line_and_field(tmp_path, line, said):
    """Without a word of what stands there."""
    (tmp_path / "keys").write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(KeyFileError) as refused:
        read_keys(tmp_path / "keys")

    assert f"{tmp_path}/keys: line 3: " in str(refused.value)
    assert said in str(refused.value)
    assert "weir_key" not in str(refused.value)


async def test_a_file_that_cannot_be_read_any_more_is_told_once_and_its_keys_go_on_for_a_while(file):
    """As when Redis is away."""
    await file.one.add(PLAIN)
    assert await file.other.find(PLAIN.key_id) == PLAIN
    file.path.write_text("half of a li")
    for _ in range(3):
        file.clock.advance(200.0)
        assert await file.other.find(PLAIN.key_id) == PLAIN
    file.clock.advance(400.0)
    with pytest.raises(KeysUnavailable):
        await file.other.find(PLAIN.key_id)
    [told] = file.events.of(ComponentChanged)
    assert told.component == "keys"
    assert "line 1: not a JSON object" in told.reason

    file.path.write_text("")
    file.clock.advance(0.5)

    assert await file.other.find(PLAIN.key_id) is None
    assert [event.is_degraded for event in file.events.of(ComponentChanged)] == [True, False]


async def test_a_file_that_was_never_there_is_no_empty_one(tmp_path):
    """Nobody can tell who has a key."""
    store = FileKeyStore(tmp_path / "keys", publish=RememberedEvents().publish, clock=FakeClock())
    with pytest.raises(KeysUnavailable):
        await store.find(NOBODYS)
    with pytest.raises(KeysUnavailable):
        await store.all()


# Redis


@pytest.fixture
async def in_redis(own_redis):
    """Two instances whose monotonic clock the test moves, and their Redis."""
    instances = RedisInstance(own_redis.url, "one"), RedisInstance(own_redis.url, "other")
    clock = FakeClock()
    one, other = (redis_store(each, clock) for each in instances)
    async with instances[0].running(), instances[1].running():
        one.clock, one.instances, one.server = clock, instances, own_redis
        yield one, other


def reads(server):
    """How often keys have been read."""
    line = server.ask("INFO", "commandstats").partition(b"cmdstat_hmget:calls=")[2]
    return int(line.partition(b",")[0] or 0)


async def test_a_key_that_was_seen_costs_no_round_trip(in_redis):
    """Nor does one that is nobody's, for a while."""
    one, _ = in_redis
    await one.add(PLAIN)
    await until(lambda: not one._unknown_at_s)
    for _ in range(100):
        await one.find(PLAIN.key_id)
        await one.find(NOBODYS)

    assert reads(one.server) == 2


async def test_a_key_is_read_again_when_nothing_has_confirmed_it_for_a_second(in_redis):
    """Whatever was not heard, it does not go on for longer."""
    one, other = in_redis
    await one.add(PLAIN)
    await one.find(PLAIN.key_id)
    await other.revoke(PLAIN.key_id, 1_500.0)
    await until(lambda: PLAIN.key_id not in one._seen)
    one._seen[PLAIN.key_id] = redis_keys._Seen(PLAIN, None, one.clock())
    assert (await one.find(PLAIN.key_id)).revoked_at_s is None

    one.clock.advance(redis_keys.CURRENT_S)

    assert (await one.find(PLAIN.key_id)).revoked_at_s == 1_500.0


async def test_a_revocation_while_the_subscription_was_lost_is_read(in_redis):
    """A message that nobody heard is not lost."""
    one, other = in_redis
    await one.add(PLAIN)
    await one.find(PLAIN.key_id)
    one.instances[0].begun.clear()
    one.server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await other.revoke(PLAIN.key_id, 1_500.0)
    await one.instances[0].heard_again()

    assert (await one.find(PLAIN.key_id)).revoked_at_s == 1_500.0


async def test_without_redis_a_key_that_was_seen_goes_on_for_a_while_and_no_other_is_let_in(in_redis):
    """Nothing can be revoked meanwhile; but a lost instance does not serve by old keys for ever."""
    one, _ = in_redis
    for key in (PLAIN, WHOLE):
        await one.add(key)
    await one.find(PLAIN.key_id)
    one.server.stop()

    one.clock.advance(redis_keys.TRUST_S - 1)
    assert await one.find(PLAIN.key_id) == PLAIN
    with pytest.raises(KeysUnavailable):
        await one.find(WHOLE.key_id)
    one.clock.advance(1)
    for use in (one.find(PLAIN.key_id), one.add(PLAIN), one.revoke(PLAIN.key_id, 1.0), one.all()):
        with pytest.raises(KeysUnavailable):
            await use


async def test_what_is_known_is_bounded(in_redis, monkeypatch):
    """Whoever makes up ids fills nothing, and drives out no key that is used."""
    one, _ = in_redis
    monkeypatch.setattr(redis_keys, "MAX_UNKNOWN", 10)
    await one.add(PLAIN)
    await one.find(PLAIN.key_id)
    await asyncio.gather(*(one.find(f"{number:012}") for number in range(1_000)))

    assert len(one._unknown_at_s) == 10
    assert list(one._seen) == [PLAIN.key_id]


@pytest.mark.parametrize("record", ["?", GOOD.replace("user", "usr")])
async def test_a_record_that_is_not_understood_lets_nobody_in(in_redis, record):
    """What a newer version has written may be a bound."""
    one, _ = in_redis
    await one.instances[0].client.submit("HSET", "weir:keys", "aaaaaaaaaaaa", record)
    with pytest.raises(KeysUnavailable):
        await one.find("aaaaaaaaaaaa")


async def test_a_key_that_somebody_has_deleted_by_hand_works_for_a_minute_at_most(in_redis):
    """Nothing tells of it: the version is what it was."""
    one, _ = in_redis
    await one.add(PLAIN)
    await one.revoke("another", 1_500.0)
    await one.find(PLAIN.key_id)
    await one._client.submit("HDEL", redis_keys.KEYS, PLAIN.key_id)
    one.clock.advance(redis_keys.REREAD_S - 1.0)
    one._confirm(None, one.clock())
    assert await one.find(PLAIN.key_id) == PLAIN

    one.clock.advance(1.0)
    one._confirm(None, one.clock())

    assert await one.find(PLAIN.key_id) is None


async def test_keys_that_are_gone_from_redis_are_gone(in_redis):
    """It was emptied, and nothing was said."""
    one, other = in_redis
    await one.add(PLAIN)
    await other.revoke(PLAIN.key_id, 1_500.0)
    await one.find(PLAIN.key_id)
    one.server.flush()
    one.clock.advance(redis_keys.CURRENT_S)

    assert await one.find(PLAIN.key_id) is None
