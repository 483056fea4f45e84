"""chat.completion.chunk objects: whatever stays the same within one response is encoded once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from infrastructure.simulator.completion import Json
from infrastructure.simulator.script import chunked

# Stands for the text in a chunk that is encoded once; JSON writes it as six characters that no text contains.
TEXT = "\x00"
_TEXT_ENCODED = b'"\\u0000"'
_PADDING = b"vN3kTq8ZrWbX5mYd"
DONE = chunked(b"data: [DONE]\n\n")

_encode = msgspec.json.Encoder().encode


def event(value: Json) -> bytes:
    """Return `value` as one event, in a chunk of its own."""
    return chunked(b"data: %b\n\n" % _encode(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """Makes the chunks of one response.

    Attributes:
        envelope: the fields around `choices`.
        trailer: those after it.
        beside: those of each choice beside its delta.
        is_padded: add OpenAI's `obfuscation`, which hides from eavesdroppers how long a token is.
    """

    envelope: Json
    trailer: Json
    beside: Json = field(default_factory=dict)
    is_padded: bool = False

    def one(self, delta: Json, *, index: int = 0, finish: str | None = None, usage: Json | None = None) -> bytes:
        """Return one chunk as an event."""
        value = self._value(delta, index, finish)
        return event(value | {"usage": usage} if usage else value)

    def texts(self, delta: Json, words: Iterable[str], *, index: int = 0) -> Iterator[bytes]:
        """Return an event for each word, which takes the place of `TEXT` in `delta`."""
        head, tail = _encode(self._value(delta, index, None)).split(_TEXT_ENCODED)
        if self.is_padded:
            return self._padded(words, b"data: " + head, tail[:-1] + b',"obfuscation":"')
        return _plain(words, b"data: " + head, tail + b"\n\n\r\n")

    def _value(self, delta: Json, index: int, finish: str | None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **self.beside}
        return {**self.envelope, "choices": [choice], **self.trailer}

    def _padded(self, words: Iterable[str], head: bytes, tail: bytes) -> Iterator[bytes]:
        constant = len(head) + len(tail) + len(b'"}\n\n')
        for word in words:
            text = _encode(word)
            padding = _PADDING[len(text) % 16 :]
            size = constant + len(text) + len(padding)
            yield b'%x\r\n%b%b%b%b"}\n\n\r\n' % (size, head, text, tail, padding)


def _plain(words: Iterable[str], head: bytes, tail: bytes) -> Iterator[bytes]:
    constant = len(head) + len(tail) - len(b"\r\n")
    for word in words:
        text = _encode(word)
        yield b"%x\r\n%b%b%b" % (constant + len(text), head, text, tail)
