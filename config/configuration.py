"""Everything an operator decides: the environment and the catalogue it points to, reported on together."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from config.catalogue import Catalogue, read_catalogue
from config.errors import ConfigurationError
from config.settings import Settings, read_settings
from config.variable import FILE

T = TypeVar("T")


def read_configuration(environ: Mapping[str, str]) -> tuple[Settings, Catalogue]:
    """Return settings and catalogue.

    Raises:
        ConfigurationError: the problems of both, those of the environment first.
    """
    problems: list[str] = []
    settings = _attempt(lambda: read_settings(environ), problems)
    path = FILE.read(environ.get("WEIR_CATALOGUE", "").strip())
    catalogue = _attempt(lambda: read_catalogue(path, environ), problems)
    if settings is None or catalogue is None:
        raise ConfigurationError(tuple(problems))
    return settings, catalogue


def _attempt(read: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return read()
    except ConfigurationError as refused:
        problems += refused.problems
        return None
