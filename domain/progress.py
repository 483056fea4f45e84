"""What has come of one answer so far, whoever has given it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from domain.books import Booking, estimated_usage, total_usage
from domain.chat import WHOLE_REASONS, ChatRequest, Chunk, Usage
from domain.errors import (
    AllProvidersDown,
    AnswerFailed,
    Attempt,
    CircuitOpen,
    ProviderError,
    ProviderTimeout,
    StreamInterrupted,
    UpstreamTimeout,
)
from domain.generation import Generation, ProviderChange, Sealed, State
from domain.selection import Route
from domain.tokens import estimated_tokens

_USD_DIGITS = 12
"""What comes behind is noise: prices are told in hundredths of a millionth for a token, at the finest."""


@dataclass(slots=True, kw_only=True)
class Share:
    """What one call has given of the answer to `request`, and its usage if the provider has told it.

    One that `is_inherited` was asked by an earlier leader: it is part of what the answer took, not of what was asked
    here.
    """

    route: Route
    request: ChatRequest
    usage: Usage | None = None
    is_inherited: bool = False
    chunks: list[Chunk] = field(default_factory=list)

    def booking(self) -> Booking:
        """What the call has used; who has counted neither prompt nor answer has not counted."""
        told = self.usage
        if told is None or not (told.prompt_tokens or told.completion_tokens):
            told = estimated_usage(self.request, self.chunks)
        return Booking(route=self.route, usage=told)

    @property
    def text_tokens(self) -> int:
        """How many tokens of text it has given: by its provider's count, or at least one a chunk."""
        told = self.usage.completion_tokens if self.usage else 0
        return told or sum(1 for chunk in self.chunks if chunk.content)


@dataclass(slots=True, kw_only=True)
class Progress:
    """The answer so far; `finished` are the choices that nothing is missing of.

    `chunks` are those of the log, an earlier leader's too; so are `shares`.
    `clock`, `began_s` and `first_chunk_s` are in monotonic seconds.
    """

    thread_id: str
    clock: Callable[[], float]
    lost_provider: str = ""
    began_s: float = field(init=False)
    route: Route | None = None
    attempts: list[Attempt] = field(default_factory=list)
    only_timeouts: bool = True
    retry_after_s: float | None = None
    chunks: list[Chunk] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    finished: frozenset[int] = frozenset()
    first_chunk_s: float | None = None
    finish_reason: str | None = None
    """Of several choices' reasons the last, but one of a filter stands."""

    def __post_init__(self) -> None:
        self.began_s = self.clock()

    def resume(self, generation: Generation, request: ChatRequest, routes: Sequence[Route]) -> None:
        """Count what an earlier leader has written of the answer to `request`, and remember whom it was asking.

        What its calls have used is estimated: their providers' counts, if there were any, were lost with it.
        """
        self.lost_provider = generation.provider
        share: Share | None = None
        for record in generation.records:
            if isinstance(record, ProviderChange):
                share = Share(route=_route_of(record, routes), request=request, is_inherited=True)
            elif isinstance(record, Chunk):
                self.came(record)
                if share is not None:
                    self._inherit(share, record)

    def _inherit(self, share: Share, chunk: Chunk) -> None:
        if not share.chunks:
            self.shares.append(share)
        share.chunks.append(chunk)

    @property
    def chunk_count(self) -> int:
        """How many chunks the answer has."""
        return len(self.chunks)

    @property
    def text(self) -> str:
        """What has been said."""
        return "".join([chunk.content for chunk in self.chunks])

    @property
    def used_tokens(self) -> int:
        """How many tokens of a limit the text has taken: rather too few, as an answer is not to be cut short."""
        return min(sum(share.text_tokens for share in self.shares), estimated_tokens(self.text))

    def came(self, chunk: Chunk) -> None:
        """Count `chunk`, which is part of the answer."""
        self.chunks.append(chunk)
        if chunk.content and self.finished:
            self.finished -= {chunk.index}
        if chunk.finish_reason:
            self.finished |= {chunk.index}
            if self.finish_reason is None or self.finish_reason in WHOLE_REASONS:
                self.finish_reason = chunk.finish_reason
        if self.first_chunk_s is None:
            self.first_chunk_s = self.clock()

    def sealed(self, state: State, failure: AnswerFailed | None = None) -> Sealed:
        """The record that ends the generation in `state`."""
        route, bookings = self.route, self.bookings()
        return Sealed(
            state=state,
            provider=route.provider if route else None,
            model=route.model if route else None,
            finish_reason=self.finish_reason,
            usage=total_usage(bookings),
            cost_usd=round(sum(booking.cost_usd for booking in bookings), _USD_DIGITS) if bookings else None,
            chunk_count=self.chunk_count,
            ttft_s=None if self.first_chunk_s is None else self.first_chunk_s - self.began_s,
            duration_s=self.clock() - self.began_s,
            failure=failure,
        )

    def failed(self, route: Route, failure: ProviderError | CircuitOpen) -> None:
        """Remember why `route` did not answer, and how soon it may."""
        self.attempts.append(Attempt(route.provider, route.model, failure.reason))
        self.only_timeouts = self.only_timeouts and isinstance(failure, ProviderTimeout)
        if failure.retry_after_s is not None:
            self.retry_after_s = min(failure.retry_after_s, self.retry_after_s or failure.retry_after_s)

    def out_of_routes(self) -> AnswerFailed:
        """The error for a client when no route is left."""
        attempts = tuple(self.attempts)
        if self.chunks:
            return StreamInterrupted(self._interruption(), attempts)
        if self.only_timeouts:
            return UpstreamTimeout(attempts)
        return AllProvidersDown(attempts, self.retry_after_s)

    def _interruption(self) -> str:
        if not self.attempts:
            return "The instance that was producing the answer was lost, and nobody could go on."
        last = self.attempts[-1]
        return f"{last.provider} {last.reason} after {self.chunk_count} chunks."

    def bookings(self) -> Sequence[Booking]:
        """What each call that gave something of the answer has used."""
        return [share.booking() for share in self.shares]

    def bookings_here(self) -> Sequence[Booking]:
        """What those of the calls have used that were made here."""
        return [share.booking() for share in self.shares if not share.is_inherited]


def _route_of(change: ProviderChange, routes: Sequence[Route]) -> Route:
    """The route that was turned to; one that is no longer in the catalogue has no price."""
    same = (route for route in routes if (route.provider, route.model) == (change.provider, change.model))
    return next(same, Route(provider=change.provider, model=change.model))
