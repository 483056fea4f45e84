"""What is done about each way in which a provider can fail. docs/failover.md draws these two tables as one.

Every way ends in one leaf of domain/errors.py, whoever the provider is; every leaf has one reaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from domain.errors import (
    AnswerEmpty,
    CircuitOpen,
    ContextTooLong,
    PrefixRefused,
    ProviderDeferred,
    ProviderError,
    ProviderFull,
    ProviderMisconfigured,
    ProviderOverloaded,
    ProviderRejected,
    ProviderSaturated,
    ProviderTimeout,
    ProviderUnauthorized,
    ProviderUnavailable,
    ProviderUnreadable,
    RouteUnfit,
    Unaligned,
)


class Here(Enum):
    """Whether the same route is asked again, before its first token.

    IN_WORDS: for the rest of an answer, if it was given the beginning as a prefix.
    """

    NO = "no"
    IN_WORDS = "at once, in words"
    BACKOFF = "after a growing, random wait"
    WISH = "after the wait it asks for, if that is short"


class Elsewhere(Enum):
    """Whether another route is asked, before the first token or (for the rest) after it."""

    NO = "no: the caller is told"
    NEXT = "the next one"
    ONCE = "the next one, once"
    LARGER = "only one with a larger context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What is done about a failure. `counts`: against the route's circuit. `outcome` is its name in metrics."""

    here: Here
    elsewhere: Elsewhere
    counts: bool
    outcome: str


REACTIONS: Mapping[type[ProviderError | CircuitOpen], Reaction] = {
    ProviderUnavailable: Reaction(here=Here.BACKOFF, elsewhere=Elsewhere.NEXT, counts=True, outcome="unavailable"),
    ProviderOverloaded: Reaction(here=Here.BACKOFF, elsewhere=Elsewhere.NEXT, counts=True, outcome="overloaded"),
    ProviderDeferred: Reaction(here=Here.WISH, elsewhere=Elsewhere.NEXT, counts=False, outcome="overloaded"),
    ProviderTimeout: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=True, outcome="timeout"),
    ProviderUnauthorized: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=True, outcome="unauthorized"),
    ProviderMisconfigured: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=True, outcome="misconfigured"),
    ProviderRejected: Reaction(here=Here.NO, elsewhere=Elsewhere.NO, counts=False, outcome="rejected"),
    ContextTooLong: Reaction(here=Here.NO, elsewhere=Elsewhere.LARGER, counts=False, outcome="rejected"),
    ProviderSaturated: Reaction(here=Here.BACKOFF, elsewhere=Elsewhere.NEXT, counts=False, outcome="saturated"),
    ProviderFull: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=False, outcome="full"),
    ProviderUnreadable: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=True, outcome="defect"),
    RouteUnfit: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=False, outcome="route_unfit"),
    Unaligned: Reaction(here=Here.IN_WORDS, elsewhere=Elsewhere.NEXT, counts=False, outcome="unaligned"),
    PrefixRefused: Reaction(here=Here.IN_WORDS, elsewhere=Elsewhere.NEXT, counts=False, outcome="prefix_refused"),
    AnswerEmpty: Reaction(here=Here.NO, elsewhere=Elsewhere.ONCE, counts=False, outcome="empty"),
    CircuitOpen: Reaction(here=Here.NO, elsewhere=Elsewhere.NEXT, counts=False, outcome="circuit_open"),
}


WAYS: Mapping[str, type[ProviderError | CircuitOpen]] = {
    "refuses the connection": ProviderUnavailable,
    "resets the connection": ProviderUnavailable,
    "fails the TLS handshake": ProviderUnavailable,
    "has a name that does not resolve": ProviderUnavailable,
    "cannot be connected to within `WEIR_CONNECT_TIMEOUT_S`": ProviderTimeout,
    "answers 401 or 403: our key is bad": ProviderUnauthorized,
    "says that our quota is used up": ProviderMisconfigured,
    "answers 404: it does not have the model": ProviderMisconfigured,
    "answers 400, 413 or 422, or 404 for something in the request: the request is wrong": ProviderRejected,
    "finds the context too long": ContextTooLong,
    "refuses the prompt by its content filter": ProviderRejected,
    "answers 408": ProviderTimeout,
    "answers 409": ProviderUnavailable,
    "answers 429, 503 or 529 and says when to come back": ProviderDeferred,
    "answers 429 and does not say when to come back": ProviderOverloaded,
    "answers 429 to a request that is by itself larger than our limit": RouteUnfit,
    "answers 500, 502, 503 or 529": ProviderUnavailable,
    "answers with another status below 500": ProviderMisconfigured,
    "is silent before its headers": ProviderTimeout,
    "is silent before its first token": ProviderTimeout,
    "stalls after its first token": ProviderTimeout,
    "cuts the stream": ProviderUnavailable,
    "sends a malformed event": ProviderUnavailable,
    "sends an error object in the stream": ProviderUnavailable,
    "ends without a finish reason, whatever end mark it sends": ProviderUnavailable,
    "gives something that a defect of ours keeps us from reading": ProviderUnreadable,
    "has no words for something in the request": RouteUnfit,
    "gives fewer choices (`n`) than are asked for, by its `max_choices` or by what came": RouteUnfit,
    "goes on with an answer in a way that cannot be joined to it, or with nothing": Unaligned,
    "refuses to be given the beginning of an answer": PrefixRefused,
    "answers, and says nothing": AnswerEmpty,
    "cannot be called for want of sockets here": ProviderSaturated,
    "has as many calls open as its `max_concurrency` allows": ProviderFull,
    "is being left alone: its circuit is open, or it has asked for rest": CircuitOpen,
}
"""By what the provider does. An error object that says more exactly what is wrong is taken at its word, as a status."""


def reaction_to(failure: ProviderError | CircuitOpen) -> Reaction:
    """The reaction to `failure`."""
    return REACTIONS[type(failure)]
