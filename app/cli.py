"""The command line: serve, demo, simulate, check."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

import click

from app.demo import environment, simulated_providers, things_to_try
from config.catalogue import Catalogue
from config.configuration import read_configuration
from config.errors import ConfigurationError
from config.settings import Settings

_host = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
_PORT = click.IntRange(0, 65535)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weir")
def main() -> None:
    """Weir: one stream between your applications and the language-model providers they pay for."""


@main.command()
@_host
@click.option("--port", type=_PORT, default=8000, show_default=True, help="Port; 0: any free one.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes; in memory only 1.")
def serve(host: str, port: int, workers: int) -> None:
    """Run the service."""
    settings, catalogue = _configuration(os.environ)
    if not catalogue.models:
        _refuse("no provider has a key: set OPENAI_API_KEY, DEEPSEEK_API_KEY or GEMINI_API_KEY, or try `weir demo`")
    if workers > 1:
        _refuse(f"--workers {workers}: 1 is right while everything is in process memory, which workers do not share")
    for sentence in settings.unknown_variables:
        click.echo(f"weir: {sentence}", err=True)
    _check_redis(settings)
    _serve(settings, host, port, lambda url: click.echo(f"weir: serving at {url}", err=True))


@main.command()
@click.option("--port", type=_PORT, default=8000, show_default=True, help="Port; 0: any free one.")
def demo(port: int) -> None:
    """Run the service with simulated providers: no key is needed, and limits are lifted."""
    with simulated_providers() as addresses:
        os.environ.update(environment(addresses))
        settings, _ = _configuration(os.environ)
        _serve(settings, "127.0.0.1", port, lambda url: click.echo(things_to_try(url, addresses["control"])))


@main.command()
@click.option("--port", type=click.IntRange(0, 65532), default=9100, show_default=True, help="Of the control server.")
def simulate(port: int) -> None:
    """Run the simulated providers alone: a control server, and one port after it for each provider."""
    from infrastructure.simulator.server import run  # noqa: PLC0415  # the other commands start faster without it

    try:
        run("127.0.0.1", port, lambda addresses: click.echo(json.dumps(addresses)))
    except OSError as error:
        _refuse(f"--port {port}: {error.strerror}")


@main.command()
def check() -> None:
    """Read the configuration, try Redis and each provider, and say what is right and what is not."""
    from app.checking import check_providers  # noqa: PLC0415  # brings the SDKs, which take a second to load

    settings, catalogue = _configuration(os.environ)
    for sentence in (*settings.unknown_variables, *catalogue.left_out):
        click.echo(f"  note  {sentence}")
    if settings.redis_url:
        missing = _check_redis(settings)
        click.echo(
            f"  fails redis {missing}; until it is there, an instance serves alone" if missing else "  ok    redis"
        )
    can_serve = asyncio.run(check_providers(settings, catalogue, click.echo))
    click.echo("weir can serve" if can_serve else "weir could not serve: no provider can be used")
    sys.exit(0 if can_serve else 1)


def _configuration(environ: Mapping[str, str]) -> tuple[Settings, Catalogue]:
    try:
        return read_configuration(environ)
    except ConfigurationError as error:
        _refuse(*error.problems)


def _check_redis(settings: Settings) -> str | None:
    """Why Redis can't be used just now; one that will never do is refused."""
    if not settings.redis_url:
        return None
    from app.container import check_redis  # noqa: PLC0415  # the other commands start faster without it

    try:
        return asyncio.run(check_redis(settings.redis_url))
    except ConfigurationError as error:
        _refuse(*error.problems)


def _serve(settings: Settings, host: str, port: int, announce: Callable[[str], None]) -> None:
    from app.serving import PortTaken, serve  # noqa: PLC0415  # Granian is for those who serve

    try:
        serve(settings, host, port, announce)
    except PortTaken as error:
        _refuse(str(error))


def _refuse(*sentences: str) -> NoReturn:
    """End with exit code 2, and a line for each thing that is wrong."""
    for sentence in sentences:
        click.echo(f"weir: {sentence}", err=True)
    sys.exit(2)
