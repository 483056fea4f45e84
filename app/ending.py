"""What a worker does when it is told to end, before the server acts on it."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar


def at_sigterm(*drains: Callable[[], None]) -> Callable[[Litestar], AbstractAsyncContextManager[Any]]:
    """A lifespan during which SIGTERM calls all `drains` first.

    There is one handler for a signal, and SIGTERM's was the server's own. It has the same one for SIGINT, which is
    raised then.
    """

    def end() -> None:
        for drain in drains:
            drain()
        signal.raise_signal(signal.SIGINT)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        yield

    return lifespan
