"""The life of a request in six stages: validation, cache lookup, rate limiting, selection, streaming, cleanup.

1  validation     the model, a slot, what was said before                 400 404 429 503
2  cache lookup   2.1 this process, 2.2 the fleet, 2.3 under way now      504 if only a stored answer was wanted
3  rate limiting  who would cause work spends a token (domain/spending.py)  429
4  selection      the model's routes in order, open circuits left out     503
5  streaming      the leader's task (domain/leading.py)
6  cleanup        the leader seals and caches; the turn is kept; the answer's `close` frees the slot
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

from domain.admission import REFUSED_IN, Present, Slot, Slots, unnoted
from domain.answer import Answer, CacheStatus
from domain.caching import NO_DIRECTIVES, CacheDirectives
from domain.chat import Caller, ChatRequest, Turn
from domain.errors import (
    AtCapacity,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotCached,
    RequestRefused,
    StreamInterrupted,
    StreamUnavailable,
    TooManyConnections,
    UnknownModel,
    UnknownStream,
    WeirError,
)
from domain.events import CacheHit, CacheMiss, Coalesced, Publish, RequestAdmitted, RequestTurnedAway
from domain.fingerprint import CacheScope, fingerprint, sharing_scope
from domain.generation import Generation, Opened, Reader, Seen
from domain.leading import Leaders, Task
from domain.ports import Claim, GenerationLog, Lease, ResponseCache
from domain.routing import Routing
from domain.selection import Model, Route
from domain.sessions import Conversations
from domain.spending import Spending, Spent
from domain.tracking import Trace, Tracker
from domain.values import value


@value
class Ask:
    """A question, who asks it, and what it asks of the cache.

    `session_id` is the conversation that it goes on with; stage 1 makes it the `turn`, and puts what was said before
    into the request. `present` is the context within which it waits for a slot.
    """

    request: ChatRequest
    caller: Caller
    thread_id: str
    directives: CacheDirectives = NO_DIRECTIVES
    session_id: str | None = None
    turn: Turn | None = None
    present: Present = nullcontext


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the lifecycle is told by the configuration. `ttl_s` is how long an answer is fresh."""

    models: Mapping[str, Model]
    ttl_s: float
    scope: CacheScope


@value
class _Source:
    """The generation that answers a request, and where that comes from; `age_s` is how old a stored one is.

    `turn` is what the generation was claimed with.
    """

    generation: Generation
    cache: CacheStatus
    age_s: float | None = None
    turn: Turn | None = None


_STOPPED = "The stream was stopped."
_FORKED = (
    "Two instances went on with the answer apart, each in its own words: what is here would not fit behind what was "
    "sent. Without Last-Event-ID the answer is told from its start."
)
_STOPPED_BY_OPERATOR = "An operator stopped the stream."


class Lifecycle:
    """Answers questions, and lets clients come back to answers. Each stage is a method."""

    def __init__(
        self,
        *,
        policy: Policy,
        slots: Slots,
        tiers: Sequence[tuple[CacheStatus, ResponseCache]],
        log: GenerationLog,
        spending: Spending,
        routing: Routing,
        leaders: Leaders,
        conversations: Conversations,
        tracker: Tracker,
        publish: Publish,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._slots = slots
        self._tiers = tiers
        self._log = log
        self._spending = spending
        self._routing = routing
        self._leaders = leaders
        self._conversations = conversations
        self._tracker = tracker
        self._publish = publish
        self._new_id = new_id
        self._clock = clock
        self._unix_now = unix_now
        log.took_over = self._resume
        log.asked_to_stop = lambda stream_id: leaders.stop(stream_id, _STOPPED)

    def check_room(self, caller: Caller, thread_id: str) -> None:
        """The caller would not be refused a slot in this moment; else it need not be read what is asked.

        Raises:
            TooManyConnections, AtCapacity: as `ask` would.
        """
        began_s = self._clock()
        try:
            self._slots.check(caller.user, has_limit=not caller.is_operator)
        except (AtCapacity, TooManyConnections) as refusal:
            trace = self._tracker.begin(thread_id)
            trace.failed(REFUSED_IN[type(refusal)], refusal)
            trace.close()
            self._refused(thread_id, caller, refusal, began_s)
            raise

    async def ask(self, ask: Ask) -> Answer:
        """An answer that is stored, under way or begun; close it when the client is served or gone.

        Raises:
            RequestRefused: by the leaf that says why.
            AllProvidersDown: no route is worth an attempt now.
        """
        began_s = self._clock()
        trace = self._tracker.begin(ask.thread_id)
        slot: Slot | None = None
        try:
            with trace.stage("1"):
                model = self._known_model(ask)
                slot = await self._admit(ask, trace)
                ask = await self._recalled(ask)
            answer = await self._answer(ask, model, slot, trace, began_s)
        except BaseException as refusal:
            if slot is not None:
                slot.release()
            trace.close()
            if isinstance(refusal, WeirError):
                self._refused(ask.thread_id, ask.caller, refusal, began_s, ask.request.model)
            raise
        return answer

    async def join(
        self,
        stream_id: str,
        caller: Caller,
        thread_id: str,
        after: Seen | None,
        *,
        is_given: bool = False,
        present: Present = nullcontext,
    ) -> Answer:
        """The stream of that id, from its start or after the event `after`.

        `thread_id` is the exchange's, `is_given` whether the client gave it. An asker who comes back without one is
        told as at first; everybody else is told as who follows. It is no new question: nothing is spent or saved.
        `present` is the context within which it waits for a slot.

        Raises:
            UnknownStream: there is none that this caller may read.
            StreamUnavailable: nobody can tell now, or what the client has seen may still come.
            Forbidden: it is of a model that this caller may not ask for.
            InvalidRequest: the stream has no such event yet, and nobody can have been sent it.
            TooManyConnections, AtCapacity: no slot is free.
        """
        began_s = self._clock()
        try:
            generation = await self._readable(stream_id, caller)
            _check_model(generation.opened.model, caller)
            with closing(Reader(generation)):  # who waits for a slot is a reader already
                failure = None if after is None else await self._unfit(generation, after)
                quotas = self._spending.quotas(caller)
                slot = await self._taken_anew(caller, thread_id, present)
                opened, cache = generation.opened, CacheStatus.COALESCED
                if _is_its_asker(opened, caller, thread_id if is_given else None):
                    thread_id, cache = opened.thread_id, _led(generation)
                answer = Answer(
                    generation=generation,
                    cache=cache,
                    caller=caller,
                    thread_id=thread_id,
                    slot=slot,
                    quotas=quotas,
                    publish=self._publish,
                    clock=self._clock,
                    began_s=began_s,
                    position=0 if after is None else after.number + 1,
                    is_rejoined=True,
                    failure=failure,
                )
        except RequestRefused as refusal:
            self._refused(thread_id, caller, refusal, began_s)
            raise
        await self._conversations.go_on(opened.turn if opened.user == caller.user and not failure else None, answer)
        return answer

    async def _unfit(self, generation: Generation, after: Seen) -> StreamInterrupted | None:
        """What to tell a client that what is here does not fit behind what it was sent elsewhere.

        One of the two is of a leader that another has gone on without.

        Raises:
            StreamUnavailable: nobody can tell now, or what the client has seen may still come.
            InvalidRequest: nobody was sent that event, for no instance has had more of the stream than this one.
        """
        if after.number >= len(generation.records) and not generation.has_left(after.fork):
            await self._log.catch_up(generation, after.number)
        if generation.fork_of(after.number) != after.fork:
            return StreamInterrupted(_FORKED)
        last = len(generation.records) - 1
        if after.number > last:
            if generation.epoch > 1 and not generation.has_forked:
                raise StreamUnavailable  # whoever goes on with it is about to say so
            reason = f"{after.number} is beyond the end: the last event of this stream is {last}"
            raise InvalidRequest(FieldError("Last-Event-ID", reason))
        return None

    async def stop(self, stream_id: str, caller: Caller) -> None:
        """The stream has been stopped for all its readers, or had ended before.

        Raises:
            UnknownStream: there is none that this caller may read.
            StreamUnavailable: nobody can tell now.
            Forbidden: somebody else asked for it.
        """
        generation = await self._readable(stream_id, caller)
        if not caller.is_operator and generation.opened.user != caller.user:
            raise Forbidden("Only the one who asked for a stream can stop it.")
        why = _STOPPED_BY_OPERATOR if caller.is_operator else _STOPPED
        if generation.sealed is None and not self._leaders.stop(stream_id, why):
            await self._log.request_stop(stream_id)

    def _resume(self, lease: Lease, request: ChatRequest) -> None:
        """Go on with a generation whose leader is gone, from where it was left."""
        opened = lease.generation.opened
        model = self._policy.models.get(opened.model)
        trace = self._tracker.begin(opened.thread_id)
        self._leaders.start(lease, Task(request=request, routes=model.routes if model else (), trace=trace))

    def _known_model(self, ask: Ask) -> Model:
        """The model that is asked for, which the caller may ask for."""
        model = self._policy.models.get(ask.request.model)
        if model is None:
            known = tuple(name for name in self._policy.models if may_ask_for(name, ask.caller))
            raise UnknownModel(ask.request.model, known)
        _check_model(model.name, ask.caller)
        _check_preference(ask.request.provider, model)
        return model

    async def _admit(self, ask: Ask, trace: Trace) -> Slot:
        """A slot is taken for a question."""
        slot = await self._taken(ask.caller, trace, ask.present)
        self._publish(RequestAdmitted(thread_id=ask.thread_id, model=ask.request.model))
        return slot

    async def _taken(self, caller: Caller, trace: Trace, present: Present) -> Slot:
        """Stages CP.1 to CP.4: a slot."""
        note = trace.step if trace.is_sampled else unnoted
        try:
            return await self._slots.take(caller.user, has_limit=not caller.is_operator, present=present, note=note)
        except (AtCapacity, TooManyConnections) as refusal:
            trace.failed(REFUSED_IN[type(refusal)], refusal)
            raise

    async def _taken_anew(self, caller: Caller, thread_id: str, present: Present) -> Slot:
        """The same for who comes back to a stream: there are no other stages."""
        trace = self._tracker.begin(thread_id)
        try:
            return await self._taken(caller, trace, present)
        finally:
            trace.close()

    async def _recalled(self, ask: Ask) -> Ask:
        """What is asked, behind what was said before in its conversation."""
        if ask.session_id is None:
            return ask
        request, turn = await self._conversations.recall(ask.session_id, ask.caller, ask.request)
        return replace(ask, request=request, turn=turn)

    async def _answer(self, ask: Ask, model: Model, slot: Slot, trace: Trace, began_s: float) -> Answer:
        """Stages 2 to 4, and the start of 5: an answer from the nearest place that has one."""
        scope = sharing_scope(ask.caller, self._policy.scope)
        key = fingerprint(ask.request, scope)
        with trace.stage("2"):
            source = await self._look_up(ask, key, trace)
        if source is None:
            source = await self._lead(ask, model, key, scope, trace)
        if source.cache.spares_a_call:
            trace.close()
        turn = await self._conversations.begun(source.turn or ask.turn)
        answer = Answer(
            generation=source.generation,
            cache=source.cache,
            caller=ask.caller,
            thread_id=ask.thread_id,
            slot=slot,
            quotas=self._spending.quotas(ask.caller),
            publish=self._publish,
            clock=self._clock,
            began_s=began_s,
            age_s=source.age_s,
        )
        await self._conversations.go_on(turn, answer)
        return answer

    async def _look_up(self, ask: Ask, key: str, trace: Trace) -> _Source | None:
        """Stage 2: a recording fresh enough for the client, nearest first, or else the generation under way."""
        if ask.directives.no_cache and not ask.directives.only_if_cached:
            return None
        source = await self._stored(ask, key, trace)
        if source is not None:
            self._publish(CacheHit(thread_id=ask.thread_id, tier=source.cache, fingerprint=key))
            return source
        self._publish(CacheMiss(thread_id=ask.thread_id))
        if ask.directives.only_if_cached:
            raise NotCached("No stored answer to this request is fresh enough.")
        with trace.stage("2.3"):
            running = await self._log.under_way(key)
        return None if running is None else self._follow(ask, running)

    async def _stored(self, ask: Ask, key: str, trace: Trace) -> _Source | None:
        """A recording fresh enough for the client; the tiers before the one that had it have it now too."""
        for depth, (tier, cache) in enumerate(self._tiers):
            with trace.stage(f"2.{depth + 1}"):
                recording = await cache.get(key)
            if recording is None:
                continue
            age_s = self._unix_now() - recording.sealed_at_s
            if ask.directives.accepts(age_s, self._policy.ttl_s):
                for _, nearer in self._tiers[:depth]:
                    await nearer.put(key, recording)
                return _Source(generation=recording.generation, cache=tier, age_s=age_s)
        return None

    def _follow(self, ask: Ask, generation: Generation) -> _Source:
        self._publish(Coalesced(thread_id=ask.thread_id, generation_id=generation.opened.generation_id))
        return _Source(generation=generation, cache=CacheStatus.COALESCED)

    async def _lead(self, ask: Ask, model: Model, key: str, scope: str, trace: Trace) -> _Source:
        """Stages 3 and 4, then claim the question: whoever loses the claim to another follows, and pays nothing."""
        with trace.stage("3"):
            spent = await self._spending.begin(ask.caller, ask.request, model.routes)
        try:
            with trace.stage("4"):
                routes = self._routing.select(model, ask.request)
            if ask.turn is not None:
                ask = replace(ask, turn=await self._conversations.begun(ask.turn))
            claim = await self._log.claim(self._opened(ask, key, scope), ask.request)
        except BaseException:
            spent.give_back()
            raise
        if claim.lease is None:
            spent.give_back()
            return self._follow(ask, claim.generation)
        self._leaders.start(claim.lease, self._task(ask, routes, trace, claim, spent))
        return _Source(generation=claim.generation, cache=_led(claim.generation), turn=ask.turn)

    def _task(self, ask: Ask, routes: Sequence[Route], trace: Trace, claim: Claim, spent: Spent) -> Task:
        directives, is_shared = ask.directives, claim.generation.opened.is_shared
        can_repeat = is_shared and claim.may_be_stored and directives.max_age_s is None and not directives.min_fresh_s
        return Task(request=ask.request, routes=routes, trace=trace, can_repeat=can_repeat, settle=spent.settle)

    def _opened(self, ask: Ask, key: str, scope: str) -> Opened:
        return Opened(
            generation_id=self._new_id(),
            fingerprint=key,
            created_at_s=self._unix_now(),
            thread_id=ask.thread_id,
            user=ask.caller.user,
            scope=scope,
            model=ask.request.model,
            is_shared=not (ask.directives.no_cache or ask.directives.no_store),
            is_kept=not ask.directives.no_store,
            turn=ask.turn,
        )

    async def _readable(self, stream_id: str, caller: Caller) -> Generation:
        generation = await self._log.find(stream_id)
        if generation is None or not (caller.is_operator or self._shares(caller, generation)):
            raise UnknownStream(f"There is no stream {stream_id!r}, or it is no longer kept.")
        return generation

    def _shares(self, caller: Caller, generation: Generation) -> bool:
        return generation.opened.scope == sharing_scope(caller, self._policy.scope)

    def _refused(
        self, thread_id: str, caller: Caller, refusal: WeirError, began_s: float, requested: str | None = None
    ) -> None:
        """A refusal is told; of a model that there is not, its name is the client's words, and is not."""
        self._publish(
            RequestTurnedAway(
                thread_id=thread_id,
                code=refusal.code,
                caller=caller,
                requested=requested if requested in self._policy.models else None,
                duration_s=self._clock() - began_s,
            )
        )


def _is_its_asker(opened: Opened, caller: Caller, given_thread_id: str | None) -> bool:
    """Whether the caller comes back to what it asked itself, in the same thread if it names one."""
    return caller.user == opened.user and given_thread_id in {None, opened.thread_id}


def _led(generation: Generation) -> CacheStatus:
    """What the one who caused the call is told."""
    return CacheStatus.MISS if generation.opened.is_shared else CacheStatus.BYPASS


def may_ask_for(model: str, caller: Caller) -> bool:
    """Whether that model is among those of the caller's key."""
    return caller.models is None or model in caller.models


def _check_model(model: str, caller: Caller) -> None:
    """The caller may ask for it."""
    if not may_ask_for(model, caller):
        allowed = ", ".join(sorted(caller.models or ()))
        raise Forbidden(f"This API key may not ask for the model {model!r}. It may ask for {allowed}.")


def _check_preference(provider: str | None, model: Model) -> None:
    """A preferred provider is one of the model's."""
    if provider is None:
        return
    providers = [route.provider for route in model.routes]
    if provider not in providers:
        reason = f"{provider!r} has no route for {model.name}; {', '.join(providers)} can be preferred"
        raise InvalidRequest(FieldError("provider", reason))
