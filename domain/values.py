"""Values that are built for every request or chunk: frozen at run time they would take three times as long to build."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass that the type checker keeps frozen."""
    return dataclass(slots=True, kw_only=True)(cls)


@dataclass_transform(frozen_default=True)
def positional_value(cls: type[T]) -> type[T]:
    """The same, built by position; equal ones have equal hashes."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
