"""A value that satisfies a JSON schema: the arguments of simulated tool calls, and answers in JSON."""

from collections.abc import Mapping
from typing import Any

_SCALARS: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}


def example(schema: Mapping[str, Any], text: str) -> Any:
    """Return the same value for the same schema; every free string in it is `text`.

    Understands type, enum, const, properties, items, anyOf and oneOf; types in capitals too, as Gemini writes them.
    """
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return example(alternatives[0], text)
    return _of_type(_type(schema), schema, text)


def _type(schema: Mapping[str, Any]) -> str:
    named = schema.get("type", "object" if "properties" in schema else "string")
    return str(named[0] if isinstance(named, list) else named).lower()


def _of_type(kind: str, schema: Mapping[str, Any], text: str) -> Any:
    if kind == "object":
        return {name: example(part, text) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), text)]
    return _SCALARS.get(kind, text)
