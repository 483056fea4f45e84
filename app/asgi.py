"""What each Granian worker loads: the service, configured by the environment."""

import gc
import os

from litestar.types import ASGIApp

from app.container import container_for
from app.main import create_app
from config.configuration import read_configuration

_COLLECTOR_THRESHOLDS = (5000, 10, 20)
"""Requests leave no cycles behind, so the collector finds next to nothing, and halts every open stream to look for it
(docs/decisions/0006).
"""


def application() -> ASGIApp:
    """The service as the environment says; the process it is in collects cycles less often.

    Raises:
        ConfigurationError: the environment or the catalogue cannot be right.
    """
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    return create_app(container_for(*read_configuration(os.environ)))
