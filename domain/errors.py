"""Everything that can go wrong, one leaf for each reaction it calls for.

WeirError                      carries a `code` of the public contract
├── RequestRefused             nothing was begun; the caller has to change something or come back later
│   ├── Unauthorized           a key is needed
│   │   └── KeyRefused         a key was given, and is not (or no longer) one
│   ├── KeysUnavailable        nobody can tell now whether that is a key; come back in `retry_after_s`
│   ├── InvalidRequest         the request cannot be right; `errors` says where
│   ├── UnknownModel
│   ├── UnknownStream
│   ├── StreamUnavailable      the stream cannot be read here now; come back in `retry_after_s`
│   ├── UnknownProvider
│   ├── UnknownSession
│   ├── AuditUnavailable       the audit trail cannot be read now; come back in `retry_after_s`
│   ├── SessionUnavailable     the conversation cannot be read now; come back in `retry_after_s`
│   ├── Forbidden              the caller may not do this to that stream
│   ├── RequestTooLarge
│   ├── NotCached              only a stored answer was wanted
│   ├── RateLimited            come back in `retry_after_s`: requests, tokens a minute, or the day's budget
│   ├── TooManyConnections     this caller's own limit of live streams
│   └── AtCapacity             the process's limit
├── AnswerFailed               the answer was begun and will not come
│   ├── AllProvidersDown       `attempts` has each one's reason
│   ├── UpstreamTimeout        every attempt was too slow
│   ├── RequestRejected        a provider says that the request itself is wrong
│   ├── StreamInterrupted      lost after the first token
│   ├── Cancelled              stopped by its asker
│   └── Internal               a defect of ours
├── CircuitOpen                not worth an attempt before `retry_after_s`
└── ProviderError              one attempt failed
    ├── ProviderUnavailable    down or broken
    ├── ProviderSaturated      not reached for a shortage of ours
    ├── ProviderOverloaded     asks for less
    │   └── ProviderDeferred   and says when to come back
    ├── ProviderTimeout        silent
    ├── ProviderUnauthorized   our key is bad
    ├── ProviderMisconfigured  the route's model, or what else we have set up, is wrong
    ├── ProviderFull           has as many calls open as it may
    ├── ProviderUnreadable     answered, and a defect of ours keeps us from reading it
    ├── RouteUnfit             the route cannot take this request; another may
    ├── Unaligned              went on with an answer, but not where it was
    ├── PrefixRefused          takes no answer's beginning; it can be asked in words
    ├── AnswerEmpty            ended as it should, and said nothing
    └── ProviderRejected       this very request is refused; another route would refuse it too
        └── ContextTooLong     but not one with a larger context

What is done about each ProviderError is the table in domain/reactions.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from domain.limiting import Quota


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one try: safe to show to a client."""

    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class FieldError:
    """Where a request is wrong, and why."""

    field: str
    reason: str


class WeirError(Exception):
    """Base of every failure the domain knows about; its text may be shown to a client."""

    code: ClassVar[str] = "internal"
    retry_after_s: float | None = None
    attempts: tuple[Attempt, ...] = ()


class RequestRefused(WeirError):
    """The request was not begun."""


class Unauthorized(RequestRefused):
    """A key is needed, and was not given or is not the right one."""

    code = "unauthorized"


class KeyRefused(Unauthorized):
    """What was given is no key, or one that is unknown, revoked or expired."""


class KeysUnavailable(RequestRefused):
    """Where keys are kept cannot be reached, and this one has not been seen here lately."""

    code = "keys_unavailable"

    def __init__(self) -> None:
        super().__init__("API keys cannot be checked now, and this one has not been used here lately.")
        self.retry_after_s = 1.0


class InvalidRequest(RequestRefused):
    """The request cannot be right."""

    code = "invalid_request"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(f"{error.field}: {error.reason}" for error in errors))
        self.errors = errors


class UnknownModel(RequestRefused):
    """The catalogue has no model of that name."""

    code = "unknown_model"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"The model {name!r} is not in the catalogue. It has {', '.join(known) or 'none'}.")


class UnknownStream(RequestRefused):
    """No stream of that id can be read: it never was, or is no longer kept."""

    code = "unknown_stream"


class StreamUnavailable(RequestRefused):
    """Where streams are kept is away, or does not have yet what its reader has seen elsewhere."""

    code = "stream_unavailable"

    def __init__(self) -> None:
        super().__init__("The stream cannot be reached from this instance now.")
        self.retry_after_s = 1.0


class UnknownProvider(RequestRefused):
    """The catalogue has no provider of that name, or it is left out for want of a key."""

    code = "unknown_provider"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"The provider {name!r} is not in use here. In use are {', '.join(known) or 'none'}.")


class UnknownSession(RequestRefused):
    """No conversation of that id is kept for this caller; whether for another is not told."""

    code = "unknown_session"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no session {session_id!r}, or it is no longer kept.")


class SessionUnavailable(RequestRefused):
    """The conversation cannot be read now: where it is kept is away, or what is kept there is not understood here."""

    code = "session_unavailable"

    def __init__(self, detail: str = "") -> None:
        away = "The conversation cannot be reached now; without it the answer would be to another question."
        super().__init__(detail or away)
        self.retry_after_s = 1.0


class AuditUnavailable(RequestRefused):
    """The audit trail cannot be read now: where it is kept is away."""

    code = "audit_unavailable"

    def __init__(self) -> None:
        super().__init__("The audit trail cannot be reached now; what happens meanwhile is written when it can be.")
        self.retry_after_s = 1.0


class Forbidden(RequestRefused):
    """What another caller may do, and this one may not."""

    code = "forbidden"


class RequestTooLarge(RequestRefused):
    """The body is larger than `limit_bytes`."""

    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body may have at most {limit_bytes} bytes.")


class NotCached(RequestRefused):
    """Only a stored answer was wanted, and there is none."""

    code = "not_cached"


class RateLimited(RequestRefused):
    """One of the caller's limits is used up for `retry_after_s` more seconds; `quotas` are what they allow."""

    code = "rate_limited"

    def __init__(self, detail: str, retry_after_s: float, *quotas: Quota) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.quotas = quotas

    @classmethod
    def of_requests(cls, quota: Quota, retry_after_s: float) -> "RateLimited":
        """Too many requests."""
        allowed = f"{quota.rate.amount} requests in {quota.rate.per_s:g} s are allowed"
        return cls(f"{allowed}; wait {_rounded_up(retry_after_s)} s.", retry_after_s, quota)

    @classmethod
    def of_tokens(cls, quota: Quota, needed: int, retry_after_s: float) -> "RateLimited":
        """Too many tokens: this request may take `needed`."""
        allowed = f"{quota.rate.amount} tokens a minute are allowed, {quota.remaining} are left"
        wait = f"this request may take {needed}; wait {_rounded_up(retry_after_s)} s."
        return cls(f"{allowed} and {wait}", retry_after_s, quota)

    @classmethod
    def of_budget(cls, left_usd: float, needed_usd: float, retry_after_s: float, *, is_held: bool) -> "RateLimited":
        """What is left of the day's budget is less than this request may cost.

        `is_held`: it may do once answers under way have ended, for which more is held than they may cost.
        """
        left = (
            f"{_dollars(left_usd)} USD are left of the day's budget, and this request may cost {_dollars(needed_usd)}"
        )
        wait = _rounded_up(retry_after_s)
        if is_held:
            return cls(f"{left}; some is held for answers under way; wait {wait} s.", retry_after_s)
        return cls(f"{left}; a new day begins at midnight UTC, in {wait} s.", retry_after_s)


def _dollars(amount_usd: float) -> str:
    """In words, to a hundredth of a cent."""
    return f"{max(0.0, amount_usd):.4f}"


def _rounded_up(wait_s: float) -> str:
    """In words, and never too short."""
    return f"{ceil(wait_s * 10) / 10:g}"


class TooManyConnections(RequestRefused):
    """The caller has as many live streams as one caller may have."""

    code = "too_many_connections"

    def __init__(self, limit: int, retry_after_s: float) -> None:
        super().__init__(f"{limit} streams are open for this caller, which is all it may have at once.")
        self.retry_after_s = retry_after_s


class AtCapacity(RequestRefused):
    """The process has as many live streams as it may have, also after `waited_s`."""

    code = "at_capacity"

    def __init__(self, retry_after_s: float, waited_s: float = 0.0) -> None:
        sentence = "All the streams that this instance can carry are in use"
        super().__init__(f"{sentence}, and none has ended in {waited_s:g} s." if waited_s else f"{sentence}.")
        self.retry_after_s = retry_after_s


class AnswerFailed(WeirError):
    """The answer will not come, or will not come whole."""

    def __init__(self, detail: str, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(detail)
        self.attempts = attempts


class AllProvidersDown(AnswerFailed):
    """No route could answer; `attempts` has each one's reason."""

    code = "all_providers_down"

    def __init__(self, attempts: tuple[Attempt, ...], retry_after_s: float | None = None) -> None:
        super().__init__("No provider could answer this request.", attempts)
        self.retry_after_s = retry_after_s


class UpstreamTimeout(AnswerFailed):
    """Every attempt was too slow."""

    code = "upstream_timeout"

    def __init__(self, attempts: tuple[Attempt, ...]) -> None:
        super().__init__("No provider answered in time.", attempts)


class RequestRejected(AnswerFailed):
    """A provider says that the request itself is wrong; its reason is the text."""

    code = "provider_rejected"

    def __init__(self, detail: str, attempts: tuple[Attempt, ...] = (), status: int = 400) -> None:
        super().__init__(detail, attempts)
        self.status = status


class StreamInterrupted(AnswerFailed):
    """Lost after its first token: what was sent is not the whole answer."""

    code = "stream_interrupted"


class Cancelled(AnswerFailed):
    """Stopped on request."""

    code = "cancelled"


class Internal(AnswerFailed):
    """A defect of ours; the log has it under the thread id."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("Weir failed; its log says more under this thread id.")


def why_left_alone(*, is_resting: bool) -> str:
    """Our sentence for a route that is not called."""
    return "has asked for a rest" if is_resting else "its circuit is open"


class CircuitOpen(WeirError):
    """What is behind that circuit is being left alone for `retry_after_s` more seconds.

    `is_resting`: it has asked for that itself, and nothing else is against it.
    """

    def __init__(self, circuit: str, retry_after_s: float, *, is_resting: bool = False) -> None:
        self.reason = why_left_alone(is_resting=is_resting)
        super().__init__(f"{circuit}: {self.reason}")
        self.retry_after_s: float = retry_after_s
        self.is_resting = is_resting


MAX_REST_S = 3600.0
"""How long a provider is believed to want rest: one that asks for more may have meant another clock."""


class ProviderError(WeirError):
    """One attempt at the provider failed; `reason` is our sentence, without the provider's secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderUnavailable(ProviderError):
    """Down or broken; a second try or another route may do better."""


class ProviderSaturated(ProviderError):
    """No socket, port or memory was left here for the call; the provider was not asked."""


class ProviderOverloaded(ProviderError):
    """The provider asks for fewer calls."""


class ProviderDeferred(ProviderOverloaded):
    """The provider asks to be called again in `retry_after_s` seconds, MAX_REST_S at most, and not before."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s: float = min(retry_after_s, MAX_REST_S)


class ProviderTimeout(ProviderError):
    """The provider was silent for longer than allowed."""


class ProviderUnauthorized(ProviderError):
    """The provider will not take our key."""


class ProviderMisconfigured(ProviderError):
    """The provider does not have the route's model, or no quota for us: somebody here has to change something."""


class ProviderFull(ProviderError):
    """The provider has as many calls open from here as the catalogue allows; it was not asked."""

    sentence: ClassVar[str] = "has as many calls open as it may"
    retry_after_s: float = 1.0

    def __init__(self) -> None:
        super().__init__(self.sentence)


class ProviderUnreadable(ProviderError):
    """Reading what the provider gave failed in a way that nobody had thought of: a defect of ours, which is told."""

    sentence: ClassVar[str] = "gave something that could not be read"

    def __init__(self) -> None:
        super().__init__(self.sentence)


class RouteUnfit(ProviderError):
    """The route cannot take this very request: for want of words, for its choices, or for its size by our limits.

    It says nothing of the provider, and another route may take the request.
    """


class Unaligned(ProviderError):
    """The provider, asked to go on with an answer, said what cannot be joined to it for certain, or nothing."""

    def __init__(self) -> None:
        super().__init__("did not go on where the answer was")


class PrefixRefused(ProviderError):
    """The provider refuses to be given the beginning of an answer, or has nothing where that is taken."""

    def __init__(self) -> None:
        super().__init__("does not take the beginning of an answer")


class AnswerEmpty(ProviderError):
    """The provider ended its answer before it had said anything; another may have something to say."""

    def __init__(self) -> None:
        super().__init__("had nothing to say")


class ProviderRejected(ProviderError):
    """The provider refuses this very request with `status` 400 or 422."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class ContextTooLong(ProviderRejected):
    """The provider refuses this very request as longer than what its model can read."""
