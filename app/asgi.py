"""What each Granian worker loads: the service, configured by the environment."""

import os

from dependency_injector import providers
from litestar.types import ASGIApp

from app.container import Container
from app.main import create_app
from config.configuration import read_configuration


def application() -> ASGIApp:
    """The service as the environment says.

    Raises:
        ConfigurationError: the environment or the catalogue cannot be right.
    """
    settings, catalogue = read_configuration(os.environ)
    container = Container(settings=providers.Object(settings), catalogue=providers.Object(catalogue))
    return create_app(container)
