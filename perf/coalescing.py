"""Many ask the same new question at once: one call goes upstream, and all get the whole answer."""

from collections.abc import Iterator

from perf import targets
from perf.figures import Figure
from perf.load import Closed
from perf.processes import load, simulator, weir

_READERS = 200


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Calls upstream, and whole answers."""
    readers = _READERS // (4 if is_quick else 1)
    with simulator() as provider, weir(provider) as service:
        target = targets.named_events(service.url, "fifty", "Who asks all at once?")
        before_s = service.cpu_s()
        answers = load(Closed(target=target, connections=readers, limit=readers))
        cpu_s = service.cpu_s() - before_s
        calls = provider.calls()
    whole = answers.count if answers.fewest_tokens >= targets.CHUNK_COUNTS["fifty"] else 0
    yield Figure(scenario="coalescing", name=f"calls upstream for {readers} readers", value=calls, at_most=1)
    yield Figure(scenario="coalescing", name="whole answers", value=whole, at_least=readers)
    yield Figure(scenario="coalescing", name="CPU a chunk and reader", value=cpu_s / readers / 50 * 1e6, unit="µs")
