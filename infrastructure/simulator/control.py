"""The control server: arranges behaviours, switches providers off and on, tells what was asked.

GET    /                                            the addresses
PUT    /behaviours/{provider}                       {"model"?, "times"?, field: value, …} for the requests to come
DELETE /behaviours/{provider}   DELETE /behaviours  back to the default
POST   /providers/{provider}/off   …/on             refuse connections and drop those there are; accept again
GET    /counters[?until=openai.live==0&timeout_s=5] how calls ended; waits for the condition, 408 if it stays false
GET    /calls/{provider}                            the last 200 requests: path, headers that matter, body
POST   /reset                                       all of it as at the start
"""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from infrastructure.simulator.behaviour import WrongBehaviour, behaviour_of
from infrastructure.simulator.counters import Board, WrongCondition
from infrastructure.simulator.listener import Listener
from infrastructure.simulator.schedule import Entry, Schedule

_MAX_WAIT_S = 60.0
_MAX_REQUEST_BYTES = 64 * 1024 * 1024


class Control:
    """Answers the control server's requests; every one returns JSON, errors as `{"error": sentence}`."""

    def __init__(
        self, listeners: Mapping[str, Listener], schedule: Schedule, board: Board, addresses: Mapping[str, str]
    ) -> None:
        self._listeners = listeners
        self._schedule = schedule
        self._board = board
        self._addresses = addresses

    def app(self) -> web.Application:
        """Return the control server's web application."""
        app = web.Application(client_max_size=_MAX_REQUEST_BYTES, middlewares=[_errors_in_json])
        app.add_routes(
            [
                web.get("/", self._show_addresses),
                web.put("/behaviours/{provider}", self._put_behaviour),
                web.delete("/behaviours/{provider}", self._delete_behaviours),
                web.delete("/behaviours", self._delete_all_behaviours),
                web.post("/providers/{provider}/{switch:on|off}", self._switch),
                web.get("/counters", self._show_counters),
                web.get("/calls/{provider}", self._show_calls),
                web.post("/reset", self._reset),
            ]
        )
        return app

    async def _show_addresses(self, _: web.Request) -> web.Response:
        return web.json_response(dict(self._addresses))

    async def _put_behaviour(self, request: web.Request) -> web.Response:
        provider = self._provider(request)
        fields = _fields(await request.read())
        model, times = _model(fields.pop("model", None)), _times(fields.pop("times", None))
        self._schedule.put(provider, model, Entry(behaviour=behaviour_of(fields), times=times))
        return web.json_response({"provider": provider, "model": model, "times": times, **fields})

    async def _delete_behaviours(self, request: web.Request) -> web.Response:
        self._schedule.clear(self._provider(request))
        return web.json_response({})

    async def _delete_all_behaviours(self, _: web.Request) -> web.Response:
        self._schedule.clear()
        return web.json_response({})

    async def _switch(self, request: web.Request) -> web.Response:
        provider, switch = self._provider(request), request.match_info["switch"]
        listener = self._listeners[provider]
        await (listener.on() if switch == "on" else listener.off())
        return web.json_response({"provider": provider, "is_on": listener.is_on})

    async def _show_counters(self, request: web.Request) -> web.Response:
        condition = request.query.get("until")
        holds = condition is None or await self._board.until(condition, _timeout_s(request))
        return web.json_response(self._board.snapshot(), status=200 if holds else 408)

    async def _show_calls(self, request: web.Request) -> web.Response:
        return web.json_response(list(self._board.calls[self._provider(request)]))

    async def _reset(self, _: web.Request) -> web.Response:
        self._schedule.clear()
        for listener in self._listeners.values():
            await listener.on()
        self._board.reset()
        return web.json_response({})

    def _provider(self, request: web.Request) -> str:
        provider = request.match_info["provider"]
        if provider not in self._listeners:
            raise UnknownProvider(f"unknown provider '{provider}': one of {', '.join(self._listeners)}")
        return provider


class UnknownProvider(LookupError):
    """The path names a provider that is not simulated; the text names those that are."""


class WrongField(ValueError):
    """A field of the request cannot be right; the text says why."""


@web.middleware
async def _errors_in_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except UnknownProvider as unknown:
        return web.json_response({"error": str(unknown)}, status=404)
    except (WrongBehaviour, WrongCondition, WrongField) as wrong:
        return web.json_response({"error": str(wrong)}, status=400)
    except web.HTTPException as error:
        return web.json_response({"error": f"{request.method} {request.path}: {error.reason}"}, status=error.status)


def _fields(raw: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise WrongField(f"the body is not a JSON object: {error}") from error


def _model(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise WrongField(f"'model={value}': a model's name is expected")
    return value


def _times(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise WrongField(f"'times={value}': a whole number, 1 or more, is expected")
    return value


def _timeout_s(request: web.Request) -> float:
    text = request.query.get("timeout_s", "5")
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = -1.0
    if not 0 <= timeout_s <= _MAX_WAIT_S:
        raise WrongField(f"'timeout_s={text}': a number of seconds, 0 to {_MAX_WAIT_S:.0f}, is expected")
    return timeout_s
