"""How the turns of conversations are kept: msgpack, whose length is what counts against a conversation's bytes."""

from collections.abc import Sequence
from typing import TypedDict

import msgspec

from domain.chat import Message


class _Spoken(TypedDict):
    role: str
    content: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Spoken]).decode


def encode_turn(messages: Sequence[Message]) -> bytes:
    """The messages as bytes that `decode_turn` reads."""
    return _encode([dict(message) for message in messages])


def decode_turn(data: bytes) -> Sequence[Message]:
    """The messages that were encoded.

    Raises:
        msgspec.MsgspecError, UnicodeError: `data` is something else.
    """
    return _decode(data)
