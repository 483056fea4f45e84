"""Asking a service whose providers fail, and what the simulated ones would say."""

from dataclasses import dataclass
from pathlib import Path

from infrastructure.simulator.answers import answer_tokens
from tests.app.asking import CHAT, STREAM, of_type, question, statuses, text

CATALOGUE = str(Path(__file__).with_name("catalogue.toml"))
BEARER = {"authorization": "Bearer the-operators-own-key"}
ORDERS = {
    "openai": ("openai", "deepseek", "gemini"),
    "deepseek": ("deepseek", "gemini", "openai"),
    "gemini": ("gemini", "openai", "deepseek"),
}
TOKENS = 25
FORMS = ("named", "chunks", "whole")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client was told: the text, the error's code, and (in named events) the changes of provider."""

    status: int
    text: str
    code: str | None
    changes: tuple[str, ...] = ()
    is_ended_well: bool = True


def expected(query: str, tokens: int = TOKENS) -> str:
    """What every simulated provider says to `query`."""
    return "".join(answer_tokens(query, tokens))


async def ask(client, first: str, form: str, query: str | None = None) -> Told:
    """Ask the model whose routes begin with the provider `first`, and read to the end."""
    query = query or question()
    model = f"{first}-first"
    if form == "named":
        return _named(await client.ask(STREAM, query, model=model))
    if form == "chunks":
        return _chunks(await client.ask(CHAT, query, model=model))
    return _whole(await client.ask(CHAT, query, model=model, stream=False))


def _named(stream) -> Told:
    if stream.status != 200:
        return Told(status=stream.status, text="", code=stream.json()["code"])
    last = stream.events[-1]
    ends = len(of_type(stream.events, "complete")) + len(of_type(stream.events, "error"))
    return Told(
        status=200,
        text=text(stream.events),
        code=last.json["code"] if last.type == "error" else None,
        changes=tuple(status for status in statuses(stream.events) if status not in {"validated", "selected"}),
        is_ended_well=ends == 1 and last.type in {"complete", "error"},
    )


def _chunks(stream) -> Told:
    if stream.status != 200:
        return Told(status=stream.status, text="", code=stream.json()["error"]["code"])
    last = stream.events[-1]
    code = None if last.data == "[DONE]" else last.json["error"]["code"]
    return Told(status=200, text=text(stream.events), code=code)


def _whole(response) -> Told:
    body = response.json()
    if response.status != 200:
        return Told(status=response.status, text="", code=body["error"]["code"])
    choice = body["choices"][0]
    return Told(
        status=200, text=choice["message"]["content"] or "", code=None, is_ended_well=choice["finish_reason"] == "stop"
    )


async def circuit(client, provider: str) -> dict:
    """How the one circuit of `provider` stands."""
    shown = (await client.send("GET", "/admin/circuits", headers=BEARER)).json()["circuits"]
    return next(each for each in shown if each["provider"] == provider)


async def close_circuits(client) -> None:
    """As if nothing had failed yet."""
    for provider in ORDERS:
        await client.send("POST", f"/admin/circuits/{provider}/reset", headers=BEARER)
