"""Several instances of the service over one Redis, as real processes that can be killed and stopped."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.proxies import Proxy
from tests.redis_servers import RedisServer
from tests.serving import SETTINGS, Service
from tests.simulation import Simulation

FLEET_SETTINGS = SETTINGS | {
    "WEIR_GRACE_S": "8",
    "WEIR_STALL_TIMEOUT_S": "30",
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "30",
    "WEIR_TRACE_SAMPLE_RATIO": "0",
    "WEIR_LOG_LEVEL": "warning",
}
"""Clients may be away for as long as a takeover takes, and a loaded machine is no failing provider."""


class Instance(Service):
    """One `weir serve` of a fleet."""

    def __init__(self, simulation: Simulation, redis_url: str, **settings: str) -> None:
        super().__init__(simulation, FLEET_SETTINGS | {"WEIR_REDIS_URL": redis_url} | settings)
        self.is_alive = True

    def kill(self) -> None:
        """It is gone, without a word."""
        self.is_alive = False
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self._log.close()

    def pause(self) -> None:
        """It stands still, its connections open, until `resume`."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on as if nothing had been."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """It ends as an operator would end it, if it still runs."""
        if self.is_alive:
            self.resume()
            self.stop()


@contextmanager
def fleet(simulation: Simulation, *redis_urls: str, **settings: str):
    """An instance for each of the URLs; they end with the context."""
    with ExitStack() as ending:
        with ThreadPoolExecutor() as starting:
            begun = [starting.submit(Instance, simulation, url, **settings) for url in redis_urls]
        for each in begun:
            if not each.exception():
                ending.callback(each.result().end)
        yield [each.result() for each in begun]


class Fleet:
    """Three instances over one Redis, which the first reaches through `proxy`; whatever is done to them, they go on."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.redis = RedisServer()
        self.proxy = Proxy(self.redis.port)
        self._urls = [f"redis://127.0.0.1:{self.proxy.port}", self.redis.url, self.redis.url]
        with ThreadPoolExecutor() as starting:
            self.instances = list(starting.map(self._start, self._urls))

    def replace_lost(self) -> None:
        """In the place of each instance that was killed there is a new one."""
        for at, instance in enumerate(self.instances):
            if not instance.is_alive:
                self.instances[at] = self._start(self._urls[at])

    def close(self) -> None:
        """All have ended as an operator would end them, and Redis is gone."""
        with ExitStack() as ending:
            ending.callback(self.redis.close)
            ending.callback(self.proxy.close)
            for instance in self.instances:
                ending.callback(instance.end)

    def _start(self, url: str) -> Instance:
        return Instance(self._simulation, url)
