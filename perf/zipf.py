"""Questions as people ask them, a few often and most seldom, of three instances, one of which is restarted half-way."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate
from statistics import median

from perf import targets
from perf.figures import Figure
from perf.load import Answers
from perf.processes import Server, Simulator, finished, fleet, loading, milestone, simulator, weir
from perf.redis_server import redis
from perf.spread import Spread

_EXPONENT = 1.1
_CONNECTIONS = 24
_INSTANCES = 3
_TIERS = ("l1", "l2", "coalesced", "miss")


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Calls upstream for each distinct question, and where the answers came from."""
    distinct, requests = (1_000, 5_000) if is_quick else (10_000, 100_000)
    questions = _questions(distinct, requests)
    with ExitStack() as stack:
        server, provider = stack.enter_context(redis()), stack.enter_context(simulator())
        lasting = stack.enter_context(fleet(provider, server.url, _INSTANCES - 1))
        answers = _asked(provider, server.url, lasting, questions)
        calls = provider.calls()
    asked = len(set(questions))
    yield Figure(scenario="zipf", name="distinct questions asked", value=asked)
    yield Figure(scenario="zipf", name="calls upstream, beyond those", value=calls - asked, at_most=0)
    yield Figure(scenario="zipf", name="answers", value=answers.count, at_least=requests)
    yield from _by_tier(answers)
    yield Figure(scenario="zipf", name="asked again of another, the first being gone", value=answers.lost)
    yield Figure(scenario="zipf", name="rate", value=answers.count / answers.wall_s, unit="/s")


def _questions(distinct: int, requests: int) -> list[int]:
    """Numbers of questions, of which number k is asked in proportion to 1 / (k + 1) ** _EXPONENT."""
    weights = list(accumulate((number + 1) ** -_EXPONENT for number in range(distinct)))
    return random.Random(1).choices(range(distinct), cum_weights=weights, k=requests)


def _asked(provider: Simulator, redis_url: str, lasting: list[Server], questions: list[int]) -> Answers:
    """The answers, of which the last instance gives its part until half of them are there, and after its restart."""
    with ExitStack() as stack:
        with weir(provider, redis_url) as ending:
            asked = [targets.named_events(each.url, "ten", "What is {n}?") for each in (*lasting, ending)]
            job = Spread(targets=asked, connections=_CONNECTIONS, questions=questions)
            generator = stack.enter_context(loading(job))
            assert milestone(generator) == b"half\n"
        stack.enter_context(weir(provider, redis_url, port=asked[-1].port))
        return finished(generator)


def _by_tier(answers: Answers) -> Iterator[Figure]:
    counts = Counter(seen.cache for seen in answers.seen)
    for tier in _TIERS:
        yield Figure(scenario="zipf", name=f"{tier}, share", value=counts[tier] / answers.count)
        if counts[tier]:
            ms = median(seen.first_s - seen.asked_s for seen in answers.seen if seen.cache == tier) * 1000
            yield Figure(scenario="zipf", name=f"{tier}, first chunk at the median", value=ms, unit="ms")
