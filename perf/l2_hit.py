"""Answers of 50 chunks that are stored in Redis alone, against the same ones in the instance's own memory."""

from collections.abc import Iterator
from statistics import median

from perf import targets
from perf.connections import Target
from perf.figures import Figure
from perf.load import Alternate
from perf.processes import Server, load, simulator, weir
from perf.redis_server import redis
from perf.spread import Spread

_CONNECTIONS = 16
_QUESTIONS = list(range(500))
_QUERY = "Which weir is number {n}?"


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Requests a second as a share of the other's, CPU a request, and the time that one at a time takes longer.

    One instance keeps all answers in its memory, the other a single one, which is never the one asked for.
    """
    with (
        redis() as server,
        simulator() as provider,
        weir(provider, server.url) as near,
        weir(provider, server.url, WEIR_CACHE_L1_ENTRIES="1") as far,
    ):
        pair = [(each, targets.named_events(each.url, "fifty", _QUERY)) for each in (near, far)]
        for _, target in pair:
            load(Spread(targets=[target], connections=_CONNECTIONS, questions=_QUESTIONS))
        yield from _rates(pair, rounds=2 if is_quick else 7, round_s=1.0 if is_quick else 2.0)
        yield from _times([target for _, target in pair], rounds=100 if is_quick else len(_QUESTIONS))


def _rates(pair: list[tuple[Server, Target]], *, rounds: int, round_s: float) -> Iterator[Figure]:
    runs = [[_run(*each, tier, round_s) for each, tier in zip(pair, ("l1", "l2"), strict=True)] for _ in range(rounds)]
    ratios = [far[0] / near[0] for near, far in runs]
    yield Figure(scenario="l2_hit", name="rate, share of an L1 hit's", value=median(ratios), at_least=0.6)
    yield Figure(scenario="l2_hit", name="least and", value=min(ratios))
    yield Figure(scenario="l2_hit", name="greatest share of the rounds", value=max(ratios))
    for at, tier in enumerate(("L1", "L2")):
        yield Figure(scenario="l2_hit", name=f"{tier}: rate", value=median(run[at][0] for run in runs), unit="/s")
        cpu_us = median(run[at][1] for run in runs)
        yield Figure(scenario="l2_hit", name=f"{tier}: CPU a request", value=cpu_us, unit="µs")


def _run(server: Server, target: Target, tier: str, round_s: float) -> tuple[float, float]:
    """Answers a second, and CPU microseconds an answer."""
    before_s = server.cpu_s()
    answers = load(Spread(targets=[target], connections=_CONNECTIONS, questions=_QUESTIONS, limit_s=round_s))
    cpu_us = (server.cpu_s() - before_s) / answers.count * 1e6
    tiers = {seen.cache for seen in answers.seen}
    assert tier in tiers <= {tier, "l1"}, tiers  # the one answer that the far one may keep is asked for now and then
    assert answers.fewest_tokens >= targets.CHUNK_COUNTS["fifty"]
    return answers.count / answers.wall_s, cpu_us


def _times(by_turns: list[Target], *, rounds: int) -> Iterator[Figure]:
    answers = load(Alternate(targets=by_turns, rounds=rounds))
    near_ms, far_ms = (median(times_s) * 1000 for times_s in answers.first_token_s)
    yield Figure(scenario="l2_hit", name="added at the median", value=far_ms - near_ms, unit="ms", at_most=2.0)
    yield Figure(scenario="l2_hit", name="median, L1", value=near_ms, unit="ms")
