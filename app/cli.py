"""The command line: serve, demo, simulate, check, keys, cache."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

import click

from app.cache_commands import cache
from app.demo import environment, simulated_providers, things_to_try
from app.key_commands import keys
from config.catalogue import Catalogue
from config.configuration import read_configuration
from config.errors import ConfigurationError
from config.settings import Settings

_host = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
_PORT = click.IntRange(0, 65535)
_WORKERS = (
    "Processes on the port; 1 without Redis. With more, /metrics and /health tell of the one that answers: where they "
    "are watched, run one process a container, or one a port."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weir")
def main() -> None:
    """Weir: one stream between your applications and the language-model providers they pay for."""


main.add_command(cache)
main.add_command(keys)


@main.command()
@_host
@click.option("--port", type=_PORT, default=8000, show_default=True, help="Port; 0: any free one.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help=_WORKERS)
def serve(host: str, port: int, workers: int) -> None:
    """Run the service."""
    settings, catalogue = _configuration(os.environ)
    if not catalogue.models:
        _refuse("no provider has a key: set OPENAI_API_KEY, DEEPSEEK_API_KEY or GEMINI_API_KEY, or try `weir demo`")
    if workers > 1 and not settings.redis_url:
        _refuse(f"--workers {workers}: 1 is right without WEIR_REDIS_URL, as workers do not share memory")
    for sentence in settings.notes:
        click.echo(f"weir: {sentence}", err=True)
    _try_redis(settings)
    _try_keys(settings)
    _serve(settings, host, port, workers, lambda url: click.echo(f"weir: serving at {url}", err=True))


@main.command()
@click.option("--port", type=_PORT, default=8000, show_default=True, help="Port; 0: any free one.")
def demo(port: int) -> None:
    """Run the service with simulated providers: no key is needed, and limits are lifted."""
    with simulated_providers() as addresses:
        os.environ.update(environment(addresses))
        settings, _ = _configuration(os.environ)
        _try_keys(settings)
        _serve(settings, "127.0.0.1", port, 1, lambda url: click.echo(things_to_try(url, addresses["control"])))


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
    from app.checking import check_keys, check_providers, check_store  # noqa: PLC0415  # brings what takes a second to load

    settings, catalogue = _configuration(os.environ)
    for sentence in (*settings.notes, *catalogue.left_out):
        click.echo(f"  note  {sentence}")
    is_shared = asyncio.run(check_store(settings, click.echo))
    has_keys = check_keys(settings, click.echo)
    has_provider = asyncio.run(check_providers(settings, catalogue, click.echo))
    if not has_provider:
        click.echo("weir could not serve: no provider can be used")
    elif not has_keys:
        click.echo("weir could not serve: its API keys cannot be read")
    elif not is_shared:
        click.echo("weir could not serve as it should: instances do not share anything without Redis")
    else:
        click.echo("weir can serve")
    sys.exit(0 if has_provider and is_shared and has_keys else 1)


def _configuration(environ: Mapping[str, str]) -> tuple[Settings, Catalogue]:
    try:
        return read_configuration(environ)
    except ConfigurationError as error:
        _refuse(*error.problems)


def _serve(settings: Settings, host: str, port: int, workers: int, announce: Callable[[str], None]) -> None:
    from app.serving import PortTaken, serve  # noqa: PLC0415  # Granian is for those who serve

    try:
        serve(settings, host, port, workers, announce)
    except PortTaken as error:
        _refuse(str(error))


def _try_redis(settings: Settings) -> None:
    """End here if Redis will never do; one that only does not answer yet is found when it does, and the log tells."""
    if not settings.redis_url:
        return
    from infrastructure.redis.checking import RedisUnfit, RedisUnreachable, check_redis  # noqa: PLC0415  # only for who has Redis

    try:
        asyncio.run(check_redis(settings.redis_url))
    except RedisUnfit as unfit:
        _refuse(f"WEIR_REDIS_URL: {unfit}")
    except RedisUnreachable:
        return


def _try_keys(settings: Settings) -> None:
    """End here if the file of keys cannot be read."""
    path = settings.access.api_keys_file
    if settings.redis_url or path is None:
        return
    from infrastructure.memory.key_file import KeyFileError, read_keys  # noqa: PLC0415  # only for who has such a file

    try:
        read_keys(path)
    except KeyFileError as error:
        _refuse(f"WEIR_API_KEYS_FILE: {error}")


def _refuse(*sentences: str) -> NoReturn:
    """End with exit code 2, and a line for each thing that is wrong."""
    for sentence in sentences:
        click.echo(f"weir: {sentence}", err=True)
    sys.exit(2)
