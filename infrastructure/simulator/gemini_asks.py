"""What a generateContent request asks."""

from collections.abc import Mapping
from typing import Any

from infrastructure.simulator.completion import Ask, Json, Tool


class WrongContents(ValueError):
    """Gemini would refuse the request; the text is its message."""


def asked(model: str, verb: str, body: Json) -> Ask:
    """Return what `body`, sent to `model`, asks.

    Raises:
        WrongContents: there is nothing to answer.
    """
    contents = _contents(body)
    config = body.get("generationConfig") or {}
    return Ask(
        model=model,
        question=next((_text(content) for content in reversed(contents) if content.get("role") != "model"), ""),
        prompt_tokens=max(1, sum(len(_text(content).split()) for content in (*contents, _system(body)))),
        stream=verb == "streamGenerateContent",
        max_tokens=config.get("maxOutputTokens"),
        tool=_tool(body) if _text(contents[-1]) else None,
        json_schema=_json_schema(config),
    )


def _contents(body: Json) -> list[Json]:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents or not all(isinstance(content, dict) for content in contents):
        raise WrongContents("* GenerateContentRequest.contents: contents is not specified\n")
    return contents


def _system(body: Json) -> Json:
    system: Json = body.get("systemInstruction") or {}
    return system


def _text(content: Mapping[str, Any]) -> str:
    return " ".join(part.get("text", "") for part in content.get("parts") or ()).strip()


def _tool(body: Json) -> Tool | None:
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    functions = [function for tool in body.get("tools") or () for function in tool.get("functionDeclarations") or ()]
    if calling.get("mode") == "NONE" or not functions:
        return None
    allowed = calling.get("allowedFunctionNames") or [functions[0]["name"]]
    function = next((function for function in functions if function["name"] in allowed), functions[0])
    parameters = function.get("parameters") or function.get("parametersJsonSchema") or {}
    return Tool(name=function["name"], parameters=parameters, is_required=calling.get("mode") == "ANY")


def _json_schema(config: Json) -> Json | None:
    if config.get("responseMimeType") != "application/json":
        return None
    return config.get("responseSchema") or config.get("responseJsonSchema") or {}
