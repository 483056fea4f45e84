"""What makes two questions the same question."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from json.encoder import encode_basestring as _quoted

from domain.chat import Caller, ChatRequest, Json


class CacheScope(StrEnum):
    """Who may be served whose answer."""

    SHARED = "shared"
    TENANT = "tenant"
    USER = "user"


def sharing_scope(caller: Caller, scope: CacheScope) -> str:
    """The name of the circle within which `caller` shares answers; empty: with everybody.

    A caller of a tenant shares with nobody outside it, whatever `scope` says; one without a tenant, where answers are
    shared by tenant, with nobody.
    """
    if scope is CacheScope.USER or (scope is CacheScope.TENANT and not caller.tenant):
        return f"user:{caller.user}"
    return f"tenant:{caller.tenant}" if caller.tenant else ""


def scope_named(name: str) -> str:
    """The circle of that name: `shared` for everybody's, `tenant:NAME`, or `user:NAME`."""
    return "" if name == CacheScope.SHARED else name


def fingerprint(request: ChatRequest, scope: str) -> str:
    """SHA-256, in hex, of everything that can change the answer, and of who may share it.

    The order of properties, 1 against 1.0 and the composition of Unicode (NFC) make no difference; all else does.
    A request that is asked again has it at hand.
    """
    known = request.fingerprints.get(scope)
    if known is None:
        known = hashlib.sha256(_canonical(request, scope).encode()).hexdigest()
        request.fingerprints.clear()
        request.fingerprints[scope] = known
    return known


def _canonical(request: ChatRequest, scope: str) -> str:
    return _composed(_json((scope, request.model, request.provider, request.messages, request.options)))


def _json(value: Json) -> str:
    """`value` as JSON: every whole float as the integer it equals, properties in the order of their composed names."""
    match value:
        case str():
            return _quoted(value)
        case dict():
            return "{" + ",".join([f"{_quoted(name)}:{_json(value[name])}" for name in _ordered(value)]) + "}"
        case list() | tuple():
            return "[" + ",".join([_json(item) for item in value]) + "]"
        case None:
            return "null"
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return json.dumps(value)


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=None if all(map(str.isascii, names)) else lambda name: (_composed(name), name))


_MAX_MARKS = 64
"""So many marks in a row no language has; to put them in order takes the square of their number.

Source: UAX #15, section 13 (Stream-Safe Text Format), which allows 30.
"""
_MADE_OF_MARKS = frozenset("\u0344\u0f73\u0f75\u0f81")


def _composed(text: str) -> str:
    """`text` in NFC; as it is where it has more marks in a row than _MAX_MARKS."""
    if text.isascii() or unicodedata.is_normalized("NFC", text) or _is_overlaid(text):
        return text
    return unicodedata.normalize("NFC", text)


def _is_overlaid(text: str) -> bool:
    marks = bytes(unicodedata.combining(letter) > 0 or letter in _MADE_OF_MARKS for letter in text)
    return b"\x01" * (_MAX_MARKS + 1) in marks
