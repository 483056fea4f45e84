"""Random faults on all providers at once, and what every client was told of them."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from infrastructure.simulator.beginnings import Continuing
from tests.app.asking import question
from tests.failover.asking import FORMS, ORDERS, Told, ask, expected

CONCURRENCY = 32
MEANWHILE_FAULTY = 0.4
"""Share of the providers' calls that go wrong."""

BEFORE = ("reset", "401", "403", "404", "408", "409", "429", "500", "502", "503", "529", "quota", "silence_headers")
REFUSALS = ("400", "413", "422", "context_length", "content_filter")
WITHIN = ("cut", "reset_midstream", "malformed", "error_event", "no_finish", "stall", "silence_first_token", "empty")
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
        behaviour["retry_after_ms"] = dice.choice((1, 20, 200))
    if kind is WITHIN:
        behaviour["at"] = dice.randrange(0, 26)
    return behaviour


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
