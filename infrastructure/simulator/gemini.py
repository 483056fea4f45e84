"""Gemini's generateContent and streamGenerateContent."""

import secrets
from collections.abc import Iterator, Mapping

import msgspec

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.completion import Answer, Ask, Call, Finish, Json
from infrastructure.simulator.dialect import Profile, Refusal, Refused
from infrastructure.simulator.gemini_asks import WrongContents, asked
from infrastructure.simulator.gemini_errors import BAD_GATEWAY, ERRORS, KEY_INVALID, KEY_MISSING, GeminiError, invalid
from infrastructure.simulator.script import Script, chunked

_FINISH: dict[Finish, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}
_MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite")
_MALFORMED = chunked(b'data: {"candidates": [{"content": {"parts": [{"te\r\n\r\n')

_encode = msgspec.json.Encoder().encode


class Gemini:
    """The dialect of generativelanguage.googleapis.com."""

    profile = Profile(
        name="gemini",
        completion_paths=("/v1beta/models/{model}:{verb:generateContent|streamGenerateContent}",),
        model_paths=("/v1beta/models",),
    )

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the API key."""
        return headers.get("x-goog-api-key")

    def wrong_key(self, key: str | None) -> Refusal:
        """Return Gemini's answer: 400, not 401, to a wrong key, and 403 to none."""
        return (KEY_INVALID if key else KEY_MISSING).refusal()

    def wrong_request(self, message: str, param: str | None = None) -> Refusal:  # noqa: ARG002 - it has no such field
        """Return Gemini's 400."""
        return invalid(message).refusal()

    def wrong_path(self, method: str, path: str) -> Refusal:
        """Return Gemini's 404."""
        return GeminiError(404, "NOT_FOUND", f"{method} {path} was not found on this server.").refusal()

    def unknown_model(self, model: str) -> Refusal:
        """Return Gemini's 404 of an unknown model."""
        return ERRORS[Fault.NOT_FOUND].refusal(model)

    def refusal(self, fault: Fault, model: str, retry_after_s: float | None) -> Refusal | None:
        """Return the error that `fault` is; a 502 comes from the proxy in front, in HTML."""
        if fault is Fault.BAD_GATEWAY:
            return Refusal(status=502, body=BAD_GATEWAY, content_type="text/html; charset=UTF-8")
        error = ERRORS.get(fault)
        return error.refusal(model, retry_after_s) if error else None

    def ask(self, path: Mapping[str, str], body: Json) -> Ask:
        """Return what is asked.

        Raises:
            Refused: Gemini would answer 400.
        """
        try:
            return asked(path["model"], path["verb"], body)
        except WrongContents as wrong:
            raise Refused(self.wrong_request(str(wrong))) from wrong

    def stream_headers(self) -> dict[str, str]:
        """Return the headers of a streamed answer."""
        return self.headers() | {"content-type": "text/event-stream", "content-disposition": "attachment"}

    def headers(self) -> dict[str, str]:
        """Return the headers of every response."""
        return {
            "vary": "Origin, X-Origin, Referer",
            "server": "scaffolding on HTTPServer2",
            "server-timing": "gfet4t7; dur=12",
            "x-xss-protection": "0",
            "x-frame-options": "SAMEORIGIN",
            "x-content-type-options": "nosniff",
        }

    def streamed(self, ask: Ask, answer: Answer) -> Script:
        """Return the answer as events, each a whole response with the usage so far; nothing marks the end."""
        trailer = _trailer(ask)
        steps = iter((_event(_response(ask, answer, trailer)),)) if answer.call else _texts(ask, answer, trailer)
        return Script(
            opening=b"",
            steps=steps,
            count=1 if answer.call else answer.steps,
            closing=b"" if answer.call else _event(_last(ask, answer, trailer)),
            malformed=_MALFORMED,
            error_event=_event(ERRORS[Fault.UNAVAILABLE].value()),
            tokens_per_step=answer.completion_tokens if answer.call else 1,
        )

    def whole(self, ask: Ask, answer: Answer) -> Json:
        """Return the answer as one response."""
        return _response(ask, answer, _trailer(ask))

    def models(self) -> Json:
        """Return the list of models."""
        limits = {"inputTokenLimit": 1048576, "outputTokenLimit": 65536}
        methods = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
        return {"models": [{"name": f"models/{name}", "version": "001", **limits, **methods} for name in _MODELS]}


def _event(value: Json) -> bytes:
    return chunked(b"data: %b\r\n\r\n" % _encode(value))


def _trailer(ask: Ask) -> Json:
    return {"modelVersion": ask.model, "responseId": secrets.token_urlsafe(16)}


def _usage(ask: Ask, tokens: int) -> Json:
    said = {"candidatesTokenCount": tokens} if tokens else {}
    return {
        "promptTokenCount": ask.prompt_tokens,
        **said,
        "totalTokenCount": ask.prompt_tokens + tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": ask.prompt_tokens}],
    }


def _texts(ask: Ask, answer: Answer, trailer: Json) -> Iterator[bytes]:
    """Yield an event for each word: `candidatesTokenCount` grows, all else is encoded once."""
    head = b'data: {"candidates":[{"content":{"parts":[{"text":'
    middle = b'}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":%d,"candidatesTokenCount":' % (
        ask.prompt_tokens
    )
    details = _encode([{"modality": "TEXT", "tokenCount": ask.prompt_tokens}])
    tail = b',"promptTokensDetails":%b},%b\r\n\r\n' % (details, _encode(trailer)[1:])
    for count, word in enumerate(answer.choices[0], start=1):
        yield chunked(
            b'%b%b%b%d,"totalTokenCount":%d%b' % (head, _encode(word), middle, count, ask.prompt_tokens + count, tail)
        )


def _last(ask: Ask, answer: Answer, trailer: Json) -> Json:
    """Return the event with the finish reason and, unless nothing was said at all, an empty text."""
    if answer.is_prompt_blocked or answer.finish == "content_filter" or not answer.choices[0]:
        return _response(ask, answer, trailer, parts=[])
    return _response(ask, answer, trailer, parts=[{"text": ""}])


def _response(ask: Ask, answer: Answer, trailer: Json, parts: list[Json] | None = None) -> Json:
    usage = {"usageMetadata": _usage(ask, answer.completion_tokens), **trailer}
    if answer.is_prompt_blocked:
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **usage}
    return {"candidates": [_candidate(answer, _parts(answer) if parts is None else parts)], **usage}


def _candidate(answer: Answer, parts: list[Json]) -> Json:
    content: Json = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    candidate: Json = {"content": content, "finishReason": _FINISH[answer.finish], "index": 0}
    if answer.finish != "content_filter":
        return candidate
    rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
    return candidate | {"safetyRatings": [rating]}


def _parts(answer: Answer) -> list[Json]:
    if answer.call:
        return [{"functionCall": _call(answer.call)}]
    text = "".join(answer.choices[0])
    return [{"text": text}] if text else []


def _call(call: Call) -> Json:
    return {"name": call.name, "args": msgspec.json.decode("".join(call.pieces))}
