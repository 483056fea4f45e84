"""What several ask for at once is got once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """What is being got, by name."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    async def share(self, name: str, get: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `get` returns or raises, which is called unless that is being got already.

        Whoever stops waiting leaves it under way, for the others.
        """
        getting = self._under_way.get(name)
        if getting is None:
            getting = self._under_way[name] = asyncio.get_running_loop().create_task(get())
            getting.add_done_callback(lambda _: self._under_way.pop(name))
        return await asyncio.shield(getting)
