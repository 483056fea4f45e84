"""What the OpenAPI document says more than once: schemas, headers, parameters."""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.auditing import LIMIT, MAX_LIMIT, POSITION
from app.bodies import CompletionBody, StreamBody
from app.errors import STATUSES
from app.event_ids import EVENT_ID
from app.headers import SESSION_ID, THREAD_ID
from app.operating import PurgeBody

Json = dict[str, Any]

_STREAM_ID = "^[0-9A-HJKMNP-TV-Z]{26}$"
_EVENT_ID = f"^{EVENT_ID.pattern}$"
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": ["number", "null"]}
_DIGITS: Json = {"type": "string", "pattern": "^[0-9]+$"}
_DURATION: Json = {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?[0-9]+s$"}


def ref(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(description: str, **properties: Json) -> Json:
    """An object that has all of these properties, and may have more."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name, schema in properties.items() if not schema.get("x-optional")],
    }


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _optional(schema: Json) -> Json:
    return schema | {"x-optional": True}


def _header(description: str, schema: Json = _TEXT, *, is_required: bool = False) -> Json:
    return {"description": description, "schema": schema, "required": is_required}


HEADERS: dict[str, Json] = {
    "X-Thread-ID": _header(
        "The request's thread id, or the one made for it.",
        {"type": "string", "pattern": f"^{THREAD_ID.pattern}$"},
        is_required=True,
    ),
    "X-Stream-ID": _header(
        "The id under which the stream can be joined.", {"type": "string", "pattern": _STREAM_ID}, is_required=True
    ),
    "X-Cache": _header(
        "Where the answer comes from.",
        {"type": "string", "enum": ["l1", "l2", "coalesced", "miss", "bypass"]},
        is_required=True,
    ),
    "Age": _header("Seconds since a stored answer was whole.", _COUNT),
    "WWW-Authenticate": _header('How to say who asks: `Bearer realm="weir"`, and what was wrong (RFC 6750).'),
    "Retry-After": _header("Seconds after which to come back.", _COUNT),
    "RateLimit-Policy": _header(
        'The caller\'s limits, such as `"anonymous";q=10;w=60, "anonymous-tokens";q=20000;w=60;weir-unit="tokens"`.'
    ),
    "RateLimit": _header('What each limit leaves, such as `"anonymous";r=9;t=6, "anonymous-tokens";r=19488;t=1`.'),
    "x-ratelimit-limit-requests": _header("As OpenAI says the limit.", _DIGITS),
    "x-ratelimit-remaining-requests": _header("As OpenAI says what is left.", _DIGITS),
    "x-ratelimit-reset-requests": _header("As OpenAI says when all is back.", _DURATION),
    "x-ratelimit-limit-tokens": _header("The same of tokens a minute, if they are limited.", _DIGITS),
    "x-ratelimit-remaining-tokens": _header("How many of them are left.", _DIGITS),
    "x-ratelimit-reset-tokens": _header("When all of them are back.", _DURATION),
    "Cache-Control": _header("`no-store`: nothing between here and the client keeps a copy.", is_required=True),
    "X-Accel-Buffering": _header("`no`: proxies pass each event on at once.", is_required=True),
}
SECURITY_SCHEMES: dict[str, Json] = {
    "operator": {"type": "http", "scheme": "bearer", "description": "The operator's key."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as `weir keys create` prints it."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, in another header."},
}
QUOTA_HEADERS = tuple(name for name in HEADERS if "ratelimit" in name.lower())
ANSWER_HEADERS = ("X-Thread-ID", "X-Stream-ID", "X-Cache", "Age", *QUOTA_HEADERS)
STREAM_HEADERS = (*ANSWER_HEADERS, "Cache-Control", "X-Accel-Buffering")
ERROR_HEADERS = ("X-Thread-ID", "Cache-Control", "Retry-After")


def _parameter(name: str, place: str, description: str, schema: Json, example: Any = None) -> Json:
    described = {"name": name, "in": place, "description": description, "schema": schema, "required": place == "path"}
    return described if example is None else described | {"example": example}


PARAMETERS: dict[str, Json] = {
    "thread": _parameter(
        "X-Thread-ID",
        "header",
        "What this exchange is to be found by in the log; it is echoed, and made when absent.",
        {"type": "string", "pattern": f"^{THREAD_ID.pattern}$"},
        "checkout-4711",
    ),
    "cache_control": _parameter(
        "Cache-Control",
        "header",
        "Whether a stored answer will do: `no-cache`, `no-store`, `max-age=N`, `min-fresh=N`, `only-if-cached` "
        "(RFC 9111, section 5.2.1).",
        _TEXT,
        "max-age=60",
    ),
    "stream_id": _parameter(
        "stream_id",
        "path",
        "`X-Stream-ID` of the answer.",
        {"type": "string", "pattern": _STREAM_ID},
        "01M84RXTPMTZ6R6MDDZY2A8T00",
    ),
    "provider": _parameter("provider", "path", "A provider of the catalogue.", _TEXT),
    "session_id": _parameter(
        "session_id",
        "path",
        "The id under which the conversation was begun.",
        {"type": "string", "pattern": f"^{SESSION_ID.pattern}$"},
        "support-4711",
    ),
    "last_event_id": _parameter(
        "last_event_id",
        "query",
        "As the header Last-Event-ID, which goes before it: for the first connection of an EventSource.",
        {"type": "string", "pattern": _EVENT_ID},
    ),
    "last_event_id_header": _parameter(
        "Last-Event-ID",
        "header",
        "The id of the last event that was seen, as it came: the stream goes on behind it.",
        {"type": "string", "pattern": _EVENT_ID},
    ),
    "audit_limit": _parameter(
        "limit",
        "query",
        "How many entries.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT},
    ),
    "audit_before": _parameter(
        "before",
        "query",
        "Those older than this: `next` of the page before.",
        {"type": "string", "pattern": f"^{POSITION.pattern}$"},
    ),
    "format": _parameter(
        "format", "query", "`openai`: chat.completion.chunk events.", {"type": "string", "enum": ["openai"]}
    ),
    "include_usage": _parameter(
        "include_usage",
        "query",
        "With `format=openai`: the usage comes as a last chunk.",
        {"type": "boolean", "default": False},
    ),
}

_ATTEMPT = _object("What became of one try.", provider=_TEXT, model=_TEXT, reason=_TEXT)
_STATE: dict[str, Json] = {
    "state": {"type": "string", "enum": ["closed", "half_open", "open"]},
    "retry_after_s": {"type": "number"},
}
_CIRCUIT = _object(
    "How calls to a provider are let through, and the seconds until all can be: as to its worst model, and to each.",
    provider=_TEXT,
    **_STATE,
    models={"type": "object", "additionalProperties": _object("The circuit of one model.", **_STATE)},
)
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_COUNT_OR_NULL: Json = {"type": ["integer", "null"], "minimum": 0}
_AUDIT_ENTRY = _object(
    "What became of one request. `cost_usd` is what it has cost, null if its client left before that was known.",
    id=_TEXT,
    at_s={"type": "number", "description": "Unix seconds, of its end."},
    thread_id=_TEXT,
    stream_id=_TEXT_OR_NULL,
    user=_TEXT,
    tenant=_TEXT,
    tier=_TEXT,
    outcome={"type": "string", "enum": ["done", "left", "failed", "refused"]},
    code=_TEXT_OR_NULL,
    requested=_TEXT_OR_NULL,
    provider=_TEXT_OR_NULL,
    model=_TEXT_OR_NULL,
    cache={"enum": ["l1", "l2", "coalesced", "miss", "bypass", None]},
    usage={
        "oneOf": [
            {"type": "null"},
            _object(
                "Tokens of the answer.",
                prompt_tokens=_COUNT,
                completion_tokens=_COUNT_OR_NULL,
                estimated={"type": "boolean"},
            ),
        ]
    },
    cost_usd=_NUMBER,
    saved_usd={"type": "number"},
    duration_ms={"type": "number"},
)
_CODE: Json = {"type": "string", "enum": sorted(STATUSES)}
_SCHEMAS: dict[str, Json] = {
    "Problem": _object(
        "What went wrong (RFC 9457).",
        type={"type": "string", "format": "uri"},
        title=_TEXT,
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail=_TEXT,
        code=_CODE,
        thread_id=_TEXT,
        retryable={"type": "boolean"},
        retry_after_s=_NUMBER,
        attempts=_array(_ATTEMPT),
        errors=_optional(_array(_object("A field that is wrong.", field=_TEXT, reason=_TEXT))),
    ),
    "OpenAIError": _object(
        "What went wrong, as OpenAI's API words it.",
        error=_object(
            "The error.",
            message=_TEXT,
            type=_TEXT,
            param={"type": ["string", "null"]},
            code=_CODE,
            attempts=_optional(_array(_ATTEMPT)),
        ),
    ),
    "Event": _object(
        "One event of a stream. Its data is JSON, or `[DONE]` as OpenAI's last.",
        id=_optional({"type": "string", "pattern": _EVENT_ID}),
        event={"type": "string", "enum": ["status", "chunk", "complete", "error", "message"]},
        data=_TEXT,
    ),
    "ChatCompletion": _object(
        "A whole answer.",
        id=_TEXT,
        object={"const": "chat.completion"},
        created=_COUNT,
        model=_TEXT,
        choices=_array(
            _object(
                "One answer.",
                index=_COUNT,
                message=_object("What was said.", role={"const": "assistant"}, content={"type": ["string", "null"]}),
                finish_reason=_TEXT,
            )
        ),
        usage={"type": ["object", "null"]},
    ),
    "Session": _object(
        "A conversation, as far as it is kept.",
        session_id=_TEXT,
        messages=_array(_object("What was said.", role=_TEXT, content=_TEXT)),
        expires_at=_COUNT | {"description": "Unix seconds. Every use makes it later."},
    ),
    "Models": _object(
        "The catalogue's models.",
        object={"const": "list"},
        data=_array(_object("A model.", id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT)),
    ),
    "Purged": _object(
        "What is served no more: all answers that were whole by then, of that model and scope, or of all.",
        model={"type": ["string", "null"]},
        scope={"type": ["string", "null"]},
        purged_at_s={"type": "number"},
        is_fleetwide={"type": "boolean"},
    ),
    "Questions": {"type": "string", "description": "One StreamBody a line, 1 to 1000 of them."},
    "Warmed": _object(
        "What became of the questions; `failed` counts those without a stored answer, by the reason's code.",
        asked=_COUNT,
        stored_already=_COUNT,
        answered=_COUNT,
        failed={"type": "object", "additionalProperties": _COUNT},
    ),
    "Circuit": _CIRCUIT,
    "Circuits": _object("One for each provider.", circuits=_array(_CIRCUIT)),
    "Audit": _object(
        "A page of the audit trail; `next` asks for the one after it, as `before`.",
        entries=_array(_AUDIT_ENTRY),
        next=_TEXT_OR_NULL,
    ),
    "Status": _object("One word.", status=_TEXT),
    "Health": _object(
        "All checks.",
        status={"type": "string", "enum": ["healthy", "unhealthy"]},
        checks=_object("By name.", providers={"type": "object"}, cache={"type": "object"}),
    ),
}


def schemas(models: Sequence[str], providers: Sequence[str], max_query_chars: int) -> dict[str, Json]:
    """All schemas: the bodies as they are parsed, with what the parser checks beyond types, and what is answered."""
    _, bodies = msgspec.json.schema_components(
        (StreamBody, CompletionBody, PurgeBody), ref_template="#/components/schemas/{name}"
    )
    stream, completion = bodies["StreamBody"], bodies["CompletionBody"]
    for body in (stream, completion):
        body["properties"]["model"] = {"type": "string", "enum": list(models)}
    properties = stream["properties"]
    properties["provider"] = {"enum": [*providers, None], "description": "To be asked first, if it has the model."}
    properties["query"]["anyOf"][0] |= {"pattern": r"\S", "maxLength": max_query_chars, "description": _QUERY}
    properties["messages"]["anyOf"][0] |= _SAYS_SOMETHING
    completion["properties"]["messages"] |= _SAYS_SOMETHING
    answered: dict[str, Json] = _plain(_SCHEMAS)
    return bodies | {"StreamBody": stream | _ONE_OF_TWO} | answered


_QUERY = "Not blank. Here as in messages, control characters other than U+0009 to U+000D are refused."
_SAYS_SOMETHING: Json = {
    "contains": {"not": {"properties": {"content": {"type": "string", "pattern": r"^\s*$"}}, "required": ["content"]}}
}
_ONE_OF_TWO: Json = {
    "oneOf": [
        {"required": ["query"], "properties": {"query": _TEXT, "messages": {"type": "null"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}, "query": {"type": "null"}}},
    ]
}


def _plain(schema: Any) -> Any:
    """`schema` without our own marks."""
    match schema:
        case dict():
            return {name: _plain(part) for name, part in schema.items() if name != "x-optional"}
        case list():
            return [_plain(part) for part in schema]
        case _:
            return schema
