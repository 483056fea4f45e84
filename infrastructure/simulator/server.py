"""The simulated providers and their control server, in one process."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import uvloop

from infrastructure.simulator.control import Control
from infrastructure.simulator.counters import Board
from infrastructure.simulator.deepseek import DeepSeek
from infrastructure.simulator.dialect import Dialect
from infrastructure.simulator.endpoint import Endpoint
from infrastructure.simulator.gemini import Gemini
from infrastructure.simulator.listener import Listener
from infrastructure.simulator.openai import OpenAI
from infrastructure.simulator.schedule import Schedule


def run(host: str, port: int, announce: Callable[[dict[str, str]], None]) -> None:
    """Serve until SIGTERM or SIGINT, having told `announce` the addresses once all of them answer.

    The control server listens on `port`, the providers on the three ports after it; 0 takes any free ones.

    Raises:
        OSError: a port is taken.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(host, port, announce))


async def _run(host: str, port: int, announce: Callable[[dict[str, str]], None]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with simulation(host, port) as addresses:
        announce(addresses)
        await stopped.wait()


@asynccontextmanager
async def simulation(host: str, port: int) -> AsyncIterator[dict[str, str]]:
    """Serve while the context is entered; it gives the base URLs that the SDKs want, and the control server's.

    Raises:
        OSError: a port is taken.
    """
    dialects: list[Dialect] = [OpenAI(), DeepSeek(), Gemini()]
    board, schedule = Board(dialect.profile.name for dialect in dialects), Schedule()
    listeners: dict[str, Listener] = {}
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        control = Control(listeners, schedule, board, addresses)
        addresses["control"] = (await _listen(stack, Listener(control.app(), host, port))).url
        for number, dialect in enumerate(dialects, start=1):
            app = Endpoint(dialect, board, schedule, listeners).app()
            listener = await _listen(stack, Listener(app, host, port and port + number))
            listeners[dialect.profile.name], addresses[dialect.profile.name] = (
                listener,
                listener.url + dialect.profile.base_path,
            )
        yield addresses


async def _listen(stack: AsyncExitStack, listener: Listener) -> Listener:
    stack.push_async_callback(listener.close)
    await listener.on()
    return listener
