"""What is there when the service begins to listen to others."""

import asyncio

import pytest
from dependency_injector.providers import Object

from app.container import Container
from app.main import create_app
from config.configuration import read_configuration
from tests.serving import environment

pytestmark = pytest.mark.anyio


class Listening:
    """A part that hears of a leader that is gone, and of a stream that is to be stopped, as soon as it is started."""

    def __init__(self, log):
        self._log = log
        self.has_told = False

    def start(self):
        self.has_told = callable(self._log.took_over) and callable(self._log.asked_to_stop)

    async def close(self):
        self.has_told = False


async def test_who_reacts_is_there_before_anything_is_heard(simulator):
    """Else the first that Redis says is a defect in the log."""
    settings, catalogue = read_configuration(environment(simulator, {"WEIR_LOG_LEVEL": "error"}))
    container = Container(settings=Object(settings), catalogue=Object(catalogue))
    part = Listening(container.generation_log())
    container.shared.override(Object([part]))
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    app = create_app(container)
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})

    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    assert part.has_told

    await inbox.put({"type": "lifespan.shutdown"})
    await lifespan
