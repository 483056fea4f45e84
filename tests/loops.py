"""An event loop whose time stands still while anything can run, and jumps to the next timer when nothing can."""

import asyncio
import selectors


class Stuck(Exception):
    """Nothing can run and no timer is set: the test waits for something that never comes."""


class _Leap(selectors.DefaultSelector):
    """Never waits; adds up for how long it was asked to wait."""

    now_s = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise Stuck
        self.now_s += timeout
        return super().select(0)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """A loop for tests without sockets and threads: deadlines of minutes pass at once, to the exact second.

    Times that have to be exact are sums of powers of two.
    """

    def __init__(self):
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self):
        return self._leap.now_s


FAKE_TIME = ("asyncio", {"loop_factory": FakeTimeLoop})
"""The anyio backend of tests that take no time."""


def run(main):
    """What the coroutine `main` returns, on a loop of its own with fake time."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)


async def settle():
    """Whatever can run before time passes has run."""
    for _ in range(30):
        await asyncio.sleep(0)
