"""Who asks with a key, or without one."""

import math
import re

import pytest

from domain.callers import Callers
from domain.chat import OPERATOR, Caller
from domain.errors import KeyRefused, KeysUnavailable, Unauthorized
from domain.keys import ApiKey, digest_of, id_in, new_text
from domain.limiting import Rate
from tests.api_keys import api_key
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

ADDRESS = "192.0.2.1"
SOMEBODY = Caller(user="address:192.0.2.1")


class Kept:
    """A store of these keys; with `is_away` it tells nothing."""

    def __init__(self, *keys, is_away=False):
        self.keys = {key.key_id: key for key in keys}
        self.is_away = is_away

    async def find(self, key_id):
        if self.is_away:
            raise KeysUnavailable
        return self.keys.get(key_id)


def callers(*keys, is_required=False, **how):
    return Callers(store=Kept(*keys, **how), is_required=is_required, unix_now=FakeClock(2_000.0))


WITHOUT_KEYS = Callers(store=None, is_required=False, unix_now=FakeClock())


async def test_a_text_is_recognisable_has_its_id_in_it_and_is_never_the_same():
    """Scanners of repositories find one that was committed; 32 of 62 letters are 190 bits."""
    texts = [new_text() for _ in range(100)]

    for text, key_id in texts:
        assert re.fullmatch(r"weir_[0-9a-z]{12}_[0-9A-Za-z]{32}", text)
        assert id_in(text) == key_id
    assert len(set(texts)) == 100
    assert 32 * math.log2(62) >= 160


async def test_a_key_shows_neither_its_text_nor_its_digest():
    """Where it is printed by mistake."""
    key, text = api_key()

    assert key.digest not in repr(key)
    assert text not in repr(key)


async def test_a_key_gives_all_that_it_has_to_its_caller():
    """What limits and scopes go by."""
    bounds = {"tokens_per_minute": 5, "budget_usd_per_day": 0.5, "models": frozenset({"m"})}
    key, text = api_key(scope="acme", tier="premium", rate=Rate(amount=1, per_s=2.0), **bounds)

    assert await callers(key).caller(text, ADDRESS) == Caller(
        user="acme/ann", tenant="acme", tier="premium", rate=Rate(amount=1, per_s=2.0), **bounds
    )


async def test_users_of_one_name_in_two_scopes_have_nothing_in_common():
    """Nor has an address or an operator with any user that a key can have."""
    users = {api_key(scope=scope)[0].caller.user for scope in ("", "acme", "evil")} | {SOMEBODY.user, OPERATOR.user}

    assert len(users) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key_id", "UPPER"),
        ("digest", "0" * 63),
        ("user", ""),
        ("user", "address:192.0.2.1"),
        ("user", ":operator"),
        ("user", "acme/ann"),
        ("user", "ann\n"),
        ("user", "x" * 101),
        ("scope", "a:b"),
        ("scope", "a/b"),
        ("scope", "shared"),
        ("tier", "operator"),
        ("tokens_per_minute", 0),
        ("budget_usd_per_day", 0.0),
        ("budget_usd_per_day", math.nan),
        ("models", frozenset()),
        ("models", frozenset({""})),
        ("models", frozenset({"a\nb"})),
        ("expires_at_s", math.inf),
        ("created_at_s", -1.0),
    ],
)
async def test_a_key_that_cannot_be_right_cannot_be_built(field, value):
    """It says which part is wrong."""
    named = {"key_id": "id", "digest": "sha256", "expires_at_s": "time", "created_at_s": "time"}.get(field, field)
    with pytest.raises(ValueError, match=f"^{named}: "):
        api_key(**{field: value})


@pytest.mark.parametrize("given", [None, "anonymous"])
async def test_who_has_no_key_is_its_address_unless_one_is_required(given):
    """Clients that cannot send none say so."""
    assert await callers().caller(given, ADDRESS) == SOMEBODY
    assert await callers(is_away=True).caller(given, ADDRESS) == SOMEBODY
    with pytest.raises(Unauthorized, match="Authorization: Bearer KEY or X-API-Key: KEY") as refused:
        await callers(is_required=True).caller(given, ADDRESS)
    assert not isinstance(refused.value, KeyRefused)


@pytest.mark.parametrize("is_required", [True, False])
async def test_what_is_given_for_a_key_and_is_none_is_never_passed_over(is_required):
    """Whoever believes to be somebody is not served as nobody."""
    key, text = api_key()
    revoked, revoked_text = api_key(revoked_at_s=1_500.0)
    expired, expired_text = api_key(expires_at_s=2_000.0)
    known = callers(key, revoked, expired, is_required=is_required)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    for given, why in [
        ("", "no API key: one begins with weir_"),
        ("any", "no API key"),
        (text + "\n", "no API key"),
        (wrong, "not known"),
        (new_text()[0], "not known"),
        (revoked_text, "was revoked"),
        (expired_text, "has expired on 1970-01-01 at 00:33:20 UTC"),
    ]:
        with pytest.raises(KeyRefused, match=why) as refused:
            await known.caller(given, ADDRESS)
        assert given in {"", "any"} or given not in str(refused.value)

    assert (await known.caller(text, ADDRESS)).user == "ann"


async def test_whether_a_wrong_secret_belongs_to_a_revoked_key_is_not_told():
    """That is for its owner."""
    revoked, text = api_key(revoked_at_s=1_500.0)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    with pytest.raises(KeyRefused, match="not known"):
        await callers(revoked).caller(wrong, ADDRESS)


async def test_where_there_are_no_keys_whatever_is_given_says_nothing():
    """SDKs want some key; but one of ours is meant, and must not be passed over."""
    assert await WITHOUT_KEYS.caller("any", ADDRESS) == SOMEBODY
    with pytest.raises(KeyRefused, match="No API keys are kept here"):
        await WITHOUT_KEYS.caller(new_text()[0], ADDRESS)


async def test_who_cannot_be_looked_up_is_not_let_in():
    """Neither as the user of the key nor as nobody."""
    _, text = api_key()
    with pytest.raises(KeysUnavailable):
        await callers(is_away=True).caller(text, ADDRESS)


async def test_a_key_lasts_until_its_last_second():
    """And no longer."""
    key, text = api_key(expires_at_s=2_000.5)

    assert (await callers(key).caller(text, ADDRESS)).user == "ann"


async def test_the_digest_is_that_of_the_whole_text():
    """SHA-256, as anybody can compute it."""
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert ApiKey(key_id="a" * 12, digest=digest_of("x"), user="a", tier="standard", created_at_s=0.0).is_of("x")
