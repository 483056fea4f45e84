"""What a Chat Completions request asks; what it does not know, it ignores."""

from typing import Annotated

import msgspec

from infrastructure.simulator.beginnings import Turn, begun, question
from infrastructure.simulator.completion import Ask, Json, Tool

Positive = Annotated[int, msgspec.Meta(ge=1)]


class WrongField(ValueError):
    """OpenAI would refuse the request for this field."""

    def __init__(self, message: str, param: str | None, code: str | None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class _Part(msgspec.Struct, frozen=True):
    text: str = ""


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[_Part] | None = None
    prefix: bool = False

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return " ".join(part.text for part in self.content)

    @property
    def turn(self) -> Turn:
        """What is said; a tool says nothing to the model."""
        return Turn(is_model=self.role == "assistant", text=self.text if self.role in {"user", "assistant"} else "")


class _Function(msgspec.Struct, frozen=True):
    name: str
    parameters: Json | None = None


class _Tool(msgspec.Struct, frozen=True):
    function: _Function | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False
    include_obfuscation: bool = True


class _JsonSchema(msgspec.Struct, frozen=True):
    schema: Json = {}


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str
    json_schema: _JsonSchema | None = None


class _Body(msgspec.Struct, frozen=True):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Positive | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Tool | None = None
    response_format: _ResponseFormat | None = None


def asked(body: Json) -> Ask:
    """Return what `body` asks.

    Raises:
        WrongField: the model or the messages are missing, or a field is of the wrong type or out of range.
    """
    read = _read(body)
    messages, options = read.messages, read.stream_options or _StreamOptions()
    turns = [message.turn for message in messages]
    return Ask(
        model=read.model,
        question=question(turns),
        prompt_tokens=max(1, sum(len(message.text.split()) for message in messages)),
        begun=begun(turns),
        stream=bool(read.stream),
        include_usage=options.include_usage,
        obfuscate=options.include_obfuscation,
        choices=read.n or 1,
        max_tokens=read.max_completion_tokens or read.max_tokens,
        tool=None if messages[-1].role == "tool" else _tool(read),
        json_schema=_json_schema(read.response_format),
    )


def _read(body: Json) -> _Body:
    if not body.get("model"):
        raise WrongField("you must provide a model parameter", None, None)
    if body.get("messages") is None:
        raise WrongField("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if body["messages"] == []:
        raise WrongField("Invalid 'messages': empty array. Expected at least 1 item.", "messages", "empty_array")
    try:
        return msgspec.convert(body, _Body)
    except msgspec.ValidationError as error:
        _, _, path = str(error).partition(" - at `$.")
        raise WrongField(f"Invalid request: {error}", path.rstrip("`") or None, "invalid_type") from error


def _tool(body: _Body) -> Tool | None:
    """Return the function that may be called: the one that tool_choice names, else the first."""
    choice = body.tool_choice
    functions = [tool.function for tool in body.tools or () if tool.function]
    if choice == "none" or not functions:
        return None
    named = choice.function.name if isinstance(choice, _Tool) and choice.function else None
    function = next((function for function in functions if function.name == named), functions[0])
    is_required = choice == "required" or named is not None
    return Tool(name=function.name, parameters=function.parameters or {}, is_required=is_required)


def _json_schema(wanted: _ResponseFormat | None) -> Json | None:
    if wanted is None or wanted.type == "text":
        return None
    return wanted.json_schema.schema if wanted.json_schema else {}
