"""The same question has the same fingerprint, and no other has it."""

import time
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.chat import Caller, ChatRequest
from domain.fingerprint import CacheScope, fingerprint, sharing_scope

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, JSON, min_size=1, max_size=4)
REQUESTS = st.builds(
    ChatRequest,
    model=TEXT,
    messages=st.lists(OBJECTS, min_size=1, max_size=3).map(tuple),
    options=OBJECTS,
    provider=st.none() | TEXT,
)


def rebuilt(value, *, text=lambda text: text, pairs=list, number=lambda number: number):
    """`value` with every text, the pairs of every object and every number replaced."""

    def again(value):
        return rebuilt(value, text=text, pairs=pairs, number=number)

    match value:
        case dict():
            return {text(key): again(item) for key, item in pairs(value.items())}
        case list() | tuple():
            return [again(item) for item in value]
        case str():
            return text(value)
        case bool() | None:
            return value
        case _:
            return number(value)


def with_json(request, **how):
    """`request` with its messages and options rebuilt."""
    messages = tuple(rebuilt(message, **how) for message in request.messages)
    return replace(request, messages=messages, options=rebuilt(request.options, **how))


def as_float(number):
    """The float that equals `number`, if there is one."""
    return float(number) if float(number) == number else number


@given(REQUESTS)
def test_the_order_of_properties_makes_no_difference(request):
    """At any depth."""
    assert fingerprint(with_json(request, pairs=lambda pairs: reversed(list(pairs))), "") == fingerprint(request, "")


@given(REQUESTS)
def test_a_whole_number_is_the_same_with_and_without_a_point(request):
    """1 and 1.0 are one number to every provider."""
    assert fingerprint(with_json(request, number=as_float), "") == fingerprint(request, "")


@given(REQUESTS, st.sampled_from("éǖ한Å"))
def test_the_composition_of_unicode_makes_no_difference(request, letter):
    """Nor in the names of properties, though it changes how they sort."""
    request = replace(request, options=request.options | {"e": {letter: 1, "f": 2, "z" + letter: letter}})
    composed, decomposed = (
        with_json(request, text=lambda text, form=form: unicodedata.normalize(form, text)) for form in ("NFC", "NFD")
    )

    assert fingerprint(composed, "") == fingerprint(decomposed, "")


def normal(value):
    """`value` in the form in which equal questions are equal, by another way than the fingerprint's."""
    match value:
        case bool() | None:
            return (type(value).__name__, value)
        case int() | float():
            return ("number", value)
        case str():
            return ("text", unicodedata.normalize("NFC", value))
        case dict():
            return ("object", sorted((unicodedata.normalize("NFC", key), key, normal(value[key])) for key in value))
        case _:
            return ("list", [normal(item) for item in value])


@given(JSON, JSON)
def test_any_other_difference_makes_another_question(one, other):
    """Whatever is not interpreted counts."""
    assume(repr(normal(one)) != repr(normal(other)))
    requests = [ChatRequest(model="m", messages=(), options={"x": value}) for value in (one, other)]
    equal = normal(one) == normal(other)

    assert (fingerprint(requests[0], "") == fingerprint(requests[1], "")) is equal


@given(REQUESTS, TEXT)
def test_every_part_of_a_request_counts(request, more):
    """Model, provider, messages, options, and one cannot pass for another."""
    changed = [
        replace(request, model=request.model + "x"),
        replace(request, provider="x" if request.provider is None else None),
        replace(request, messages=(*request.messages, {"role": more})),
        replace(request, messages=request.messages[:-1]),
        replace(request, options={**request.options, more + "x": {"never": "seen"}}),
    ]

    prints = {fingerprint(one, "") for one in (request, *changed)}

    assert len(prints) == len(changed) + 1


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (0, False), (0, None), ("1", 1), (0.1, 0.2), ([], {}), ("", None)]
)
def test_what_python_takes_for_equal_is_not_always_equal(one, other):
    """A provider tells true from 1."""
    requests = [ChatRequest(model="m", messages=(), options={"x": value}) for value in (one, other)]

    assert fingerprint(requests[0], "") != fingerprint(requests[1], "")


def test_the_fingerprint_stays_what_it_is():
    """It names stored answers across releases: another form is a cold cache for the whole fleet."""
    request = ChatRequest(model="m", messages=({"role": "user", "content": "é"},), options={"b": 1.0, "a": [0.5]})

    assert fingerprint(request, "") == "0dc34b78cfa4d495f2b816fdfe99a78f01f7e15352d2076d3273390e2d8a71ae"


@given(REQUESTS, OBJECTS)
def test_a_request_made_of_another_has_its_own_fingerprint(request, message):
    """What is at hand is of the one it was worked out for: not of a question behind what was said before."""
    fingerprint(request, "")
    longer = replace(request, messages=(message, *request.messages))

    anew = ChatRequest(model=longer.model, messages=longer.messages, options=longer.options, provider=longer.provider)
    assert fingerprint(longer, "") == fingerprint(anew, "") != fingerprint(request, "")
    assert fingerprint(request, "t") != fingerprint(request, "")


NOBODYS = [Caller(user="u"), Caller(user="v")]
TENANTS = [Caller(user="t/u", tenant="t"), Caller(user="t/v", tenant="t"), Caller(user="s/u", tenant="s")]
CALLERS = [*NOBODYS, *TENANTS, Caller(user="t")]


@pytest.mark.parametrize(
    ("scope", "circles"),
    [(CacheScope.SHARED, 3), (CacheScope.TENANT, 5), (CacheScope.USER, 6)],
)
def test_scopes_share_within_their_circle_only(scope, circles):
    """Tenants keep to themselves in any scope; a tenant and a user of one name are two circles."""
    request = ChatRequest(model="m", messages=())

    assert len({fingerprint(request, sharing_scope(caller, scope)) for caller in CALLERS}) == circles


def test_who_has_no_tenant_shares_with_everybody_who_has_none():
    """But where answers are shared by tenant, with nobody: strangers are no tenant."""
    assert [sharing_scope(caller, CacheScope.SHARED) for caller in NOBODYS] == ["", ""]
    assert [sharing_scope(caller, CacheScope.TENANT) for caller in NOBODYS] == ["user:u", "user:v"]


def test_a_tenant_and_a_user_of_one_name_are_apart():
    """And both are apart from everybody."""
    tenant, user = Caller(user="same/ann", tenant="same"), Caller(user="same")

    assert sharing_scope(tenant, CacheScope.TENANT) != sharing_scope(user, CacheScope.TENANT)


@pytest.mark.parametrize("marks", ["\u0315\u0300", "\u0f73", "\u0300\u0f75", "\u0344\u0323"])
@pytest.mark.parametrize("place", ["content", "name"])
def test_marks_without_end_hold_nobody_up(marks, place):
    """To compose them takes the square of their number: one body of a megabyte would stop the service for hours."""
    overlaid = "a" + marks * 30_000
    message = {"content": overlaid} if place == "content" else {"content": "?", overlaid: 1}
    request = ChatRequest(model="m", messages=(message,))
    began_s = time.process_time()

    assert fingerprint(request, "") != fingerprint(replace(request, messages=({"content": overlaid[:-1]},)), "")
    assert time.process_time() - began_s < 2.0


def test_as_many_marks_as_a_language_may_need_are_composed():
    """However they are written, it is the same letter."""
    one, other = (
        ChatRequest(model="m", messages=({"content": text * 500},)) for text in ("ế" * 99, "e\u0302\u0301" * 99)
    )

    assert fingerprint(one, "") == fingerprint(other, "")
