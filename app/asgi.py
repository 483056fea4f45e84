"""What each Granian worker loads: the service, configured by the environment."""

import gc
import os
import sys

from litestar.types import ASGIApp

from app.container import container_for
from app.ending import at_sigterm
from app.main import create_app
from config.configuration import read_configuration

_COLLECTOR_THRESHOLDS = (5000, 10, 20)
"""Requests leave no cycles behind, so the collector finds next to nothing, and halts every open stream to look for it
(docs/decisions/0006).
"""

_SWITCH_S = 0.0001
"""The server's own thread hands requests over one by one, and waits so long for the interpreter each time. By default
that is 5 ms, and behind a thousand new requests the next one waits for as many turns; here they are soon where
app/entrance.py lets them begin in a fairer order.
"""


def application() -> ASGIApp:
    """The service as the environment says; the process it is in collects cycles less often and switches threads sooner.

    Raises:
        ConfigurationError: the environment or the catalogue cannot be right.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    container = container_for(*read_configuration(os.environ))
    drained = (container.http_policy().bodies, container.connections())
    return create_app(container, at_sigterm(*(part.drain for part in drained)))
