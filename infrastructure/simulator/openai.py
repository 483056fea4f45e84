"""OpenAI's Chat Completions."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.completion import Answer, Ask, Call, Json
from infrastructure.simulator.dialect import Profile, Refusal, Refused
from infrastructure.simulator.openai_asks import WrongField, asked
from infrastructure.simulator.openai_chunks import DONE, TEXT, Chunks, event
from infrastructure.simulator.openai_errors import (
    BAD_GATEWAY,
    ERRORS,
    KEYS_PAGE,
    OpenAIError,
    retry_headers,
)
from infrastructure.simulator.script import Script, chunked

_INVALID = "invalid_request_error"
_SHOWN_AT_EACH_END = 4
_FOUND = {"filtered": False, "severity": "safe"}
_REMARKS: Json = {"content_filter_results": dict.fromkeys(("hate", "self_harm", "sexual", "violence"), _FOUND)}
_MALFORMED = chunked(b'data: {"id":"chatcmpl-","object":"chat.completion.chunk","choices":[{"index":0,"del\n\n')


class OpenAI:
    """The dialect of api.openai.com/v1."""

    profile = Profile(
        name="openai",
        base_path="/v1",
        completion_paths=("/v1/chat/completions",),
        model_paths=("/v1/models",),
    )
    model_names: tuple[str, ...] = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini")
    errors: Mapping[Fault, OpenAIError] = ERRORS

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the bearer token."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key if scheme.lower() == "bearer" else None

    def wrong_key(self, key: str | None) -> Refusal:
        """Return OpenAI's 401, which shows both ends of the key."""
        if not key:
            return OpenAIError(401, _INVALID, None, "You didn't provide an API key.").refusal()
        shown = f"{key[:_SHOWN_AT_EACH_END]}********{key[-_SHOWN_AT_EACH_END:]}"
        message = f"Incorrect API key provided: {shown}. {KEYS_PAGE}"
        return OpenAIError(401, _INVALID, "invalid_api_key", message).refusal()

    def wrong_request(self, message: str, param: str | None = None, code: str | None = None) -> Refusal:
        """Return OpenAI's 400."""
        return OpenAIError(400, _INVALID, code, message, param).refusal()

    def wrong_path(self, method: str, path: str) -> Refusal:
        """Return OpenAI's 404."""
        return OpenAIError(404, _INVALID, None, f"Invalid URL ({method} {path})").refusal()

    def unknown_model(self, model: str) -> Refusal:
        """Return OpenAI's 404 of an unknown model."""
        return self.errors[Fault.NOT_FOUND].refusal(model)

    def refusal(self, fault: Fault, model: str, retry_after_s: float | None) -> Refusal | None:
        """Return the error that `fault` is; a 502 comes from the proxy in front, in HTML."""
        if fault is Fault.BAD_GATEWAY:
            headers = retry_headers(retry_after_s)
            return Refusal(status=502, body=BAD_GATEWAY, content_type="text/html", headers=headers)
        error = self.errors.get(fault)
        return error.refusal(model, retry_after_s) if error else None

    def ask(self, path: Mapping[str, str], body: Json) -> Ask:  # noqa: ARG002 - for Gemini the path says the model
        """Return what is asked.

        Raises:
            Refused: OpenAI would answer 400.
        """
        try:
            return asked(body)
        except WrongField as wrong:
            raise Refused(self.wrong_request(str(wrong), wrong.param, wrong.code)) from wrong

    def stream_headers(self) -> dict[str, str]:
        """Return the headers of a streamed answer."""
        return self.headers() | {"content-type": "text/event-stream; charset=utf-8"}

    def headers(self) -> dict[str, str]:
        """Return the headers of every response."""
        return {
            "access-control-expose-headers": "X-Request-ID",
            "openai-organization": "simulated",
            "openai-processing-ms": "12",
            "openai-version": "2020-10-01",
            "x-request-id": f"req_{secrets.token_hex(16)}",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
            "server": "cloudflare",
        }

    def streamed(self, ask: Ask, answer: Answer) -> Script:
        """Return the answer as chunks: role first, a delta for each token, finish reason, usage if asked, [DONE]."""
        chunks = Chunks(
            envelope=self._envelope("chat.completion.chunk", ask),
            trailer={"usage": None} if ask.include_usage else {},
            beside=_REMARKS if ask.has_remarks else {},
            is_padded=ask.obfuscate,
        )
        opening = self._opening(answer)
        return Script(
            opening=b"".join(chunks.one(opening, index=index) for index in range(len(answer.choices))),
            steps=self._steps(chunks, answer),
            count=answer.steps,
            closing=self._closing(chunks, ask, answer),
            end_mark=DONE,
            malformed=_MALFORMED,
            error_event=event(self.errors[Fault.SERVER_ERROR].value()),
            tokens_per_step=len(answer.choices),
        )

    def whole(self, ask: Ask, answer: Answer) -> Json:
        """Return the answer as a chat.completion object."""
        choices = [
            {"index": index, "message": self._message(words, answer), "logprobs": None, "finish_reason": answer.finish}
            for index, words in enumerate(answer.choices)
        ]
        return {**self._envelope("chat.completion", ask), "choices": choices, "usage": self._usage(ask, answer)}

    def models(self) -> Json:
        """Return the list of models."""
        listed = [
            {"id": name, "object": "model", "created": 1721172741, "owned_by": self.profile.name}
            for name in self.model_names
        ]
        return {"object": "list", "data": listed}

    def _opening(self, answer: Answer) -> Json:
        opening = call_opening(answer.call) if answer.call else {"role": "assistant", "content": ""}
        return opening | {"refusal": None}

    def _steps(self, chunks: Chunks, answer: Answer) -> Iterator[bytes]:
        if answer.call:
            return chunks.texts(CALL_ARGUMENTS, answer.call.pieces)
        if len(answer.choices) == 1:
            return chunks.texts({"content": TEXT}, answer.choices[0])
        each = (chunks.texts({"content": TEXT}, words, index=index) for index, words in enumerate(answer.choices))
        return map(b"".join, zip(*each, strict=True))

    def _closing(self, chunks: Chunks, ask: Ask, answer: Answer) -> bytes:
        ends = [chunks.one({}, index=index, finish=answer.finish) for index in range(len(answer.choices))]
        if ask.include_usage:
            ends.append(event(chunks.envelope | {"choices": [], "usage": self._usage(ask, answer)}))
        return b"".join(ends)

    def _envelope(self, kind: str, ask: Ask) -> Json:
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": ask.model,
            "service_tier": "default",
            "system_fingerprint": "fp_5b26d85e12",
        }

    def _message(self, words: Sequence[str], answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": "".join(words), "refusal": None, "annotations": []}
        return message | {"content": None, "tool_calls": [_call(answer.call)]} if answer.call else message

    def _usage(self, ask: Ask, answer: Answer) -> Json:
        return {
            "prompt_tokens": ask.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": ask.prompt_tokens + answer.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


CALL_ARGUMENTS: Json = {"tool_calls": [{"index": 0, "function": {"arguments": TEXT}}]}


def call_opening(call: Call) -> Json:
    """Return the delta that opens a function call: index, id and name are only in this one."""
    opened = {"index": 0, **_call(Call(name=call.name, pieces=()))}
    return {"role": "assistant", "content": None, "tool_calls": [opened]}


def _call(call: Call) -> Json:
    function = {"name": call.name, "arguments": "".join(call.pieces)}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
