"""A thousand ask ten instances the same new question at once: one call goes upstream, and all get the whole answer."""

from collections.abc import Iterator
from statistics import median, quantiles

from perf import targets
from perf.figures import Figure
from perf.load import Answers
from perf.processes import Server, fleet, load, simulator
from perf.redis_server import redis
from perf.spread import Spread

_INSTANCES, _READERS = 10, 1000
_WARM_UP = 20


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Calls upstream, whole answers, and how long after the leader's asker the others have their first chunk.

    The provider thinks for two seconds, so that all have been heard before it begins: what is timed is how the chunk
    spreads, not how long the machine takes to accept a thousand requests.
    """
    instances, readers = (3, 100) if is_quick else (_INSTANCES, _READERS)
    with redis() as server, simulator() as provider, fleet(provider, server.url, instances) as servers:
        _spread(servers, "ten", readers=instances, questions=list(range(instances * _WARM_UP)))
        before, calls_before = server.work(), provider.calls()
        answers = _spread(servers, "thinking", readers=readers, questions=[-1] * readers)
        work, calls = server.work().since(before), provider.calls() - calls_before
    firsts_s = [seen.first_s for seen in answers.seen]
    leaders_s = [seen.first_s for seen in answers.seen if seen.cache == "miss"]
    asked_s = [seen.asked_s for seen in answers.seen]
    whole = answers.count if answers.fewest_tokens >= targets.CHUNK_COUNTS["thinking"] else 0
    late_ms = [(each_s - max(leaders_s)) * 1000 for each_s in firsts_s]
    yield Figure(scenario="stampede", name=f"calls upstream, {instances} instances", value=calls, at_most=1)
    yield Figure(scenario="stampede", name="whole answers", value=whole, at_least=readers)
    yield Figure(
        scenario="stampede", name="first chunk after the leader's, p99", value=_p99(late_ms), unit="ms", at_most=50.0
    )
    yield Figure(scenario="stampede", name="the same, median", value=median(late_ms), unit="ms")
    yield Figure(scenario="stampede", name="leader's first chunk", value=max(leaders_s) * 1000, unit="ms")
    yield Figure(scenario="stampede", name="time to ask all", value=(max(asked_s) - min(asked_s)) * 1000, unit="ms")
    yield Figure(scenario="stampede", name="Redis commands a reader", value=work.commands / readers)


def _spread(servers: list[Server], model: str, *, readers: int, questions: list[int]) -> Answers:
    asked = [targets.named_events(each.url, model, "Who asks, number {n}?") for each in servers]
    return load(Spread(targets=asked, connections=readers, questions=questions))


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]
