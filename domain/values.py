"""Values that are built for every request."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass that the type checker keeps frozen: one frozen at run time takes three times as long to build."""
    return dataclass(slots=True, kw_only=True)(cls)
