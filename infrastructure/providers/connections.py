"""What a broken connection means for us: one table for all providers, as all are called through aiohttp."""

import errno
import socket
from collections.abc import Mapping

import aiohttp

from domain.errors import (
    ProviderError,
    ProviderMisconfigured,
    ProviderSaturated,
    ProviderTimeout,
    ProviderUnavailable,
)

REACTIONS: Mapping[type[BaseException], tuple[type[ProviderError], str]] = {
    socket.gaierror: (ProviderUnavailable, "has an address that does not resolve"),
    ConnectionRefusedError: (ProviderUnavailable, "refused the connection"),
    ConnectionError: (ProviderUnavailable, "broke the connection"),
    TimeoutError: (ProviderTimeout, "could not be reached within {connect_timeout_s:g} s"),
    OSError: (ProviderUnavailable, "could not be reached"),
    aiohttp.ServerTimeoutError: (ProviderTimeout, "could not be reached within {connect_timeout_s:g} s"),
    aiohttp.ClientSSLError: (ProviderUnavailable, "failed the TLS handshake"),
    aiohttp.ClientResponseError: (ProviderUnavailable, "did not answer in HTTP"),
    aiohttp.InvalidURL: (ProviderMisconfigured, "has an address that is no URL"),
    aiohttp.ClientError: (ProviderUnavailable, "broke the connection"),
    Exception: (ProviderUnavailable, "could not be called"),
}
"""By the root of the failure; nearest ancestor wins."""

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""What says that this machine has run out of something, not the provider."""


def connection_error(error: BaseException, connect_timeout_s: float) -> ProviderError:
    """The leaf for a connection that could not be had, or broke before the provider had answered."""
    root = _root(error)
    if isinstance(root, OSError) and root.errno in SHORTAGES:
        return ProviderSaturated("was not called: this instance has no sockets left")
    leaf, reason = next(REACTIONS[kind] for kind in type(root).__mro__ if kind in REACTIONS)
    return leaf(reason.format(connect_timeout_s=connect_timeout_s))


def _root(error: BaseException) -> BaseException:
    """What aiohttp saw, under the names that a transport and an SDK have since given it, or the system's own error."""
    while not isinstance(error, aiohttp.ClientError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return error.os_error
    return error
