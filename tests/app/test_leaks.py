"""Nothing is left behind: no stream, no call, no socket, no memory, no task."""

import asyncio
import json
import random

import psutil
import pytest
from dependency_injector.providers import Object

from app.container import Container
from app.main import create_app
from config.configuration import read_configuration
from tests.app import metrics
from tests.app.asking import CHAT, STREAM, body_for, connected, question
from tests.serving import environment, serving

pytestmark = pytest.mark.anyio
PROVIDERS = ("openai", "deepseek", "gemini")
FAULTS = (
    "cut",
    "reset",
    "reset_midstream",
    "malformed",
    "error_event",
    "no_finish",
    "500",
    "429",
    "context_length",
    "empty",
)
ROUND = 1000
AT_ONCE = 40
SOCKETS_KEPT = 80
"""Of providers' connection pools and the latest clients."""
GROWTH_BYTES = 8 * 1024 * 1024


async def one_request(client, chance, stored):
    """A hit, a miss, OpenAI's form, a whole answer, or a client that leaves at some moment."""
    path = chance.choice((STREAM, CHAT))
    query = stored if chance.random() < 0.3 else question()
    fields = {"stream": False} if path == CHAT and chance.random() < 0.3 else {}
    if chance.random() < 0.7:
        await client.ask(path, query, **fields)
        return
    try:
        async with asyncio.timeout(chance.random() * 0.05), client.open(path, query, **fields) as stream:
            await stream.all()
    except TimeoutError:
        pass


async def one_round(client, seed):
    """So many requests, so many at once; then until nothing is under way any more."""
    chance, gate, stored = random.Random(seed), asyncio.Semaphore(AT_ONCE), question()
    for provider in PROVIDERS:
        for fault in FAULTS:
            client.simulator.behave(provider, fault=fault, at=3, times=ROUND // 100)

    async def gated():
        async with gate:
            await one_request(client, chance, stored)

    await asyncio.gather(*(gated() for _ in range(ROUND)))
    await metrics.until(client, "sse_active_connections", lambda live: live == 0)
    for provider in PROVIDERS:
        await client.simulator.until(f"{provider}.live==0")


async def test_a_thousand_requests_leave_nothing_behind(simulator):
    """Whatever became of them: what is there after the second thousand was there after the first."""
    settings = {"WEIR_CACHE_L1_ENTRIES": "50", "WEIR_LOG_LEVEL": "error", "WEIR_GRACE_S": "0"}
    with serving(simulator, **settings) as service:
        worker = psutil.Process(service.process.pid).children()[0]
        async with connected(service.url) as client:
            client.simulator = simulator
            await one_round(client, seed=1)
            rss, threads = worker.memory_info().rss, worker.num_threads()
            await one_round(client, seed=2)
            async with asyncio.timeout(30):
                while len(worker.net_connections()) > SOCKETS_KEPT:  # noqa: ASYNC110  # it is another process that closes them
                    await asyncio.sleep(0.05)
            grown = worker.memory_info().rss - rss

        assert grown <= GROWTH_BYTES
        assert worker.num_threads() <= threads + 1


class Exchange:
    """One request to an ASGI application in this process; `leave` is the client's going."""

    def __init__(self, path, body):
        self._body = json.dumps(body).encode()
        self._is_gone = asyncio.Event()
        self._is_read = False
        self.has_begun = asyncio.Event()
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self._body))],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }

    def leave(self):
        self._is_gone.set()

    async def receive(self):
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message.get("body"):
            self.has_begun.set()


@pytest.fixture
async def application(simulator):
    """The service in this process, started."""
    settings = {"WEIR_GRACE_S": "0", "WEIR_LOG_LEVEL": "error"}
    settings, catalogue = read_configuration(environment(simulator, settings))
    app = create_app(Container(settings=Object(settings), catalogue=Object(catalogue)))
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    yield app
    await inbox.put({"type": "lifespan.shutdown"})
    await lifespan


@pytest.mark.parametrize("fields", [{}, {"stream": False}])
@pytest.mark.parametrize("fault", [None, "stall", "cut", "silence_headers"])
async def test_no_task_outlives_its_request(application, simulator, fault, fields):
    """Neither the watcher of the client nor the leader of the answer."""
    before = asyncio.all_tasks()
    for path in (STREAM, CHAT):
        simulator.behave("openai", **({"fault": fault, "at": 2} if fault else {}))
        exchange = Exchange(path, body_for(path, **(fields if path == CHAT else {})))
        served = asyncio.create_task(application(exchange.scope, exchange.receive, exchange.send))
        if fault in {"stall", "silence_headers"}:
            await simulator.until("openai.live>=1")
            exchange.leave()
        await served
        exchange.leave()
    left = asyncio.all_tasks() - before
    _, running = await asyncio.wait(left, timeout=5) if left else (set(), set())

    assert not running
