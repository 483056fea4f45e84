"""What operators send: what is to be purged, and questions to be asked ahead."""

import sys
from typing import Any

import msgspec

from app.bodies import Name, ScopeName, decoded, parse_stream_body
from domain.chat import ChatRequest
from domain.errors import FieldError, InvalidRequest
from domain.operator import ProviderCircuits, Purged

MAX_QUESTIONS = 1000


class PurgeBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /admin/cache/purge: of which `model`, and of which `scope`; of all when neither is given."""

    model: Name | None = None
    scope: ScopeName | None = None


_purge_body = msgspec.json.Decoder(PurgeBody)


def parse_purge_body(body: bytes) -> PurgeBody:
    """What is to be purged; everything when nothing is said.

    Raises:
        InvalidRequest: naming the field and what would be right.
    """
    return decoded(_purge_body, body) if body else PurgeBody()


def parse_questions(body: bytes, max_query_chars: int) -> list[ChatRequest]:
    """The questions of `body`, each on a line of its own as for POST /v1/stream; empty lines are passed over.

    Raises:
        InvalidRequest: naming every line that cannot be right.
    """
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if not 1 <= len(lines) <= MAX_QUESTIONS:
        raise InvalidRequest(FieldError("body", f"{len(lines)} lines; 1 to {MAX_QUESTIONS} are allowed"))
    questions, errors = [], []
    for number, line in lines:
        try:
            questions.append(_question(line, max_query_chars))
        except InvalidRequest as refused:
            errors += [FieldError(f"line {number}: {error.field}", error.reason) for error in refused.errors]
    if errors:
        raise InvalidRequest(*errors)
    return questions


def check_question(line: bytes) -> list[str]:
    """What is wrong with a line, as far as can be told without the service."""
    try:
        _question(line, max_query_chars=sys.maxsize)
    except InvalidRequest as refused:
        return [f"{error.field}: {error.reason}" for error in refused.errors]
    return []


def _question(line: bytes, max_query_chars: int) -> ChatRequest:
    body, question = parse_stream_body(line, max_query_chars)
    if body.session_id is not None:
        raise InvalidRequest(FieldError("session_id", "a question that is asked ahead is of no conversation"))
    return question


def told_purge(purged: Purged) -> dict[str, Any]:
    """What has been purged, and whether all instances know."""
    purge = purged.purge
    scope = "shared" if purge.scope == "" else purge.scope
    return {"model": purge.model, "scope": scope, "purged_at_s": purge.at_s, "is_fleetwide": purged.is_fleetwide}


def told_circuits(told: ProviderCircuits) -> dict[str, Any]:
    """How a provider's circuits stand, in all and model by model."""
    models = {
        model: {"state": circuit.state.value, "retry_after_s": circuit.wait_s} for model, circuit in told.models.items()
    }
    return {"provider": told.provider, "state": told.state.value, "retry_after_s": told.wait_s, "models": models}
