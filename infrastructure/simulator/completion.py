"""What a simulated model says to one request, before it takes any provider's form."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from infrastructure.simulator.answers import answer_tokens, split_tokens
from infrastructure.simulator.beginnings import NOTHING, Begun
from infrastructure.simulator.behaviour import Behaviour, Fault
from infrastructure.simulator.examples import example

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
Json = dict[str, Any]

_WANTS_TOOL = re.compile(r"\btools?\b", re.IGNORECASE)
_ARGUMENT_PIECE = re.compile(r".{1,6}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call, or must when `is_required`."""

    name: str
    parameters: Json
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, as all providers mean it.

    Attributes:
        model: the requested name, behaviour and all.
        question: text of the last user message.
        begun: what the answer has already, if anything: only the rest is said.
        json_schema: the answer must be JSON of this schema; `{}` is any object.
        is_thinking: the model thinks aloud before it answers.
        has_remarks: a filter says how it has found what is answered.
    """

    model: str
    question: str
    prompt_tokens: int
    begun: Begun = NOTHING
    stream: bool = False
    include_usage: bool = False
    obfuscate: bool = False
    choices: int = 1
    max_tokens: int | None = None
    tool: Tool | None = None
    json_schema: Json | None = None
    is_thinking: bool = False
    has_remarks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function call; `pieces` joined are its arguments in JSON."""

    name: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that is said: thoughts, then the text of each choice, or a call instead of text.

    `is_prompt_blocked`: the filter objects to the question, not to the answer.
    """

    finish: Finish
    choices: tuple[tuple[str, ...], ...]
    thoughts: tuple[str, ...] = ()
    call: Call | None = None
    is_prompt_blocked: bool = False

    @property
    def steps(self) -> int:
        """How many times something is sent."""
        return len(self.thoughts) + (len(self.call.pieces) if self.call else len(self.choices[0]))

    @property
    def completion_tokens(self) -> int:
        """How many tokens the answer costs."""
        said = len(self.call.pieces) if self.call else sum(map(len, self.choices))
        return len(self.thoughts) + said


def answer(ask: Ask, behaviour: Behaviour) -> Answer:
    """Return what the model says to `ask` when it behaves so."""
    if behaviour.blocked or behaviour.fault is Fault.CONTENT_FILTER:
        return _filtered(ask, behaviour)
    if behaviour.fault is Fault.EMPTY:
        return Answer(finish="stop", choices=((),) * ask.choices)
    if ask.tool is not None and (behaviour.tool_call or ask.tool.is_required or _WANTS_TOOL.search(ask.question)):
        return Answer(finish="tool_calls", choices=((),), call=_call(ask.tool, ask.question))
    return _said(ask, behaviour)


def _filtered(ask: Ask, behaviour: Behaviour) -> Answer:
    is_prompt = behaviour.at is None or behaviour.fault is Fault.CONTENT_FILTER
    words = () if is_prompt else _text(ask, behaviour, 0)[: behaviour.at]
    return Answer(finish="content_filter", choices=(words,), is_prompt_blocked=is_prompt)


def _said(ask: Ask, behaviour: Behaviour) -> Answer:
    is_thinking = ask.is_thinking and not ask.begun.text
    thoughts = answer_tokens("thoughts on " + ask.question, behaviour.tokens // 2) if is_thinking else ()
    choices = tuple(_text(ask, behaviour, index) for index in range(ask.choices))
    room = ask.max_tokens
    if room is None or len(thoughts) + max(map(len, choices)) <= room:
        return Answer(finish="stop", choices=choices, thoughts=thoughts)
    left = max(room - len(thoughts), 0)
    return Answer(finish="length", choices=tuple(words[:left] for words in choices), thoughts=thoughts[:room])


def _text(ask: Ask, behaviour: Behaviour, index: int) -> tuple[str, ...]:
    """Return the tokens of one choice: of one that has begun, those to go on with."""
    words = _whole_text(ask, behaviour, index)
    if not (ask.begun.text and words):
        return words
    return split_tokens(ask.begun.gone_on_with("".join(words), behaviour.continues))


def _whole_text(ask: Ask, behaviour: Behaviour, index: int) -> tuple[str, ...]:
    """Return the tokens of one choice; the first is the same everywhere, the others differ from it."""
    if behaviour.text is not None:
        return split_tokens(behaviour.text)
    words = answer_tokens(f"{ask.question}#{index}" if index else ask.question, behaviour.tokens)
    if ask.json_schema is None:
        return words
    return split_tokens(_json(example(ask.json_schema or _ANY_OBJECT, "".join(words))))


def _call(tool: Tool, question: str) -> Call:
    arguments = _json(example(tool.parameters, "".join(answer_tokens(question, 3))))
    return Call(name=tool.name, pieces=tuple(_ARGUMENT_PIECE.findall(arguments)))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


_ANY_OBJECT: Json = {"type": "object", "properties": {"answer": {"type": "string"}}}
