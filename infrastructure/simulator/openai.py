"""OpenAI's Chat Completions."""

import secrets
import time
from collections.abc import Mapping, Sequence

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.completion import Answer, Ask, Call, Json
from infrastructure.simulator.dialect import Profile, Refusal, Refused
from infrastructure.simulator.openai_asks import WrongField, asked
from infrastructure.simulator.openai_chunks import DONE, TEXT, Chunks, event
from infrastructure.simulator.openai_errors import (
    BAD_GATEWAY,
    ERRORS,
    KEYS_PAGE,
    SERVER_ERROR,
    OpenAIError,
    retry_headers,
)
from infrastructure.simulator.script import Script, chunked

_INVALID = "invalid_request_error"
_SHOWN_AT_EACH_END = 4


class OpenAI:
    """The dialect of api.openai.com/v1."""

    profile = Profile(
        name="openai",
        base_path="/v1",
        completion_paths=("/v1/chat/completions",),
        model_paths=("/v1/models",),
    )
    model_names: tuple[str, ...] = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini")

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

    def refusal(self, fault: Fault, model: str, retry_after_s: float | None) -> Refusal | None:
        """Return the error that `fault` is; a 502 comes from the proxy in front, in HTML."""
        if fault is Fault.BAD_GATEWAY:
            headers = retry_headers(retry_after_s)
            return Refusal(status=502, body=BAD_GATEWAY, content_type="text/html", headers=headers)
        error = ERRORS.get(fault)
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
        envelope = self._envelope("chat.completion.chunk", ask)
        trailer: Json = {"usage": None} if ask.include_usage else {}
        chunks = Chunks(envelope=envelope, trailer=trailer, is_padded=ask.obfuscate)
        indices = range(len(answer.choices))
        closing = [chunks.one({}, index=index, finish=answer.finish) for index in indices]
        if ask.include_usage:
            closing.append(event(envelope | {"choices": [], "usage": self._usage(ask, answer)}))
        steps = [chunks.texts({"content": TEXT}, words, index=index) for index, words in enumerate(answer.choices)]
        opening = [chunks.one(_opening(answer.call), index=index) for index in indices]
        if answer.call:
            steps = [chunks.texts(ARGUMENTS, answer.call.pieces)]
        return Script(
            opening=b"".join(opening),
            steps=steps[0] if len(steps) == 1 else map(b"".join, zip(*steps, strict=True)),
            count=answer.steps,
            closing=b"".join((*closing, DONE)),
            malformed=MALFORMED,
            error_event=event(SERVER_ERROR.value()),
            tokens_per_step=len(steps),
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
        return message | {"content": None, "tool_calls": [tool_call(answer.call)]} if answer.call else message

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


MALFORMED = chunked(b'data: {"id":"chatcmpl-","object":"chat.completion.chunk","choices":[{"index":0,"del\n\n')
ARGUMENTS: Json = {"tool_calls": [{"index": 0, "function": {"arguments": TEXT}}]}


def tool_call(call: Call) -> Json:
    """Return a whole function call."""
    function = {"name": call.name, "arguments": "".join(call.pieces)}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def tool_call_opening(call: Call) -> Json:
    """Return the delta that opens a function call: index, id and name are only in this one."""
    opened = {"index": 0} | tool_call(Call(name=call.name, pieces=()))
    return {"role": "assistant", "content": None, "tool_calls": [opened]}


def _opening(call: Call | None) -> Json:
    opening = tool_call_opening(call) if call else {"role": "assistant", "content": ""}
    return opening | {"refusal": None}
