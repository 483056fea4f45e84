"""From what happened to what is kept of it."""

from collections.abc import Callable

from domain.audit import AuditEntry
from domain.events import AnswerServed, Events, RequestTurnedAway
from domain.ports import AuditTrail


class Auditing:
    """Has an entry in `trail` for each request that `events` tell the end of."""

    def __init__(self, *, trail: AuditTrail, events: Events, unix_now: Callable[[], float]) -> None:
        self._trail = trail
        self._unix_now = unix_now
        events.subscribe(AnswerServed, self._served)
        events.subscribe(RequestTurnedAway, self._turned_away)

    def _served(self, event: AnswerServed) -> None:
        caller, usage = event.caller, event.usage
        self._trail.append(
            AuditEntry(
                at_s=self._unix_now(),
                thread_id=event.thread_id,
                user=caller.user,
                tenant=caller.tenant,
                tier=caller.tier,
                outcome="done" if event.is_whole else "left" if event.failure is None else "failed",
                duration_ms=round(event.duration_s * 1000, 1),
                code=event.failure,
                stream_id=event.stream_id,
                requested=event.requested,
                provider=event.provider,
                model=event.model,
                cache=str(event.cache),
                prompt_tokens=usage.prompt_tokens if usage else None,
                completion_tokens=usage.completion_tokens if usage else None,
                is_estimated=usage is not None and "estimated" in usage.details,
                cost_usd=event.cost_usd,
                saved_usd=event.saved_usd,
            )
        )

    def _turned_away(self, event: RequestTurnedAway) -> None:
        caller = event.caller
        self._trail.append(
            AuditEntry(
                at_s=self._unix_now(),
                thread_id=event.thread_id,
                user=caller.user,
                tenant=caller.tenant,
                tier=caller.tier,
                outcome="refused",
                duration_ms=round(event.duration_s * 1000, 1),
                code=event.code,
                requested=event.requested,
            )
        )
