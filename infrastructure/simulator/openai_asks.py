"""What a Chat Completions request asks."""

from collections.abc import Mapping
from typing import Any

from infrastructure.simulator.completion import Ask, Json, Tool


class WrongField(ValueError):
    """OpenAI would refuse the request for this field."""

    def __init__(self, message: str, param: str | None, code: str | None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def asked(body: Json) -> Ask:
    """Return what `body` asks.

    Raises:
        WrongField: the model or the messages are missing, or a number is out of range.
    """
    model, messages = _model(body), _messages(body)
    options = body.get("stream_options") or {}
    stream = body.get("stream") is True
    return Ask(
        model=model,
        question=next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), ""),
        prompt_tokens=max(1, sum(len(text_of(message).split()) for message in messages)),
        stream=stream,
        include_usage=options.get("include_usage") is True,
        obfuscate=stream and options.get("include_obfuscation") is not False,
        choices=_whole_number(body, "n", 1),
        max_tokens=_limit(body),
        tool=None if messages[-1].get("role") == "tool" else _tool(body),
        json_schema=_json_schema(body.get("response_format") or {}),
    )


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, whether it is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))


def _model(body: Json) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise WrongField("you must provide a model parameter", None, None)
    return model


def _messages(body: Json) -> list[Json]:
    messages = body.get("messages")
    if messages is None:
        raise WrongField("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise WrongField("Invalid type for 'messages': expected an array of objects.", "messages", "invalid_type")
    if not messages:
        raise WrongField("Invalid 'messages': empty array. Expected at least 1 item.", "messages", "empty_array")
    return messages


def _limit(body: Json) -> int | None:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return None if body.get(name) is None else _whole_number(body, name, 1)


def _whole_number(body: Json, name: str, default: int) -> int:
    number = body.get(name)
    if number is None:
        return default
    if isinstance(number, bool) or not isinstance(number, int):
        raise WrongField(f"Invalid type for '{name}': expected an integer.", name, "invalid_type")
    if number < 1:
        message = f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {number} instead."
        raise WrongField(message, name, "integer_below_min_value")
    return number


def _tool(body: Json) -> Tool | None:
    """Return the function that may be called: the one that tool_choice names, else the first."""
    choice = body.get("tool_choice")
    functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    if choice == "none" or not functions:
        return None
    named = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    function = next((function for function in functions if function["name"] == named), functions[0])
    is_required = choice == "required" or named is not None
    return Tool(name=function["name"], parameters=function.get("parameters") or {}, is_required=is_required)


def _json_schema(response_format: Json) -> Json | None:
    if response_format.get("type") == "json_object":
        return {}
    schema: Json | None = response_format.get("json_schema", {}).get("schema")
    return schema
