"""Keys are the whole fleet's."""

import pytest

from tests.app.asking import STREAM, connected
from tests.app.test_cli import weir
from tests.app.test_key_commands import ANN, until_refused
from tests.fleet.instances import fleet

pytestmark = pytest.mark.anyio


async def test_a_revoked_key_stops_working_on_every_instance(simulator, own_redis):
    """Also on one that cannot hear of it, within a second; a key that is made works everywhere."""
    place = {"WEIR_REDIS_URL": own_redis.url}
    with fleet(simulator, *[own_redis.url] * 3, WEIR_AUTH="required") as instances:
        key = weir("keys", *ANN, **place).stdout.strip()
        one, two, three = (instance.url for instance in instances)
        async with connected(one) as at_one, connected(two) as at_two, connected(three) as at_three:
            for client in (at_one, at_two, at_three):
                assert (await client.ask(STREAM, None, {"X-API-Key": key})).status == 200
            own_redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            weir("keys", "revoke", key.split("_")[1], **place)
            for client in (at_one, at_two, at_three):
                await until_refused(client, key)


async def test_without_redis_keys_that_were_seen_go_on_and_no_other_is_let_in(simulator, own_redis):
    """503, and when to come back; who has no key is served as ever."""
    place = {"WEIR_REDIS_URL": own_redis.url}
    seen, unseen = (weir("keys", *ANN, **place).stdout.strip() for _ in range(2))
    with fleet(simulator, own_redis.url) as [instance]:
        async with connected(instance.url) as client:
            assert (await client.ask(STREAM, None, {"X-API-Key": seen})).status == 200
            own_redis.stop()
            known, unknown, nobody = [
                await client.ask(STREAM, None, headers) for headers in ({"X-API-Key": seen}, {"X-API-Key": unseen}, {})
            ]
            own_redis.start()

    assert (known.status, nobody.status) == (200, 200)
    assert (unknown.status, unknown.json()["code"], unknown.headers["retry-after"]) == (503, "keys_unavailable", "1")
