"""Random faults on all providers at once, and what every client was told of them."""

import asyncio
import random
from collections import Counter
from dataclasses import astuple, dataclass, field

import psutil

from infrastructure.simulator.beginnings import Continuing
from tests.app import metrics
from tests.app.asking import question
from tests.failover.asking import FORMS, ORDERS, Told, ask, expected

CONCURRENCY = 32
LOOKS = 1000
MEANWHILE_FAULTY = 0.4
"""Share of the providers' calls that go wrong."""

BEFORE = (
    "reset",
    "401",
    "403",
    "404",
    "405",
    "408",
    "409",
    "429",
    "500",
    "502",
    "503",
    "529",
    "quota",
    "silence_headers",
    "endless_error",
)
REFUSALS = ("400", "413", "422", "context_length", "content_filter")
WITHIN = (
    "cut",
    "reset_midstream",
    "malformed",
    "error_event",
    "no_finish",
    "done_unfinished",
    "held_open",
    "stall",
    "silence_first_token",
    "empty",
)
CONTINUES = tuple(Continuing)
CLEAR = {"provider_rejected", "all_providers_down", "upstream_timeout", "stream_interrupted"}
"""What a client may be told instead of an answer."""

SETTINGS = {
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "0.4",
    "WEIR_STALL_TIMEOUT_S": "0.4",
    "WEIR_TOTAL_TIMEOUT_S": "10",
    "WEIR_RETRY_AFTER_MAX_S": "0.05",
    "WEIR_BREAKER_FAILURES": "8",
    "WEIR_BREAKER_WINDOW": "10",
    "WEIR_BREAKER_OPEN_S": "0.1",
    "WEIR_RETRY_BUDGET_RATIO": "0.2",
    "WEIR_HEDGE_RATIO": "0.05",
}


@dataclass(slots=True, kw_only=True)
class Soaked:
    """How the requests ended: whole, or by which code; and those that ended otherwise."""

    endings: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str, Told]] = field(default_factory=list)


def behaviours(dice: random.Random):
    """One after the other, for ever: good calls, and bad ones of every kind."""
    while True:
        yield _behaviour(dice) | {"continues": dice.choice(CONTINUES), "gap_ms": dice.choice((0, 0, 1)), "times": 1}


def _behaviour(dice: random.Random) -> dict:
    if dice.random() > MEANWHILE_FAULTY:
        return {}
    kind = dice.choices((BEFORE, WITHIN, REFUSALS), weights=(5, 5, 1))[0]
    behaviour = {"fault": dice.choice(kind)}
    if behaviour["fault"] == "429" and dice.random() < 0.5:
        behaviour |= dice.choice(({"retry_after_ms": 1}, {"retry_after_ms": 200}, {"retry_after_as": "date"}))
    if kind is WITHIN:
        behaviour["at"] = dice.randrange(0, 26)
    return behaviour


@dataclass(slots=True, kw_only=True)
class Left:
    """What a service has open: streams, calls, tasks beyond those that it has at rest, connections to providers."""

    streams: int
    calls: int
    tasks: int
    sockets: int

    @property
    def is_nothing(self) -> bool:
        return not any(astuple(self))


async def tasks_at_rest(client) -> int:
    """How many tasks the service has when nothing else is asked of it, and something was before."""
    for first in ORDERS:
        await ask(client, first, "named")
    await client.simulator.until("openai.live==0")
    return await _least(client, "sse_tasks")


async def left(client, service, tasks: int) -> Left:
    """What is still open when all providers are gone, and those that ask have been: at the best of many looks."""
    for provider in ORDERS:
        await client.simulator.until(f"{provider}.live==0", timeout_s=20)
        client.simulator.control("POST", f"/providers/{provider}/off")
    ports = {int(url.rsplit(":", 1)[1].split("/")[0]) for url in client.simulator.urls.values()}
    for _ in range(LOOKS):
        found = Left(
            streams=int(await metrics.total(client, "sse_active_connections")),
            calls=int(await metrics.total(client, "sse_provider_calls")),
            tasks=max(0, int(await metrics.total(client, "sse_tasks")) - tasks),
            sockets=_connections_to(ports, service),
        )
        if found.is_nothing:
            break
    return found


async def _least(client, name: str) -> int:
    return min([int(await metrics.total(client, name)) for _ in range(20)])


def _connections_to(ports: set[int], service) -> int:
    """How many its processes have, the kernel says."""
    processes = psutil.Process(service.process.pid).children(recursive=True)
    return sum(
        bool(each.raddr) and each.raddr.port in ports and each.status == psutil.CONN_ESTABLISHED
        for process in processes
        for each in process.net_connections("inet")
    )


async def soak(client, seed: int, count: int) -> Soaked:
    """So many requests in all three forms, to all three providers first, while their calls go wrong by chance."""
    dice, soaked = random.Random(seed), Soaked()  # what comes is to come again
    kinds = behaviours(dice)
    asks = iter([(dice.choice(list(ORDERS)), dice.choice(FORMS), question()) for _ in range(count)])

    async def asker():
        for first, form, query in asks:
            for provider in ORDERS:
                client.simulator.behave(provider, **next(kinds))
            _judge(soaked, first, form, query, await ask(client, first, form, query))

    await asyncio.gather(*(asker() for _ in range(CONCURRENCY)))
    return soaked


def _judge(soaked: Soaked, first: str, form: str, query: str, told: Told) -> None:
    is_whole = told.code is None and told.text in {expected(query), ""}  # two in turn may have nothing to say
    is_error = told.code in CLEAR and expected(query).startswith(told.text)
    soaked.endings["whole" if is_whole else told.code or "wrong"] += 1
    if not (is_whole or is_error) or not told.is_ended_well:
        soaked.wrong.append((first, form, told))
