"""Who asks, through real HTTP: with keys in a file, and without any."""

import asyncio
import json

import openai
import pytest

from infrastructure.memory.key_file import change_keys
from tests.api_keys import api_key
from tests.app.asking import CHAT, MODEL, STREAM, body_for, connected, question, text
from tests.app.refusals import check_refusal, told
from tests.serving import ADMIN_KEY, serving

pytestmark = pytest.mark.anyio

ADDRESS_1, ADDRESS_2 = "192.0.2.1", "192.0.2.2"
KEYS = {
    "ann": {},
    "bob": {"user": "bob"},
    "acme": {"scope": "acme"},
    "acme-bob": {"user": "bob", "scope": "acme"},
    "evil": {"scope": "evil"},
    "bound": {"user": "cy", "models": frozenset({"gpt-4o"})},
    "revoked": {"revoked_at_s": 1_500.0},
    "expired": {"expires_at_s": 1_500.0},
}


class Kept:
    """A file of keys, and the texts of those in it by name."""

    def __init__(self, path):
        self.path, self.keys, self.texts = path, {}, {}
        for name, changes in KEYS.items():
            self.keys[name], self.texts[name] = api_key(**changes)
        self.write()

    def write(self):
        change_keys(self.path, lambda _: {key.key_id: key for key in self.keys.values()})

    def bearer(self, name):
        return {"Authorization": f"Bearer {self.texts[name]}"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return Kept(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture(scope="module")
def keyed_service(simulation, kept):
    """A service that knows keys, needs none, and is behind a proxy."""
    with serving(
        simulation,
        WEIR_API_KEYS_FILE=str(kept.path),
        WEIR_TRUSTED_PROXIES="127.0.0.1",
        WEIR_MAX_CONNECTIONS_PER_USER="1",
        WEIR_CORS_ORIGINS="https://app.example",
        WEIR_LOG_LEVEL="debug",
    ) as running:
        yield running


@pytest.fixture
async def keyed(keyed_service, simulator):
    async with connected(keyed_service.url) as each:
        each.simulator = simulator
        yield each


def without_last(key):
    return key[:-1] + ("a" if key[-1] != "a" else "b")


def behind(address):
    """As a proxy sends it."""
    return {"X-Forwarded-For": f"203.0.113.77, {address}"}


def cache(stream):
    assert stream.status == 200, bytes(stream.raw)
    return stream.headers["x-cache"]


@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_a_key_is_taken_from_either_header(keyed, kept, path):
    """Or from both, when it is the same."""
    bearer, header = kept.bearer("ann"), {"X-API-Key": kept.texts["ann"]}
    for headers in (bearer, header, bearer | header, {"authorization": f"bEaReR  {kept.texts['ann']} "}):
        assert (await keyed.ask(path, None, headers)).status == 200


async def test_a_proxy_may_have_credentials_of_its_own(keyed, kept):
    """Where it passes them on the key has the other header."""
    headers = {"Authorization": "Basic eDp5", "X-API-Key": kept.texts["bound"]}

    assert (await keyed.ask(STREAM, None, headers)).status == 403


PLACES = [
    ("POST", STREAM, body_for(STREAM, "?")),
    ("POST", CHAT, body_for(CHAT, "?")),
    ("GET", "/v1/models", None),
    ("GET", "/v1/streams/01ARZ3NDEKTSV4RRFFQ69G5FAV", None),
    ("DELETE", "/v1/streams/01ARZ3NDEKTSV4RRFFQ69G5FAV", None),
    ("GET", "/v1/sessions/s", None),
    ("DELETE", "/v1/sessions/s", None),
]
EVERYWHERE = pytest.mark.parametrize(("method", "path", "body"), PLACES)


def detail(path, response):
    """The sentence, and the code."""
    body = response.json()
    return (body["error"]["code"], body["error"]["message"]) if "error" in body else (body["code"], body["detail"])


@EVERYWHERE
async def test_what_is_no_key_is_refused_wherever_it_matters_who_asks(keyed, kept, method, path, body):
    """Never served as if nothing had been given."""
    for given, said in [
        ("Bearer any", "That is no API key"),
        ("Bearer", "That is no API key"),
        ("Basic eDp5", "That is no API key"),
        (f"Bearer {kept.texts['ann']} x", "That is no API key"),
        (f"Bearer {without_last(kept.texts['ann'])}", "This API key is not known."),
        (f"Bearer {ADMIN_KEY}x", "That is no API key"),
        (f"Bearer {kept.texts['revoked']}", "This API key was revoked."),
        (f"Bearer {kept.texts['expired']}", "This API key has expired on 1970-01-01 at 00:25:00 UTC."),
    ]:
        response = await keyed.send(method, path, json=body, headers={"Authorization": given})
        check_refusal(path, response)
        code, sentence = detail(path, response)
        assert (response.status, code) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == 'Bearer realm="weir", error="invalid_token"'
        assert sentence.startswith(said)
        assert b"weir_" not in response.raw.replace(b"begins with weir_", b"")


@EVERYWHERE
async def test_two_keys_are_one_too_many(keyed, kept, method, path, body):
    """Whichever would be taken, somebody would not expect it."""
    headers = kept.bearer("ann") | {"X-API-Key": kept.texts["bob"]}
    response = await keyed.send(method, path, json=body, headers=headers)

    check_refusal(path, response)
    assert response.status == 400
    assert "one is enough" in response.raw.decode()


NAMES = ("api_key", "key", "access_token", "X-API-Key", "api%5Fkey", "format=x&apikey", "x")


@EVERYWHERE
async def test_a_key_in_the_address_is_refused(keyed, kept, method, path, body):
    """It says where keys go; with a right one in a header too."""
    for name in NAMES:
        key = kept.texts["bob"]
        response = await keyed.send(method, f"{path}?{name}={key}", json=body, headers=kept.bearer("ann"))
        check_refusal(path, response)
        assert response.status == 400
        assert "Authorization: Bearer KEY or X-API-Key: KEY" in response.raw.decode()
        assert key not in response.raw.decode()


async def test_a_key_in_the_address_is_not_logged(keyed, keyed_service, kept):
    """Nowhere, not even where there is nothing at the address."""
    for path in ("/v1/models", "/nothing", "/health"):
        await keyed.send("GET", f"{path}?api_key={kept.texts['bob']}")

    assert kept.texts["bob"].rpartition("_")[2] not in keyed_service.log()


async def test_operators_keep_their_key_out_of_addresses_too(keyed, kept):
    """And no API key opens their routes."""
    operators = {"Authorization": f"Bearer {ADMIN_KEY}"}
    refused = await keyed.send("GET", f"/admin/circuits?key={ADMIN_KEY}")
    forbidden = await keyed.send("GET", "/admin/circuits", headers=kept.bearer("ann"))

    assert (refused.status, forbidden.status) == (400, 401)
    assert (await keyed.send("GET", "/admin/circuits", headers=operators)).status == 200


async def test_no_key_is_in_the_log(keyed, keyed_service, kept):
    """At the level that writes most."""
    for name in KEYS:
        await keyed.ask(STREAM, None, kept.bearer(name))
        await keyed.ask(CHAT, None, {"X-API-Key": kept.texts[name]})
    log = keyed_service.log()

    assert "exchange ended" in log
    assert not [name for name, key in kept.texts.items() if key.rpartition("_")[2] in log]


async def test_where_none_is_required_no_key_is_an_address(keyed):
    """Two of which are two users, who may have a stream each."""
    keyed.simulator.behave("openai", fault="stall", at=1)
    async with keyed.open(STREAM, None, behind(ADDRESS_1)) as first:
        await first.chunks(1)
        again = await keyed.ask(STREAM, None, behind(ADDRESS_1) | {"Authorization": "Bearer anonymous"})
        async with keyed.open(STREAM, None, behind(ADDRESS_2)) as other:
            assert other.status == 200

    assert (again.status, again.json()["code"]) == (429, "too_many_connections")


async def test_a_forged_header_changes_nothing(keyed, keyed_service):
    """What the client writes stands left of what the proxy adds; and who comes past the proxy is believed nothing."""
    keyed.simulator.behave("openai", fault="stall", at=1)
    async with keyed.open(STREAM, None, {"X-Forwarded-For": ADDRESS_1}) as first:
        await first.chunks(1)
        forged = await keyed.ask(STREAM, None, {"X-Forwarded-For": f"10.9.9.9, {ADDRESS_2}, {ADDRESS_1}"})
    async with (
        connected(keyed_service.url, "127.0.0.9") as stranger,
        stranger.open(STREAM, None, {"X-Forwarded-For": ADDRESS_1}) as first,
    ):
        await first.chunks(1)
        past = await stranger.ask(STREAM, None, {"X-Forwarded-For": ADDRESS_2})

    assert (forged.status, past.status) == (429, 429)


async def test_the_keys_of_a_user_are_one_user_and_an_address_is_none(keyed, kept):
    """Limits are the user's, wherever it asks from."""
    keyed.simulator.behave("openai", fault="stall", at=1)
    async with keyed.open(STREAM, None, kept.bearer("ann") | behind(ADDRESS_1)) as first:
        await first.chunks(1)
        second = await keyed.ask(STREAM, None, kept.bearer("ann") | behind(ADDRESS_2))
        async with (
            keyed.open(STREAM, None, kept.bearer("acme")) as scoped,
            keyed.open(STREAM, None, behind(ADDRESS_1)) as nobody,
        ):
            assert (scoped.status, nobody.status) == (200, 200)

    assert second.json()["code"] == "too_many_connections"


async def test_a_tenant_is_told_nothing_of_what_others_asked(keyed, kept):
    """Whether it was asked before, is being asked, or under which id: it is as if nobody else was there."""
    query, session_id = question(), question().translate({ord(mark): "-" for mark in " ?"})
    asked = {"session_id": session_id}
    first = await keyed.ask(STREAM, query, kept.bearer("acme"), **asked)
    shared = await keyed.ask(STREAM, query, kept.bearer("acme-bob"))
    others = [await keyed.ask(STREAM, query, headers, **asked) for headers in (kept.bearer("evil"), behind(ADDRESS_1))]

    assert (cache(first), cache(shared)) == ("miss", "l1")
    for other in others:
        assert cache(other) == "miss"
        assert "age" not in other.headers
        assert other.headers.keys() == first.headers.keys()
    assert sum(query in str(call["body"]) for call in keyed.simulator.calls("openai")) == 3
    for headers in (kept.bearer("evil"), kept.bearer("ann"), behind(ADDRESS_1)):
        for method in ("GET", "DELETE"):
            unknown = await keyed.send(method, f"/v1/streams/{first.stream_id}", headers=headers)
            assert (unknown.status, unknown.json()["code"]) == (404, "unknown_stream")
    with_nothing = await keyed.send("GET", f"/v1/sessions/{session_id}", headers=kept.bearer("ann"))
    own = await keyed.send("GET", f"/v1/sessions/{session_id}", headers=kept.bearer("acme"))
    assert (with_nothing.status, with_nothing.json()["code"]) == (404, "unknown_session")
    assert (own.status, own.json()["session_id"]) == (200, session_id)


async def test_what_a_tenant_is_being_answered_others_do_not_join(keyed, kept):
    """Not even to wait for the same time."""
    query = question()
    keyed.simulator.behave("openai", ttft_s=0.3)
    asking = [keyed.ask(STREAM, query, headers) for headers in (kept.bearer("acme"), kept.bearer("evil"))]

    assert [cache(answer) for answer in await asyncio.gather(*asking)] == ["miss", "miss"]


async def test_only_the_asker_stops_a_stream(keyed, kept):
    """Or an operator; who shares it is told that it may not."""
    keyed.simulator.behave("openai", fault="stall", at=1)
    async with keyed.open(STREAM, None, kept.bearer("acme")) as stream:
        await stream.chunks(1)
        path = f"/v1/streams/{stream.stream_id}"
        sharing = await keyed.send("DELETE", path, headers=kept.bearer("acme-bob"))
        asker = await keyed.send("DELETE", path, headers=kept.bearer("acme"))
        end = (await stream.all()).events[-1]

    check_refusal(path, sharing)
    assert (sharing.status, sharing.json()["code"], asker.status) == (403, "forbidden", 204)
    assert end.json["code"] == "cancelled"


@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_a_key_asks_for_its_models_only(keyed, kept, path):
    """It is told which, and sees no others."""
    refused = await keyed.ask(path, None, kept.bearer("bound"))
    unknown = await keyed.ask(path, None, kept.bearer("bound"), model="gpt-9")
    models = await keyed.send("GET", "/v1/models", headers=kept.bearer("bound"))
    served = await keyed.ask(path, None, kept.bearer("bound"), model="gpt-4o")

    check_refusal(path, refused)
    assert (refused.status, told(path, refused)[0]) == (403, "forbidden")
    assert f"may not ask for the model '{MODEL}'. It may ask for gpt-4o." in told(path, refused)[2]
    assert MODEL not in told(path, unknown)[2]
    assert [model["id"] for model in models.json()["data"]] == ["gpt-4o"]
    assert served.status == 200


async def test_a_key_that_is_revoked_stops_working_and_a_new_one_works(keyed, kept):
    """Without a restart."""
    kept.keys["new"], kept.texts["new"] = api_key(user="new")
    kept.write()
    async with asyncio.timeout(1):
        while (await keyed.ask(STREAM, None, kept.bearer("new"))).status != 200:
            pass
    kept.keys["new"], _ = api_key(
        key_id=kept.keys["new"].key_id, digest=kept.keys["new"].digest, user="new", revoked_at_s=2_000.0
    )
    kept.write()
    async with asyncio.timeout(1):
        while (await keyed.ask(STREAM, None, kept.bearer("new"))).status != 401:
            pass


async def test_an_openai_client_asks_with_a_key(keyed_service, kept, simulator):
    """As its api_key; what is wrong it raises as it would for OpenAI."""
    messages = [{"role": "user", "content": question()}]
    for name, error in [
        ("ann", None),
        ("revoked", openai.AuthenticationError),
        ("bound", openai.PermissionDeniedError),
    ]:
        async with openai.AsyncOpenAI(
            base_url=f"{keyed_service.url}/v1", api_key=kept.texts[name], max_retries=0
        ) as client:
            if error is None:
                assert (await client.chat.completions.create(model=MODEL, messages=messages)).choices
                continue
            with pytest.raises(error) as raised:
                await client.chat.completions.create(model=MODEL, messages=messages)
            assert raised.value.code in {"unauthorized", "forbidden"}


@pytest.mark.parametrize("given", ["any", "anonymous", ADMIN_KEY])
async def test_where_there_are_no_keys_an_sdk_may_send_anything(client, given):
    """As the first page of the handbook has it."""
    assert (await client.ask(CHAT, None, {"Authorization": f"Bearer {given}"})).status == 200


async def test_where_there_are_no_keys_one_of_ours_is_not_passed_over(client):
    """Its owner is somebody, and would be served as nobody."""
    _, key = api_key()
    refused = await client.ask(STREAM, None, {"X-API-Key": key})

    assert (refused.status, refused.json()["detail"][:27]) == (401, "No API keys are kept here; ")


async def test_with_keys_required_nobody_asks_without_one(simulator, kept):
    """Probes and the document are for all."""
    with serving(simulator, WEIR_AUTH="required", WEIR_API_KEYS_FILE=str(kept.path)) as service:
        async with connected(service.url) as client:
            for method, path, body in PLACES:
                for headers in ({}, {"Authorization": "Bearer anonymous"}):
                    response = await client.send(method, path, json=body, headers=headers)
                    check_refusal(path, response)
                    assert response.status == 401
                    assert response.headers["www-authenticate"] == 'Bearer realm="weir"'
                    assert detail(path, response)[1].startswith("An API key is needed: Authorization: Bearer KEY")
            assert (await client.ask(STREAM, None, kept.bearer("ann"))).status == 200
            for path in ("/health", "/health/live", "/health/ready", "/metrics"):
                assert (await client.send("GET", path)).status == 200
            document = (await client.send("GET", "/schema/openapi.json")).json()
    assert document["paths"][STREAM]["post"]["security"] == [{"bearer": []}, {"header": []}]


async def test_by_tenant_those_without_one_share_with_nobody(simulator, kept):
    """Strangers are no tenant."""
    settings = {"WEIR_CACHE_SCOPE": "tenant", "WEIR_API_KEYS_FILE": str(kept.path)}
    query = question()
    with serving(simulator, **settings) as service:
        async with connected(service.url) as one, connected(service.url, "127.0.0.2") as two:
            asked = [await one.ask(STREAM, query), await two.ask(STREAM, query), await one.ask(STREAM, query)]
            asked += [await one.ask(STREAM, query, kept.bearer(name)) for name in ("acme", "acme-bob", "evil", "ann")]

    assert [cache(answer) for answer in asked] == ["miss", "miss", "l1", "miss", "l1", "miss", "miss"]


async def test_a_file_that_cannot_be_read_at_start_stops_it(simulator, tmp_path):
    """Rather than serving as if nobody had a key."""
    (tmp_path / "keys").write_text("{}\n")
    for path, said in [("keys", "line 1: Object missing required field `id`"), ("none", "No such file or directory")]:
        with pytest.raises(RuntimeError, match=said), serving(simulator, WEIR_API_KEYS_FILE=str(tmp_path / path)):
            pass


# Pages of other origins


async def test_a_page_of_an_origin_that_is_named_may_ask_and_read(keyed, kept):
    """A preflight for each method, then the stream with what it may read of it."""
    origin = {"Origin": "https://app.example"}
    wants = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    for path in (STREAM, CHAT, "/v1/streams/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/v1/sessions/s", "/v1/models"):
        preflight = await keyed.send("OPTIONS", path, headers=origin | wants)
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert preflight.headers["access-control-allow-methods"] == "GET, POST, DELETE"
        assert preflight.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    query = question()
    streams = [await keyed.ask(path, query, origin | kept.bearer("ann")) for path in (STREAM, STREAM, CHAT)]
    refused = await keyed.ask(STREAM, None, origin | {"Authorization": "Bearer x"})
    for stream in (*streams, refused):
        assert stream.headers.getall("access-control-allow-origin") == ["https://app.example"]
        assert stream.headers["vary"] == "Origin"
        readable = stream.headers["access-control-expose-headers"].lower().split(", ")
        assert {"x-stream-id", "x-thread-id", "x-cache", "ratelimit", "retry-after"} <= set(readable)
    assert text(streams[0].events) == text(streams[1].events)


async def test_a_page_of_another_origin_may_not(keyed):
    """Its browser keeps the answer from it; no cookie could come along."""
    for origin in ("https://evil.example", "https://app.example.evil", "null", "http://app.example"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for answer in (await keyed.send("OPTIONS", STREAM, headers=headers), await keyed.ask(STREAM, None, headers)):
            assert "access-control-allow-origin" not in answer.headers
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers["vary"] == "Origin"


async def test_without_the_setting_no_page_may(client):
    """That is the default."""
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for answer in (await client.send("OPTIONS", STREAM, headers=headers), await client.ask(STREAM, None, headers)):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_every_origin_may_be_named(simulator):
    """For a service that is public anyway."""
    with serving(simulator, WEIR_CORS_ORIGINS="*") as service:
        async with connected(service.url) as client:
            answer = await client.ask(STREAM, None, {"Origin": "https://any.example"})
            odd = {"Origin": "null", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "a\tb"}
            preflight = await client.send("OPTIONS", STREAM, headers=odd)

    assert answer.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"].startswith("authorization, ")


def test_the_file_is_readable_by_people(kept):
    """One line a key."""
    first = json.loads(kept.path.read_text().splitlines()[0])

    assert (first["user"], first["tier"]) == ("ann", "standard")
    assert kept.path.stat().st_mode & 0o077 == 0
