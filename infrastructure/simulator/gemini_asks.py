"""What a generateContent request asks; what it does not know, it ignores."""

from typing import Annotated, Literal

import msgspec

from infrastructure.simulator.beginnings import Turn, begun, question
from infrastructure.simulator.completion import Ask, Json, Tool


class WrongContents(ValueError):
    """Gemini would refuse the request; the text is its message."""


class _Struct(msgspec.Struct, rename="camel", frozen=True):
    """Named as in Python here and as in JavaScript on the wire."""


class _Part(_Struct, frozen=True):
    text: str = ""
    function_response: Json | None = None


class _Content(_Struct, frozen=True):
    parts: list[_Part] = []
    role: str | None = None

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts if part.text)

    @property
    def is_tool_result(self) -> bool:
        return any(part.function_response is not None for part in self.parts)


class _Function(_Struct, frozen=True):
    name: str
    parameters: Json | None = None
    parameters_json_schema: Json | None = None


class _Tool(_Struct, frozen=True):
    function_declarations: list[_Function] = []


class _FunctionCalling(_Struct, frozen=True):
    mode: Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] | None = None


class _ToolConfig(_Struct, frozen=True):
    function_calling_config: _FunctionCalling = _FunctionCalling()


class _GenerationConfig(_Struct, frozen=True):
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    response_mime_type: str | None = None
    response_schema: Json | None = None
    response_json_schema: Json | None = None


class _Body(_Struct, frozen=True):
    contents: Annotated[list[_Content], msgspec.Meta(min_length=1)]
    system_instruction: _Content = _Content()
    generation_config: _GenerationConfig = _GenerationConfig()
    tools: list[_Tool] = []
    tool_config: _ToolConfig = _ToolConfig()


def asked(model: str, verb: str, body: Json) -> Ask:
    """Return what `body`, sent to `model`, asks.

    Raises:
        WrongContents: there is nothing to answer, or a field is of the wrong type.
    """
    read = _read(body)
    contents, config = read.contents, read.generation_config
    turns = [Turn(is_model=content.role == "model", text=content.text) for content in contents]
    return Ask(
        model=model,
        question=question(turns),
        prompt_tokens=max(1, sum(len(content.text.split()) for content in (*contents, read.system_instruction))),
        begun=begun(turns),
        stream=verb == "streamGenerateContent",
        max_tokens=config.max_output_tokens,
        tool=None if contents[-1].is_tool_result else _tool(read),
        json_schema=_json_schema(config),
    )


def _read(body: Json) -> _Body:
    if not body.get("contents"):
        raise WrongContents("* GenerateContentRequest.contents: contents is not specified\n")
    try:
        return msgspec.convert(body, _Body)
    except msgspec.ValidationError as error:
        raise WrongContents(f"Invalid JSON payload received. {error}") from error


def _tool(body: _Body) -> Tool | None:
    calling = body.tool_config.function_calling_config
    functions = [function for tool in body.tools for function in tool.function_declarations]
    if calling.mode == "NONE" or not functions:
        return None
    allowed = calling.allowed_function_names or [functions[0].name]
    function = next((function for function in functions if function.name in allowed), functions[0])
    parameters = function.parameters or function.parameters_json_schema or {}
    return Tool(name=function.name, parameters=parameters, is_required=calling.mode == "ANY")


def _json_schema(config: _GenerationConfig) -> Json | None:
    if config.response_mime_type != "application/json":
        return None
    return config.response_schema or config.response_json_schema or {}
