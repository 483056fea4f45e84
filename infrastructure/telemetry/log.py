"""What happened, as one line each on stdout: JSON for machines, or for people."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from domain.events import (
    AnswerServed,
    AttemptEnded,
    AuditEntriesLost,
    CacheHit,
    CachePurged,
    CircuitChanged,
    Coalesced,
    ComponentChanged,
    DefectFound,
    EntryUnreadable,
    Events,
    ExchangeEnded,
    FailedOver,
    GenerationSealed,
    RequestAdmitted,
    RequestTurnedAway,
    SessionFailed,
    StageTimed,
)
from domain.generation import State
from infrastructure.telemetry.lines import Lines

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_TURNED_AWAY_IN = {
    "unknown_model": "1",
    "at_capacity": "CP.2",
    "too_many_connections": "CP.3",
    "not_cached": "2",
    "rate_limited": "3",
    "all_providers_down": "4",
}
_HIT_IN = {"l1": "2.1", "l2": "2.2"}
_DETAILS = frozenset({RequestAdmitted, CacheHit, Coalesced, ExchangeEnded, StageTimed})
"""What only the level debug writes; at others a hit does not pay for what would be written."""
_OURS = frozenset({"unauthorized", "misconfigured"})
"""Failed attempts that will go on failing until somebody here changes something."""
_REFUSED = "the provider refused the request"
"""Stands for the provider's own words, which are for the client: they may quote the prompt."""

Log = structlog.typing.FilteringBoundLogger


def make_log(*, level: str, form: str, lines: Lines) -> Log:
    """A logger that writes lines of at least `level`, in `form` json to `lines` or for the console to stdout."""
    filtering = structlog.make_filtering_bound_logger(LEVELS[level])
    wrapped: Log = structlog.wrap_logger(
        lines if form == "json" else structlog.PrintLogger(sys.stdout),
        processors=[*_STAMPS, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())],
        wrapper_class=_in_json(filtering) if form == "json" else filtering,
        cache_logger_on_first_use=True,
    )
    return wrapped.bind()


_STAMPS: list[Any] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
_encode = msgspec.json.Encoder(enc_hook=str).encode


def _in_json(filtering: Any) -> Any:
    """As `filtering`, but in one step what the console's processors do in many: a line is written for each request."""

    class InJson(filtering):  # type: ignore[misc]  # structlog makes a class for each level
        def _proxy_to_logger(self, level: str, event: str, **line: Any) -> None:
            line.update(event=event, level=level, timestamp=datetime.now(UTC))
            if "exc_info" in line:
                line = dict(structlog.processors.format_exc_info(None, level, line))
            self._logger.msg(_encode(line))

    return InJson


class EventLog:
    """Writes a line for each event worth one. No line has a prompt, an answer or a key."""

    def __init__(self, *, log: Log, events: Events) -> None:
        self._log = log
        listeners: dict[type, Callable[[Any], None]] = {
            RequestAdmitted: self._admitted,
            RequestTurnedAway: self._turned_away,
            CacheHit: self._hit,
            CachePurged: self._purged,
            Coalesced: self._coalesced,
            AttemptEnded: self._attempt,
            FailedOver: self._failed_over,
            CircuitChanged: self._circuit,
            GenerationSealed: self._sealed,
            AnswerServed: self._served,
            ExchangeEnded: self._exchange,
            StageTimed: self._stage,
            DefectFound: self._defect,
            ComponentChanged: self._component,
            EntryUnreadable: self._unreadable,
            AuditEntriesLost: self._audit_lost,
            SessionFailed: self._session,
        }
        for kind, listener in listeners.items():
            if kind not in _DETAILS or log.is_enabled_for(LEVELS["debug"]):
                events.subscribe(kind, listener)

    def _admitted(self, event: RequestAdmitted) -> None:
        self._log.debug("request admitted", thread_id=event.thread_id, stage="CP.4", requested=event.model)

    def _turned_away(self, event: RequestTurnedAway) -> None:
        stage = _TURNED_AWAY_IN.get(event.code, "1")
        self._log.info("request refused", thread_id=event.thread_id, stage=stage, error_type=event.code)

    def _hit(self, event: CacheHit) -> None:
        self._log.debug("cache hit", thread_id=event.thread_id, stage=_HIT_IN[event.tier], cache=event.tier)

    def _purged(self, event: CachePurged) -> None:
        self._log.warning("cache purged", stage="2", model=event.model, scope=event.scope)

    def _coalesced(self, event: Coalesced) -> None:
        self._log.debug("following", thread_id=event.thread_id, stage="2.3", stream_id=event.generation_id)

    def _attempt(self, event: AttemptEnded) -> None:
        is_failure = event.reason is not None
        level = "error" if event.outcome in _OURS else "warning" if is_failure else "debug"
        self._log.log(
            LEVELS[level],
            "attempt failed" if is_failure else "attempt ended",
            thread_id=event.thread_id,
            stage="5",
            provider=event.provider,
            model=event.model,
            error_type=event.outcome if is_failure else None,
            reason=_REFUSED if event.outcome == "rejected" else event.reason,
        )

    def _failed_over(self, event: FailedOver) -> None:
        self._log.warning(
            "failover", thread_id=event.thread_id, stage="5", previous=event.previous, provider=event.provider
        )

    def _circuit(self, event: CircuitChanged) -> None:
        self._log.warning("circuit changed", provider=event.provider, model=event.model, state=event.state.value)

    def _sealed(self, event: GenerationSealed) -> None:
        sealed = event.sealed
        self._log.log(
            LEVELS["warning" if sealed.state is State.FAILED else "info"],
            "generation sealed",
            thread_id=event.thread_id,
            stage="6",
            stream_id=event.generation_id,
            state=sealed.state.value,
            provider=sealed.provider,
            model=sealed.model,
            chunk_count=sealed.chunk_count,
            duration_ms=round(sealed.duration_s * 1000, 1),
            error_type=sealed.failure.code if sealed.failure else None,
        )

    def _served(self, event: AnswerServed) -> None:
        self._log.info(
            "answer served" if event.is_whole else "answer ended early",
            thread_id=event.thread_id,
            stage="CP.5",
            provider=event.provider,
            model=event.model,
            cache=event.cache,
            chunk_count=event.chunk_count,
            duration_ms=round(event.duration_s * 1000, 1),
        )

    def _exchange(self, event: ExchangeEnded) -> None:
        self._log.debug(
            "exchange ended",
            thread_id=event.thread_id,
            method=event.method,
            endpoint=event.endpoint,
            status=event.status,
            duration_ms=round(event.duration_s * 1000, 1),
        )

    def _stage(self, event: StageTimed) -> None:
        self._log.debug(
            "stage timed",
            thread_id=event.thread_id,
            stage=event.stage,
            duration_ms=round(event.duration_s * 1000, 3),
            error_type=event.error_type,
        )

    def _component(self, event: ComponentChanged) -> None:
        said = "degraded" if event.is_degraded else "whole again"
        error_type = type(event.error).__name__ if event.error else None
        why = {} if event.reason is None else {"reason": event.reason}
        self._log.warning(said, component=event.component, error_type=error_type, **why)

    def _unreadable(self, event: EntryUnreadable) -> None:
        self._log.warning("unreadable entry", stage="2.2", error_type=type(event.error).__name__)

    def _audit_lost(self, event: AuditEntriesLost) -> None:
        self._log.error("audit entries lost", component="audit", count=event.count)

    def _session(self, event: SessionFailed) -> None:
        error = event.error
        self._log.warning(
            "unusable conversation", stage="1", session_id=event.session_id, error_type=type(error).__name__
        )

    def _defect(self, event: DefectFound) -> None:
        self._log.error(
            "defect", thread_id=event.thread_id, error_type=type(event.error).__name__, exc_info=event.error
        )
