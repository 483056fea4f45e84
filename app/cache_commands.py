"""weir cache: what an operator asks of a running service."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from typing import Any, BinaryIO, NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import click

from config.accepted import API_KEY, URL

_WAIT_S = 3600.0
_LINES = 20
"""How many questions are sent at once: the service answers when it has asked them all."""
_BYTES = 500_000
"""How large they may be together, unless one alone is larger."""
_WRONG_INPUT = frozenset({"invalid_request", "unknown_model"})

_url = click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the service is.")


@click.group()
def cache() -> None:
    """Fill or empty the cache of a running fleet; WEIR_ADMIN_KEY is its operators' key."""


@cache.command()
@click.option("--model", help="Only the answers of this model.")
@click.option("--scope", help="Only the answers of this scope: shared, tenant:NAME or user:NAME.")
@_url
def purge(model: str | None, scope: str | None, url: str) -> None:
    """Empty the cache of all instances."""
    wanted = {name: value for name, value in (("model", model), ("scope", scope)) if value is not None}
    purged = _ask(url, "/admin/cache/purge", json.dumps(wanted).encode(), "application/json")
    of = " and ".join(f"{name} {value}" for name, value in wanted.items())
    click.echo(f"purged: {of or 'everything'}")
    if not purged["is_fleetwide"]:
        click.echo("weir: Redis is away: the other instances follow when it is back", err=True)


@cache.command()
@click.argument("file", type=click.File("rb"))
@_url
def warm(file: BinaryIO, url: str) -> None:
    """Ask the questions of FILE ahead: one a line, in JSON as for POST /v1/stream; - is standard input."""
    questions = _questions(file)
    if not questions:
        _refuse(f"{file.name}: no question")
    failed_count = sum(_warm(url, batch) for batch in _batches(questions))
    sys.exit(1 if failed_count else 0)


def _warm(url: str, batch: Sequence[bytes]) -> int:
    """Ask these, say what became of them, and return how many have no stored answer."""
    warmed = _ask(url, "/admin/cache/warm", b"\n".join(batch), "application/jsonl")
    failures = "".join(f", {count} failed: {code}" for code, count in warmed["failed"].items())
    click.echo(
        f"asked {warmed['asked']}: {warmed['stored_already']} were stored, {warmed['answered']} are now{failures}"
    )
    return sum(warmed["failed"].values())


def _questions(file: BinaryIO) -> list[bytes]:
    """The lines that say something; those that cannot be right end the command before anything is sent."""
    from app.operating import check_question  # noqa: PLC0415  # brings the framework, which takes a moment to load

    lines = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    problems = [f"{file.name}: line {number}: {problem}" for number, line in lines for problem in check_question(line)]
    if problems:
        _refuse(*problems)
    return [line for _, line in lines]


def _batches(questions: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The questions in order, as many at once as may be."""
    batch: list[bytes] = []
    for question in questions:
        if len(batch) == _LINES or (batch and sum(map(len, (*batch, question))) > _BYTES):
            yield batch
            batch = []
        batch.append(question)
    yield batch


def _ask(url: str, path: str, body: bytes, content_type: str) -> Any:
    """What the service answers; the command ends when that is no."""
    headers = {"authorization": f"Bearer {_key()}", "content-type": content_type}
    request = Request(_address(url) + path, data=body, headers=headers, method="POST")  # noqa: S310  # checked
    try:
        with urlopen(request, timeout=_WAIT_S) as response:  # noqa: S310  # checked
            return json.load(response)
    except HTTPError as refusal:
        with refusal:
            code, sentence = _why(refusal)
            _end(2 if code in _WRONG_INPUT else 1, sentence)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        _fail(f"{url}: {getattr(reason, 'strerror', None) or reason}; --url says where the service is")


def _why(refusal: HTTPError) -> tuple[str, str]:
    """Why the service says no, as a code and as a sentence."""
    try:
        problem = json.load(refusal)
        code, detail = problem["code"], problem["detail"]
    except (ValueError, KeyError, TypeError):
        return "", f"answered {refusal.code} {refusal.reason}: is that Weir?"
    if code == "not_found":
        return code, "the service has no operators' routes: WEIR_ADMIN_KEY is not set where it runs"
    if code == "unauthorized":
        return code, f"{code}: WEIR_ADMIN_KEY is another one than the service has"
    return code, f"{code}: {detail}"


def _key() -> str:
    key = os.environ.get("WEIR_ADMIN_KEY", "").strip()
    try:
        return str(API_KEY.read(key))
    except ValueError:
        _refuse(f"WEIR_ADMIN_KEY: {API_KEY.sentence}, the one of the service, is needed")


def _address(url: str) -> str:
    try:
        return URL.read(url)
    except ValueError:
        _refuse(f"--url {URL.show(url)}: {URL.sentence}")


def _refuse(*sentences: str) -> NoReturn:
    _end(2, *sentences)


def _fail(*sentences: str) -> NoReturn:
    _end(1, *sentences)


def _end(code: int, *sentences: str) -> NoReturn:
    for sentence in sentences:
        click.echo(f"weir: {sentence}", err=True)
    sys.exit(code)
