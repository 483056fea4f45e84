"""Puts a request in OpenAI's words into Gemini's. Source: ai.google.dev/api/generate-content, as known 2026-11."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from domain.chat import ChatRequest, Json
from domain.errors import ProviderRejected, RouteUnfit
from infrastructure.providers.gemini_contents import contents

RENAMED: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
"""Options that are the same in `generationConfig` under another name."""

LEFT_OUT = frozenset(
    {
        "metadata",  # what OpenAI keeps with a stored answer
        "prompt_cache_key",  # where OpenAI looks for a cached prompt
        "prompt_cache_retention",
        "safety_identifier",  # for OpenAI to tell end users apart
        "service_tier",  # what OpenAI charges, and how soon it answers
        "store",  # whether OpenAI keeps the answer
        "user",  # see safety_identifier
    }
)
"""Options that cannot change the answer."""

NEUTRAL: Mapping[str, Json] = {
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "n": 1,  # there is candidateCount, but a stream has one candidate whatever it says
}
"""Options that Gemini does not know, and the value that asks for what it does anyway."""

BUDGETS: Mapping[str, int] = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
LEVELS: Mapping[str, str] = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
"""What reasoning_effort means up to Gemini 2.5, in tokens, and since Gemini 3, in levels.

Source: ai.google.dev/gemini-api/docs/openai, section Thinking, as known 2026-11.
"""

MODES: Mapping[str, str] = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
"""What tool_choice means."""

_THINKS_IN_TOKENS = re.compile(r"gemini-[12]\b")


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """A tool; Gemini knows functions."""

    type: str
    function: Function | None = None


def gemini_body(model: str, request: ChatRequest) -> dict[str, Json]:
    """The body of streamGenerateContent.

    Raises:
        RouteUnfit: Gemini has no words for something that would change the answer.
        ProviderRejected: the request is not of OpenAI's shape.
    """
    try:
        body = contents(request.messages)
        for name, value in request.options.items():
            if value is not None and name not in LEFT_OUT and NEUTRAL.get(name) != value:
                _put(body, model, name, value)
    except (msgspec.MsgspecError, AttributeError, TypeError) as error:
        raise ProviderRejected(f"the request cannot be read: {error}") from error
    return body


def _put(body: dict[str, Json], model: str, name: str, value: Json) -> None:
    if name in _BESIDE:
        body[_BESIDE[name][0]] = _BESIDE[name][1](value)
    elif name in RENAMED:
        body.setdefault("generationConfig", {})[RENAMED[name]] = value
    elif name in _CONFIGURED:
        body.setdefault("generationConfig", {}).update(_CONFIGURED[name](value, model))
    else:
        raise RouteUnfit(f"cannot take {name}")


def _stop(value: Json, _: str) -> dict[str, Json]:
    return {"stopSequences": [value] if isinstance(value, str) else value}


def _response_format(value: Json, _: str) -> dict[str, Json]:
    kind = value.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    if kind == "json_schema":
        return {"responseMimeType": "application/json", "responseJsonSchema": value["json_schema"].get("schema", {})}
    raise RouteUnfit(f"cannot take response_format {kind}")


def _reasoning_effort(value: Json, model: str) -> dict[str, Json]:
    in_tokens = _THINKS_IN_TOKENS.search(model)
    efforts: Mapping[str, Json] = BUDGETS if in_tokens else LEVELS
    if value not in efforts:
        raise RouteUnfit(f"cannot take reasoning_effort {value}")
    return {"thinkingConfig": {"thinkingBudget" if in_tokens else "thinkingLevel": efforts[value]}}


def _tools(value: Json) -> list[Json]:
    return [{"functionDeclarations": [_declaration(tool) for tool in msgspec.convert(value, list[Tool])]}]


def _declaration(tool: Tool) -> dict[str, Json]:
    if tool.function is None:
        raise RouteUnfit(f"cannot take tools of the type {tool.type}")
    function = tool.function
    declared = {"description": function.description, "parametersJsonSchema": function.parameters}
    return {"name": function.name} | {name: value for name, value in declared.items() if value is not None}


def _tool_choice(value: Json) -> dict[str, Json]:
    if isinstance(value, str) and value in MODES:
        return {"functionCallingConfig": {"mode": MODES[value]}}
    if isinstance(value, dict) and value.get("type") == "function":
        return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [value["function"]["name"]]}}
    raise RouteUnfit("cannot take this tool_choice")


_CONFIGURED: Mapping[str, Callable[[Json, str], dict[str, Json]]] = {
    "stop": _stop,
    "response_format": _response_format,
    "reasoning_effort": _reasoning_effort,
}
_BESIDE: Mapping[str, tuple[str, Callable[[Json], Json]]] = {
    "tools": ("tools", _tools),
    "tool_choice": ("toolConfig", _tool_choice),
}
