"""DeepSeek's variation of Chat Completions.

Source: api-docs.deepseek.com, "Create Chat Completion", "Rate Limit" and "Error Codes", November 2026.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from infrastructure.simulator.beginnings import NOTHING
from infrastructure.simulator.completion import Answer, Ask, Json
from infrastructure.simulator.deepseek_errors import ERRORS
from infrastructure.simulator.dialect import Profile, Refusal, Refused
from infrastructure.simulator.openai import CALL_ARGUMENTS, OpenAI, call_opening
from infrastructure.simulator.openai_chunks import TEXT, Chunks
from infrastructure.simulator.openai_errors import OpenAIError

_CACHE_BLOCK_TOKENS = 64
_PREFIX_PAGE = "https://api-docs.deepseek.com/guides/chat_prefix_completion"
_NOT_BETA = 'prefix is only available when using beta api (set base_url="https://api.deepseek.com/beta")'


_INVALID = "invalid_request_error"


class DeepSeek(OpenAI):
    """The dialect of api.deepseek.com."""

    profile = Profile(
        name="deepseek",
        completion_paths=("/chat/completions", "/v1/chat/completions", "/{beta:beta}/chat/completions"),
        model_paths=("/models", "/v1/models"),
        stream_keepalive=b": keep-alive\n\n",
        body_keepalive=b"\n",
    )
    model_names = ("deepseek-chat", "deepseek-reasoner")
    errors = ERRORS

    def wrong_key(self, key: str | None) -> Refusal:
        """Return DeepSeek's 401, which shows the end of the key."""
        shown = f"Your api key: ****{key[-4:]} is invalid" if key else "no api key was sent"
        message = f"Authentication Fails, {shown}"
        return OpenAIError(401, "authentication_error", "invalid_request_error", message).refusal()

    def unknown_model(self, model: str) -> Refusal:  # noqa: ARG002 - the message does not name it
        """Return DeepSeek's 400 of an unknown model."""
        return self.wrong_request("Model Not Exist", code=_INVALID)

    def ask(self, path: Mapping[str, str], body: Json) -> Ask:
        """Return what is asked; reasoners think first, and there is always one choice.

        An answer that has begun is gone on with when its message is marked with `prefix`, at the beta address.

        Raises:
            Refused: DeepSeek would answer 400.
        """
        ask = super().ask(path, body)
        ask = replace(ask, is_thinking="reasoner" in ask.model, obfuscate=False, choices=1)
        if not ask.begun.is_prefilled:
            return ask
        if body["messages"][-1].get("prefix"):
            if "beta" not in path:
                raise Refused(self.wrong_request(_NOT_BETA, code=_INVALID))
            return ask
        if ask.is_thinking:
            raise Refused(self.wrong_request(_last_message(ask.model), code=_INVALID))
        return replace(ask, begun=NOTHING)

    def headers(self) -> dict[str, str]:
        """Return the headers of every response."""
        return {
            "cache-control": "no-cache",
            "vary": "origin, access-control-request-method, access-control-request-headers",
            "x-ds-trace-id": secrets.token_hex(16),
            "server": "cloudflare",
        }

    def _opening(self, answer: Answer) -> Json:
        if answer.call:
            return call_opening(answer.call)
        thought: Json = {"content": None, "reasoning_content": ""} if answer.thoughts else {"content": ""}
        return {"role": "assistant", **thought}

    def _steps(self, chunks: Chunks, answer: Answer) -> Iterator[bytes]:
        if answer.call:
            return chunks.texts(CALL_ARGUMENTS, answer.call.pieces)
        if not answer.thoughts:
            return chunks.texts({"content": TEXT}, answer.choices[0])
        thoughts = chunks.texts({"content": None, "reasoning_content": TEXT}, answer.thoughts)
        return chain(thoughts, chunks.texts({"content": TEXT, "reasoning_content": None}, answer.choices[0]))

    def _closing(self, chunks: Chunks, ask: Ask, answer: Answer) -> bytes:
        """Return the chunk that has both the finish reason and the usage, asked for or not."""
        return chunks.one({"content": ""}, finish=answer.finish, usage=self._usage(ask, answer))

    def _envelope(self, kind: str, ask: Ask) -> Json:
        envelope = super()._envelope(kind, ask) | {"id": secrets.token_hex(16)}
        del envelope["service_tier"]
        return envelope | {"system_fingerprint": "fp_8802369eaa_prod0623_fp8_kvcache"}

    def _message(self, words: Sequence[str], answer: Answer) -> Json:
        message = super()._message(words, answer)
        del message["refusal"], message["annotations"]
        return message | {"reasoning_content": "".join(answer.thoughts)} if answer.thoughts else message

    def _usage(self, ask: Ask, answer: Answer) -> Json:
        hit = ask.prompt_tokens // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS
        usage: Json = {
            "prompt_tokens": ask.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": ask.prompt_tokens + answer.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": hit},
            "prompt_cache_hit_tokens": hit,
            "prompt_cache_miss_tokens": ask.prompt_tokens - hit,
        }
        thought = {"completion_tokens_details": {"reasoning_tokens": len(answer.thoughts)}}
        return usage | thought if answer.thoughts else usage


def _last_message(model: str) -> str:
    return (
        f"The last message of {model} must be a user message, or an assistant message with prefix mode on "
        f"(refer to {_PREFIX_PAGE})."
    )
