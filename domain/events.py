"""What happened, and who hears of it. No stage names a metric or writes a log line: listeners do."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from domain.breaker import CircuitState
from domain.chat import Caller, Usage
from domain.generation import Sealed
from domain.values import value


@value
class RequestAdmitted:
    """A request has its slot."""

    thread_id: str
    model: str


@value
class RequestTurnedAway:
    """A request of `caller` was refused, for the reason that `code` names; `requested` is a model of the catalogue."""

    thread_id: str
    code: str
    caller: Caller
    requested: str | None
    duration_s: float


@value
class CacheHit:
    """A stored answer is served from `tier` (l1, l2)."""

    thread_id: str
    tier: str
    fingerprint: str


@value
class CacheMiss:
    """No stored answer would do."""

    thread_id: str


@value
class CachePurged:
    """Stored answers are gone by an operator's word: those of one model or scope, or (None) of all."""

    model: str | None
    scope: str | None


@value
class Coalesced:
    """A request follows a generation that is under way."""

    thread_id: str
    generation_id: str


@value
class RateChecked:
    """A caller's bucket was asked, by way of `path` (local, redis)."""

    path: str


@value
class AttemptEnded:
    """One try at a provider is over: `outcome` is ok, cancelled, or the kind of failure."""

    thread_id: str
    provider: str
    model: str
    outcome: str
    reason: str | None = None


@value
class FailedOver:
    """A request was taken from one provider to the next, in `phase` first_token, midstream or hedge."""

    thread_id: str
    previous: str
    provider: str
    phase: str


@value
class CircuitChanged:
    """The circuit of a provider's model has come into `state`."""

    provider: str
    model: str
    state: CircuitState


@value
class GenerationSealed:
    """A generation has ended as `sealed` says."""

    thread_id: str
    generation_id: str
    sealed: Sealed


@value
class TokensSpent:
    """A call that gave something of an answer is over, and has used and cost this."""

    thread_id: str
    provider: str
    model: str
    usage: Usage
    cost_usd: float


@value
class FirstChunkServed:
    """A client has been sent its first chunk, `seconds` after it asked."""

    provider: str
    cache: str
    seconds: float


@value
class AnswerServed:
    """A client has been sent all it will get; `cache` is where it came from, `is_whole` whether nothing is missing.

    `failure` is the code of what the answer failed of, `cost_usd` what this client's asking has cost; None: not known.
    """

    thread_id: str
    stream_id: str
    caller: Caller
    requested: str
    cache: str
    provider: str | None
    model: str | None
    chunk_count: int
    duration_s: float
    is_whole: bool
    failure: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    saved_usd: float = 0.0


@value
class ExchangeEnded:
    """A client's exchange is over: `endpoint` is the route's template, `duration_s` lasts to the last byte."""

    thread_id: str
    method: str
    endpoint: str
    status: int
    duration_s: float


@value
class StageTimed:
    """A tracked request has spent `duration_s` in `stage`; `error_type` when the stage ended it."""

    thread_id: str
    stage: str
    duration_s: float
    error_type: str | None = None


@value
class StoreFailed:
    """A shared store (Redis) has not done what `operation` names."""

    operation: str
    error: BaseException


@value
class SessionFailed:
    """A shared store is there, and has not given, or not taken, the conversation of `session_id`."""

    session_id: str
    error: BaseException


@value
class EntryUnreadable:
    """What a store has under `fingerprint` is not an answer that this version can read."""

    fingerprint: str
    error: BaseException


@value
class ComponentChanged:
    """What depends on `component` (redis, keys) is degraded from now on, because of `error`, or whole again.

    `reason` is a sentence for operators, where there is more to say than the error's type; `is_public`: for anybody.
    """

    component: str
    is_degraded: bool
    error: BaseException | None = None
    reason: str | None = None
    is_public: bool = False


@value
class AuditEntriesLost:
    """So many entries of the audit trail could not be kept, and never will be."""

    count: int


@value
class DefectFound:
    """Something happened that cannot: a defect of ours, under the thread id that finds it."""

    thread_id: str
    error: BaseException


T = TypeVar("T")
Publish = Callable[[Any], None]


class Events:
    """Tells each event to the listeners of its kind, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._listeners: defaultdict[type, list[Callable[[Any], None]]] = defaultdict(list)

    def subscribe(self, kind: type[T], listener: Callable[[T], None]) -> None:
        """`listener` hears of every event of exactly that kind; it must not block."""
        self._listeners[kind].append(listener)

    def publish(self, event: object) -> None:
        """Every listener has heard of `event`; one that fails does not stop the rest, nor the request."""
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001  # a listener's defect must not cost anybody an answer
                if not isinstance(event, DefectFound):
                    self.publish(DefectFound(thread_id="-", error=error))
